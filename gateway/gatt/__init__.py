"""What GATT payloads are made of: a reader that locates every fault, numbers, times, UUIDs."""
