"""The hub: reads the home's devices, keeps what they say, sends it until it is receipted."""
