"""NEWS2, in part. Royal College of Physicians, National Early Warning Score 2, 2017, chart 1.

A home has no respiration rate, no level of consciousness and no note of supplemental oxygen, so what
is summed here is always partial and must be called so: a low partial score says nothing good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.guidelines.samples import Floats, Ints

SOURCE, VERSION = "Royal College of Physicians, NEWS2, chart 1", "2017"

_BANDS: dict[str, tuple[tuple[float, ...], tuple[int, ...]]] = {
    # Upper ends of the bands, closed, in the resolution of the chart; the scores; above the last end.
    "oxygen_saturation_percent": ((91, 93, 95), (3, 2, 1, 0)),
    "systolic_mmhg": ((90, 100, 110, 219), (3, 2, 1, 0, 3)),
    "pulse_rate_per_min": ((40, 50, 90, 110, 130), (3, 1, 0, 1, 2, 3)),
    "body_temperature_celsius": ((35.0, 36.0, 38.0, 39.0), (3, 1, 0, 1, 2)),
}
_RESOLUTION = {"body_temperature_celsius": 1}
"""Decimals of the chart; what is measured finer is rounded to them before it is scored."""
PARAMETERS = tuple(_BANDS)
PARAMETERS_OF_NEWS2 = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialScore:
    """Partial NEWS2, (n,) each. `score` sums what is there; `present` of the seven parameters.

    `single_three`: one parameter alone scores 3, which the chart calls urgent whatever the sum.
    """

    score: Ints
    present: Ints
    single_three: np.ndarray
    by_parameter: Mapping[str, Ints]
    """-1 where absent."""


def partial_news2(values: Mapping[str, Floats]) -> PartialScore:
    """Score values of the same moment, NaN where absent; parameters that are not given are absent."""
    count = len(next(iter(values.values()), np.empty(0)))
    scores = {
        name: _score(name, np.asarray(values[name], np.float64))
        for name in PARAMETERS
        if name in values
    }
    stacked = np.array(list(scores.values()), np.int64).reshape(len(scores), count)
    return PartialScore(
        score=np.where(stacked > 0, stacked, 0).sum(axis=0),
        present=(stacked >= 0).sum(axis=0),
        single_three=(stacked == 3).any(axis=0),  # noqa: PLR2004 - the chart's highest
        by_parameter=scores,
    )


def _score(name: str, values: Floats) -> Ints:
    ends, scores = _BANDS[name]
    rounded = np.round(values, _RESOLUTION.get(name, 0))
    band = np.searchsorted(np.array(ends), rounded, side="left")
    score: Ints = np.where(
        np.isnan(values), -1, np.array(scores, np.int64)[np.minimum(band, len(ends))]
    )
    return score
