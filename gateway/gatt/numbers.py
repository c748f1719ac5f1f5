"""IEEE 11073-20601 SFLOAT-Type and FLOAT-Type, exactly: decimals in, decimals out.

IEEE Std 11073-20601, Annex F.8: a two's complement mantissa times ten to a two's complement
exponent. The number of decimals is part of what the device says (36.60 is not 36.6), so values are
`Decimal`s whose exponent is the one on the air. Special numbers become named absences.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from gateway.errors import EncodeError
from gateway.gatt.payload import PayloadReader
from gateway.quantity import Absent, Value


@dataclass(frozen=True, slots=True)
class DecimalFormat:
    """A mantissa of `mantissa_bits` with the exponent in the bits above it."""

    name: str
    size: int
    mantissa_bits: int
    exponent_bits: int
    specials: dict[int, Absent]
    """The whole field's value -> what it means; only when the exponent is 0."""

    def decode(self, raw: int) -> Value:
        """Return the number that `raw`, the field as an unsigned integer, stands for."""
        special = self.specials.get(raw)
        if special is not None:
            return special
        mantissa = _signed(raw & ((1 << self.mantissa_bits) - 1), self.mantissa_bits)
        exponent = _signed(raw >> self.mantissa_bits, self.exponent_bits)
        return decimal_from(mantissa, exponent)

    def encode(self, value: Value) -> bytes:
        """Return the field for `value`, with as many decimals as `value` has.

        Raises:
            EncodeError: the value is not exactly representable.
        """
        if isinstance(value, Absent):
            raw = next((raw for raw, absent in self.specials.items() if absent is value), None)
            if raw is None:
                raise EncodeError(f"{self.name} has no special number for {value.name}")
            return raw.to_bytes(self.size, "little")
        mantissa, exponent = self._fit(value)
        raw = mantissa & ((1 << self.mantissa_bits) - 1)
        raw |= (exponent & ((1 << self.exponent_bits) - 1)) << self.mantissa_bits
        if raw in self.specials:
            # +-2**n - 2 .. 2**n with exponent 0 are taken: the same number with another exponent.
            raise EncodeError(f"{value} is a special number in {self.name}")
        return raw.to_bytes(self.size, "little")

    def _fit(self, value: Decimal) -> tuple[int, int]:
        mantissa, exponent = mantissa_and_exponent(value)
        mantissa_end = 1 << (self.mantissa_bits - 1)
        exponent_end = 1 << (self.exponent_bits - 1)
        while (not -mantissa_end <= mantissa < mantissa_end or exponent < -exponent_end) and (
            mantissa % 10 == 0
        ):
            mantissa //= 10
            exponent += 1
        while exponent >= exponent_end and -mantissa_end <= mantissa * 10 < mantissa_end:
            mantissa *= 10
            exponent -= 1
        in_range = -mantissa_end <= mantissa < mantissa_end
        if not in_range or not -exponent_end <= exponent < exponent_end:
            raise EncodeError(f"{value} has no exact {self.name}")
        return mantissa, exponent


SFLOAT = DecimalFormat(
    name="SFLOAT",
    size=2,
    mantissa_bits=12,
    exponent_bits=4,
    specials={
        0x07FF: Absent.NOT_A_NUMBER,
        0x0800: Absent.NOT_AT_THIS_RESOLUTION,
        0x07FE: Absent.POSITIVE_INFINITY,
        0x0802: Absent.NEGATIVE_INFINITY,
        0x0801: Absent.RESERVED,
    },
)
FLOAT = DecimalFormat(
    name="FLOAT",
    size=4,
    mantissa_bits=24,
    exponent_bits=8,
    specials={
        0x007FFFFF: Absent.NOT_A_NUMBER,
        0x00800000: Absent.NOT_AT_THIS_RESOLUTION,
        0x007FFFFE: Absent.POSITIVE_INFINITY,
        0x00800002: Absent.NEGATIVE_INFINITY,
        0x00800001: Absent.RESERVED,
    },
)


def read_decimal(reader: PayloadReader, field: str, number: DecimalFormat) -> Value:
    """Take one SFLOAT or FLOAT off `reader`."""
    return number.decode(reader.unsigned(field, number.size))


def read_scaled(reader: PayloadReader, field: str, size: int, exponent: int) -> Decimal:
    """Take an unsigned integer of `size` bytes that counts steps of ten to the `exponent`."""
    return decimal_from(reader.unsigned(field, size), exponent)


def scaled_steps(field: str, value: Decimal, step: Decimal) -> int:
    """Return how many `step`s make `value`; a remainder is an `EncodeError`."""
    steps = value / step
    if steps != int(steps):
        raise EncodeError(f"{field} {value} is no multiple of {step}")
    return int(steps)


def decimal_from(mantissa: int, exponent: int) -> Decimal:
    """Return mantissa * 10**exponent with exactly that exponent: (3660, -2) is 36.60."""
    digits = tuple(map(int, str(abs(mantissa))))
    return Decimal((int(mantissa < 0), digits, exponent))


def mantissa_and_exponent(value: Decimal) -> tuple[int, int]:
    """Return the integers whose mantissa * 10**exponent is `value`, decimals kept.

    Raises:
        EncodeError: `value` is not finite.
    """
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise EncodeError(f"{value} is no finite number; name its absence instead")
    mantissa = int("".join(map(str, digits)) or "0")
    return (-mantissa if sign else mantissa), exponent


def _signed(raw: int, bits: int) -> int:
    return raw - (1 << bits) if raw >> (bits - 1) else raw
