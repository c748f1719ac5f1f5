"""What a local day comes to: water drunk, steps taken, the peak of the temperature.

A day is Asia/Shanghai's unless an offset is given. Steps are what the devices report of periods; a
period counts on the day on which it ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.guidelines.samples import (
    SHANGHAI_OFFSET_MS,
    Bools,
    Floats,
    Ints,
    Samples,
    day_keys,
    local_days,
    starts,
)
from gateway.quantity import Quantity
from gateway.vitals.body_temperature import BODY_TEMPERATURE

FEVER_CELSIUS = 38.1
"""From here on NEWS2 (Royal College of Physicians, 2017) scores a temperature as raised."""
FEVER_SOURCE, FEVER_VERSION = "Royal College of Physicians, NEWS2", "2017"


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyTotals:
    """The sum of a quantity on each resident's day with a reading; (k,) each."""

    resident: Ints
    day: Ints
    total: Floats
    readings: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyPeaks:
    """The highest temperature of each resident's day with one; (k,) each."""

    resident: Ints
    day: Ints
    peak_celsius: Floats
    peak_at_ms: Ints
    """When it was reached first."""
    readings: Ints


def daily_totals(
    samples: Samples, quantity: Quantity, offset_ms: int = SHANGHAI_OFFSET_MS
) -> DailyTotals:
    """Sum a quantity by local day. Unusual readings count (a long walk is one), artefacts do not."""
    kept = samples.where(~samples.artefact & ~np.isnan(samples.values[quantity.name]))
    day = local_days(kept.measured_ms, offset_ms)
    first = starts(day_keys(kept.resident, day))
    size = np.diff(np.append(first, len(kept)))
    total = np.add.reduceat(kept.values[quantity.name], first) if len(first) else np.empty(0)
    return DailyTotals(resident=kept.resident[first], day=day[first], total=total, readings=size)


def daily_peaks(samples: Samples, offset_ms: int = SHANGHAI_OFFSET_MS) -> DailyPeaks:
    """Return the day's highest temperatures. A fever is unusual by nature, so those count too."""
    kept = samples.where(~samples.artefact & ~np.isnan(samples.values[BODY_TEMPERATURE.name]))
    day = local_days(kept.measured_ms, offset_ms)
    key = day_keys(kept.resident, day)
    temperature = kept.values[BODY_TEMPERATURE.name]
    order = np.lexsort((kept.measured_ms, -temperature, key))
    first = starts(key)
    highest = order[first]  # the same number of readings a day, so the same starts
    return DailyPeaks(
        resident=kept.resident[first],
        day=day[first],
        peak_celsius=temperature[highest],
        peak_at_ms=kept.measured_ms[highest],
        readings=np.diff(np.append(first, len(kept))),
    )


def has_fever(samples: Samples, threshold_celsius: float = FEVER_CELSIUS) -> Bools:
    """Return (n,) which readings are a fever; an artefact is none."""
    fever: Bools = (samples.values[BODY_TEMPERATURE.name] >= threshold_celsius) & ~samples.artefact
    return fever
