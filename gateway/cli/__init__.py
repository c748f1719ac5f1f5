"""The command line: `hearth`, one module for each command or group of commands."""
