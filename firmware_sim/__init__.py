"""Simulated devices and homes: Bluetooth LE peripherals with real ATT, GATT and SMP, with faults."""
