"""What the hubs took against what is there, reading by reading. Pure; keys are `load.keys_of`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]

EXAMPLES_MAX = 10
"""So many keys are told of each kind of fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the hubs' journals and the store hold; each array has one key an entry.

    `offered`, `kept`: of all hubs, with repeats. `stored`: a key a row of the table. `altered`: those
    of `stored` whose value does not go with their number. `quarantined`: a key a waiting record.
    """

    offered: Keys
    kept: Keys
    stored: Keys
    altered: Keys
    quarantined: Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads:
    """Undecoded payloads: kept once by one hub, so in quarantine once."""

    offered: Keys
    kept: Keys
    quarantined: Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many readings (with payloads) went wrong in each way; `examples` names the first."""

    kept: int
    lost: int
    doubled: int
    altered: int
    invented: int
    quarantined: int
    examples: dict[str, list[int]]

    @property
    def holds(self) -> bool:
        """Whether every reading is there once, as it was."""
        return not (self.lost or self.doubled or self.altered or self.invented)


def compare(readings: Found, payloads: Payloads) -> Comparison:
    """Compare.

    Lost: said to be kept, and neither stored nor in quarantine. Doubled: more than one row. Invented:
    a row that no hub was ever offered.
    """
    wrong = {
        "lost": np.concatenate(
            (
                _without(readings.kept, readings.stored, readings.quarantined),
                _without(payloads.kept, payloads.quarantined),
            )
        ),
        "doubled": np.concatenate((_repeated(readings.stored), _repeated(payloads.quarantined))),
        "altered": readings.altered,
        "invented": np.concatenate(
            (
                _without(readings.stored, readings.offered),
                _without(readings.quarantined, readings.offered),
                _without(payloads.quarantined, payloads.offered),
            )
        ),
    }
    return Comparison(
        kept=len(np.unique(readings.kept)) + len(np.unique(payloads.kept)),
        quarantined=len(readings.quarantined) + len(payloads.quarantined),
        **{name: len(keys) for name, keys in wrong.items()},
        examples={name: keys[:EXAMPLES_MAX].tolist() for name, keys in wrong.items() if len(keys)},
    )


def _without(keys: Keys, *others: Keys) -> Keys:
    return np.setdiff1d(keys, np.concatenate(others))


def _repeated(keys: Keys) -> Keys:
    """Return a key for each row too many."""
    ordered = np.sort(keys)
    repeated: Keys = ordered[1:][ordered[1:] == ordered[:-1]]
    return repeated
