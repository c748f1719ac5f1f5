"""What is usual for each resident, and which readings are not."""
