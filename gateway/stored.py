"""What ingest writes into the store's packed columns and the API reads out of them.

`flags`, a bit each; `digits`, what the device sent exactly: for each of the five values its power of
ten (a signed byte, the first value lowest), and above them its absence (four bits each, 0: present).
"""

from __future__ import annotations

from gateway.vital_sign import QUANTITIES_MAX

FLAG_ARTEFACT = 1 << 0
"""Stored and shown, left out of averages."""

EXPONENT_BITS = 8
ABSENCE_BITS = 4
ABSENCES_AT = EXPONENT_BITS * QUANTITIES_MAX
"""The bit of `digits` at which the absences begin."""
