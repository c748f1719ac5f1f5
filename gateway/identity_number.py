"""Numbers that identify a resident. GB 11643-1999 (ISO 7064 MOD 11-2); WS/T 543-2017.

The resident identity number: six digits of the place, eight of the date of birth, three of the order
(odd: male), and a check character. The health card's number is taken as opaque: its standard is
confirmed here for what it does (it finds the archive), not for how it is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from enum import Enum

from gateway.errors import DataError

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
"""Of the 17 digits, the first one first: 2 to the power of 17..1, modulo 11."""
CHECK_CHARACTERS = "10X98765432"
"""By the weighted sum modulo 11."""
CARD_CHARS_MAX = 32
"""A longer health card number is refused."""

_FORM = re.compile(r"[1-9][0-9]{16}[0-9X]", re.ASCII)
_CARD = re.compile(rf"[0-9A-Z]{{6,{CARD_CHARS_MAX}}}", re.ASCII)


class NumberFault(Enum):
    """What is wrong with a number; says nothing of the number itself."""

    FORM = "form"
    """Not 17 digits and a digit or X."""
    BIRTH_DATE = "birth_date"
    """Digits 7 to 14 are no date, or one that has not come yet."""
    CHECK = "check"
    """The check character is another: mistyped."""
    CARD = "card"
    """A health card's number is 6 to 32 digits and capital letters."""


class NumberError(DataError):
    """A number cannot be anybody's. The text names the fault and never the number."""

    def __init__(self, fault: NumberFault) -> None:
        super().__init__(f"the number is wrong: {fault.value}")
        self.fault = fault


class Sex(Enum):
    """GB/T 2261.1 (and ISO/IEC 5218)."""

    UNKNOWN = 0
    MALE = 1
    FEMALE = 2
    UNSPECIFIED = 9


@dataclass(frozen=True, slots=True)
class IdentityNumber:
    """A number that passed; `text` in capitals."""

    text: str
    birth_date: date

    @property
    def sex(self) -> Sex:
        """Return the sex that the 17th digit tells."""
        return Sex.MALE if int(self.text[16]) % 2 else Sex.FEMALE

    def __repr__(self) -> str:
        return "IdentityNumber(…)"


def read_identity_number(text: str, today: date) -> IdentityNumber:
    """Return the resident identity number that `text` is; a small x is taken for X.

    Raises:
        NumberError: it is none, or its holder would be born after `today`.
    """
    number = text.strip().upper()
    if not _FORM.fullmatch(number):
        raise NumberError(NumberFault.FORM)
    try:
        birth_date = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError as error:
        raise NumberError(NumberFault.BIRTH_DATE) from error
    if birth_date > today:
        raise NumberError(NumberFault.BIRTH_DATE)
    if check_character(number[:17]) != number[17]:
        raise NumberError(NumberFault.CHECK)
    return IdentityNumber(number, birth_date)


def check_character(digits: str) -> str:
    """Return the check character of 17 digits. ISO 7064 MOD 11-2."""
    weighted = sum(map(int.__mul__, WEIGHTS, digits.encode("ascii"))) - ord("0") * sum(WEIGHTS)
    return CHECK_CHARACTERS[weighted % 11]


def read_card_number(text: str) -> str:
    """Return a health card's number in capitals, without spaces and hyphens.

    Raises:
        NumberError: it is none.
    """
    number = text.replace(" ", "").replace("-", "").upper()
    if not _CARD.fullmatch(number):
        raise NumberError(NumberFault.CARD)
    return number
