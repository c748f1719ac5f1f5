"""What ingest writes into the store's packed columns and the API reads out of them.

`flags`, a bit each (`FLAG_...`); `digits`, what the device sent exactly: for each of the five values its power of
ten (a signed byte, the first value lowest), and above them its absence (four bits each, 0: present).
"""

from __future__ import annotations

from gateway.vital_sign import QUANTITIES_MAX

FLAG_ARTEFACT = 1 << 0
"""Stored and shown, left out of averages."""
FLAG_UNUSUAL = 1 << 1
"""Far from what is usual for its resident."""
FLAG_INFERRED = 1 << 2
"""Its resident was found by the household's own history: a device that several share."""
FLAG_CLAIMED = 1 << 3
"""A person said whose it is (or, with no resident, that it is a stranger's)."""
FLAG_ELSEWHERE = 1 << 4
"""Another home's hub had it long before its own: a device that was lent. Nobody's by itself."""

EXPONENT_BITS = 8
ABSENCE_BITS = 4
ABSENCES_AT = EXPONENT_BITS * QUANTITIES_MAX
"""The bit of `digits` at which the absences begin."""

QUARANTINE_REASONS = {
    10: "record_invalid",
    11: "sign_unknown",
    12: "device_unknown",
    13: "device_elsewhere",
    20: "hub_clock",
    21: "time_unplaced",
    22: "time_future",
    23: "time_too_old",
    24: "hub_time_unknown",
    30: "implausible",
    31: "cross_field",
    40: "unlinked",
    50: "conflict",
    60: "undecoded",
    70: "no_batch",
    71: "hub_unknown",
    72: "hub_foreign",
    73: "hub_revoked",
    74: "batch_differs",
}
"""What the numbers in quarantine's column `reason` mean (ingest.verdicts.Verdict)."""
QUARANTINE_KINDS = {1: "measurement", 2: "payload", 3: "message"}
"""What the numbers in its column `kind` mean."""
