"""What a measurement says: a figure, what it is held against, and whether the goal is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure. `value` and `against_value` are medians over `rounds`, in `unit`.

    `ratio` is the median of the rounds' ratios, `spread` their range divided by it: a wide spread
    means that the machine was busy. `goal` is the least ratio asked for (the greatest, where
    `lower_is_better`); None where the figure is only told.
    """

    name: str
    value: float
    unit: str
    against: str
    against_value: float
    ratio: float
    goal: float | None
    met: bool | None
    rounds: int
    spread: float

    def __str__(self) -> str:
        """Say it in a line, for whoever waits for the others."""
        return f"{self.name}: {self.value} {self.unit}, {self.ratio} of {self.against}"

    def as_json(self) -> dict[str, Any]:
        """Return the object that --json prints, one a line."""
        return asdict(self)


def compare(
    name: str,
    unit: str,
    values: Sequence[float],
    against: str,
    against_values: Sequence[float],
    *,
    goal: float | None,
    lower_is_better: bool = False,
) -> Result:
    """Hold the rounds of one figure against those of another, taken in turn in the same run."""
    ratios = [value / other for value, other in zip(values, against_values, strict=True)]
    ratio = statistics.median(ratios)
    met = None
    if goal is not None:
        met = ratio <= goal if lower_is_better else ratio >= goal
    return Result(
        name=name,
        value=round(statistics.median(values), 3),
        unit=unit,
        against=against,
        against_value=round(statistics.median(against_values), 3),
        ratio=round(ratio, 4),
        goal=goal,
        met=met,
        rounds=len(values),
        spread=round((max(ratios) - min(ratios)) / ratio, 4),
    )
