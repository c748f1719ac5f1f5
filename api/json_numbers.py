"""Stored values as JSON numbers with exactly the digits that the device sent (RFC 8259, 6).

The store keeps each value in its canonical unit (float64) and, in `digits`, the power of ten at
which the device counted. From both the device's own decimal comes back: 36.60 stays 36.60.
"""

from __future__ import annotations

import math

from gateway.quantity import Unit


def number_as_sent(value: float, exponent: int) -> bytes:
    """Return the decimal nearest to `value` that counts in ten to the `exponent`."""
    if exponent > 0:
        return b"%de%d" % (round(value / 10.0**exponent), exponent)
    return f"{value:.{-exponent}f}".encode("ascii")


def original_value(canonical: float, unit: Unit) -> float:
    """Return, in `unit`, the value that is `canonical` in the canonical unit of its dimension."""
    return (canonical - unit.offset) / unit.scale


def converted_number(canonical: float, unit: Unit, exponent: int) -> bytes:
    """Return a value that the device sent in `unit`, in the canonical unit.

    It has as many decimals as tell two neighbouring steps of the device apart: 98.6 °F is 37.00 °C,
    16.0 kPa is 120.0 mmHg, 1.5 L is 1500 mL.
    """
    step = 10.0**exponent * unit.scale
    return number_as_sent(canonical, min(math.floor(math.log10(step)), 0))
