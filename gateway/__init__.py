"""Hearth's shared vocabulary and platform: quantities, vital signs, wire format, settings, CLI."""

__version__ = "0.1.0"
