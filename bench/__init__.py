"""Measurements against limits and peers, in the same run; `hearth bench NAME`."""
