"""Which Observations a measurement makes, derived from the registry of signs.

A sign's panel is one Observation with components, each quantity outside it one of its own, and the
device's status field one where IEEE 11073 numbers its bits (PHD guide, BITs enumeration). The period
that a reading covers is no Observation: it is the others' effective time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from api.fhir.vocabulary import (
    CATEGORY,
    LOINC,
    MDC,
    PHD,
    PHD_CATEGORY,
    QUANTITY,
    VITAL_SIGN_PROFILES,
    loinc_codes,
)
from gateway.quantity import Absent, Quantity, Text
from gateway.stored import ABSENCE_BITS
from gateway.vital_sign import Category, VitalSign
from gateway.vitals import SIGNS


class Kind(Enum):
    """What a part says."""

    PANEL = "panel"
    SINGLE = "single"
    STATUS = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """A code and its system."""

    system: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One Observation that a measurement of `sign` can make.

    `suffix` closes the Observation's id and never changes; `places` are those of the part's
    quantities in the sign. Whether a stored row has it: some of its quantities are not NOT_SENT
    (`absences & sent_mask != not_sent`), or a status bit is set (`status & status_bits`).
    """

    sign: VitalSign
    kind: Kind
    suffix: str
    places: tuple[int, ...]
    title: Text
    codes: tuple[Coding, ...]
    categories: tuple[Coding, ...]
    profile: str | None
    sent_mask: int
    not_sent: int
    status_bits: int


def codings(loinc: str | None, mdc: int | None) -> tuple[Coding, ...]:
    """Return the codes of a quantity or a panel: LOINC first, which many readers take alone."""
    of_loinc = () if loinc is None else loinc_codes(loinc)
    of_mdc = () if mdc is None else (Coding(system=MDC, code=str(mdc)),)
    return tuple(Coding(system=LOINC, code=code) for code in of_loinc) + of_mdc


def quantity_codings(quantity: Quantity) -> tuple[Coding, ...]:
    """Return a quantity's codes; its own name where nobody else has one."""
    return codings(quantity.loinc, quantity.mdc) or (Coding(system=QUANTITY, code=quantity.name),)


def parts_of(sign: VitalSign) -> tuple[Part, ...]:
    """Return the Observations that a sign's measurements can make, in their order."""
    panel = tuple(sign.quantities.index(quantity) for quantity in sign.panel)
    parts = [_panel(sign, panel)] if panel else []
    parts += [
        _single(sign, place)
        for place, quantity in enumerate(sign.quantities)
        if place not in panel and quantity != sign.period
    ]
    if sign.status_mdc is not None:
        parts.append(_status(sign, sign.status_mdc))
    return tuple(parts)


def _panel(sign: VitalSign, places: tuple[int, ...]) -> Part:
    return Part(
        sign=sign,
        kind=Kind.PANEL,
        suffix="p",
        places=places,
        title=sign.title,
        codes=codings(sign.loinc, sign.mdc),
        categories=_categories(sign),
        profile=_profile(sign, sign.loinc),
        status_bits=0,
        **_sent(places),
    )


def _single(sign: VitalSign, place: int) -> Part:
    quantity = sign.quantities[place]
    return Part(
        sign=sign,
        kind=Kind.SINGLE,
        suffix=str(place),
        places=(place,),
        title=quantity.title,
        codes=quantity_codings(quantity),
        categories=_categories(sign),
        profile=_profile(sign, quantity.loinc),
        status_bits=0,
        **_sent((place,)),
    )


def _status(sign: VitalSign, mdc: int) -> Part:
    bits = 0
    for status in sign.statuses:
        bits |= status.value
    return Part(
        sign=sign,
        kind=Kind.STATUS,
        suffix="s",
        places=(),
        title=Text(zh=f"{sign.title.zh}测量状态", en=f"{sign.title.en}: measurement status"),
        codes=codings(None, mdc),
        categories=(_OF_A_DEVICE,),
        profile=None,
        sent_mask=0,
        not_sent=0,
        status_bits=bits,
    )


_OF_A_DEVICE = Coding(system=PHD_CATEGORY, code=PHD)


def _categories(sign: VitalSign) -> tuple[Coding, ...]:
    return (Coding(system=CATEGORY, code=sign.category.value), _OF_A_DEVICE)


def _profile(sign: VitalSign, loinc: str | None) -> str | None:
    if sign.category is not Category.VITAL_SIGNS:
        return None
    return VITAL_SIGN_PROFILES.get(loinc or "", "vitalsigns")


def _sent(places: Sequence[int]) -> dict[str, int]:
    absent = (1 << ABSENCE_BITS) - 1
    return {
        "sent_mask": sum(absent << (ABSENCE_BITS * place) for place in places),
        "not_sent": sum(Absent.NOT_SENT.value << (ABSENCE_BITS * place) for place in places),
    }


PARTS_OF: dict[int, tuple[Part, ...]] = {sign.code: parts_of(sign) for sign in SIGNS}
"""By the sign's code."""
PARTS: tuple[Part, ...] = tuple(part for parts in PARTS_OF.values() for part in parts)
