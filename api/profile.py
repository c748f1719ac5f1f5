"""What the archive knows of a resident beside the measurements, and how it is read from text.

Columns of an import bear Chinese or English names; a fault names the column and never its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import orjson

from api.vault import Identity
from gateway.errors import DataError
from gateway.identity_number import NumberError, Sex, read_card_number, read_identity_number
from gateway.vitals import QUANTITIES

NAME_CHARS_MAX = 100
"""A longer name is refused."""
CLINIC_CHARS_MAX = 64
"""A longer code of a clinic or a care team is refused."""
HEIGHT_CM = (20.0, 280.0)
"""The heights that are believed."""

TARGET_PREFIX = ("目标:", "target:")
COLUMNS = {
    "name": ("姓名", "name"),
    "national_id": ("身份证号", "national_id"),
    "health_card": ("健康卡号", "health_card"),
    "birth_date": ("出生日期", "birth_date"),
    "sex": ("性别", "sex"),
    "clinic": ("机构", "clinic"),
    "care_team": ("团队", "care_team"),
    "height_cm": ("身高", "height_cm"),
}
"""The columns of an import and their names. A target's is `target:systolic_mmhg`, "..130"."""
SEXES = {
    "": Sex.UNKNOWN,
    **dict.fromkeys(("0", "未知", "unknown"), Sex.UNKNOWN),
    **dict.fromkeys(("1", "男", "male", "m"), Sex.MALE),
    **dict.fromkeys(("2", "女", "female", "f"), Sex.FEMALE),
    **dict.fromkeys(("9", "未说明", "unspecified"), Sex.UNSPECIFIED),
}

_BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


class ProfileError(DataError):
    """Something that is said of a resident cannot be. The text never repeats it."""

    def __init__(self, column: str, why: str) -> None:
        super().__init__(f"{column}: {why}")
        self.column = column
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A resident's own limits of a quantity, in its canonical unit."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A resident as entered. `clinic` and `care_team` are codes; `targets` by quantity."""

    identity: Identity
    sex: Sex = Sex.UNKNOWN
    height_cm: float | None = None
    clinic: str | None = None
    care_team: str | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)

    def canonical(self) -> bytes:
        """Return bytes that are the same for the same profile, for its fingerprint."""
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS)


class Heading:
    """The first line of an import: which column stands where."""

    def __init__(self, names: Sequence[str]) -> None:
        """Read the names.

        Raises:
            ProfileError: a column is unknown, there twice, or one that must be is missing.
        """
        known = {alias: column for column, aliases in COLUMNS.items() for alias in aliases}
        self._places: dict[str, int] = {}
        self._targets: dict[str, int] = {}
        for place, name in enumerate(cell.strip() for cell in names):
            quantity = _target_of(name)
            if quantity is not None:
                self._targets[quantity] = place
            elif name in known and known[name] not in self._places:
                self._places[known[name]] = place
            else:
                raise ProfileError(f"#{place + 1}", "unknown_or_repeated_column")
        if "name" not in self._places or not {"national_id", "health_card"} & set(self._places):
            raise ProfileError("heading", "needs_name_and_national_id_or_health_card")
        self._count = len(names)

    def read(self, cells: Sequence[str], today: date) -> Profile:
        """Read one line.

        Raises:
            ProfileError: a cell is not as needed.
        """
        if len(cells) != self._count:
            raise ProfileError("line", "not_as_many_cells_as_the_heading")
        given = {column: cells[place].strip() for column, place in self._places.items()}
        targets = {
            quantity: text
            for quantity, place in self._targets.items()
            if (text := cells[place].strip())
        }
        return read_profile(given, targets, today)


def read_profile(given: Mapping[str, str], targets: Mapping[str, str], today: date) -> Profile:
    """Read a profile from text by the names of `COLUMNS`; what is empty is not known.

    Raises:
        ProfileError: something is not as needed, or nothing identifies the resident.
    """
    national_id = given.get("national_id")
    birth_date = _date(given.get("birth_date"), today)
    sex = _sex(given.get("sex", ""))
    number = None
    if national_id:
        try:
            number = read_identity_number(national_id, today)
        except NumberError as error:
            raise ProfileError("national_id", error.fault.value) from error
        if birth_date not in {None, number.birth_date}:
            raise ProfileError("birth_date", "differs_from_national_id")
        birth_date = number.birth_date
        sex = number.sex if sex is Sex.UNKNOWN else sex
    card = _card(given.get("health_card"))
    if number is None and card is None:
        raise ProfileError("national_id", "nothing_identifies_the_resident")
    return Profile(
        identity=Identity(
            name=_text("name", given.get("name"), NAME_CHARS_MAX, needed=True),
            national_id=None if number is None else number.text,
            health_card=card,
            birth_date=birth_date,
        ),
        sex=sex,
        height_cm=_height(given.get("height_cm")),
        clinic=_text("clinic", given.get("clinic"), CLINIC_CHARS_MAX),
        care_team=_text("care_team", given.get("care_team"), CLINIC_CHARS_MAX),
        targets={quantity: _target(quantity, text) for quantity, text in targets.items()},
    )


def checked_target(quantity: str, target: Target) -> Target:
    """Return a target that can be.

    Raises:
        ProfileError: the quantity is unknown, or the limits are not plausible or the wrong way round.
    """
    if quantity not in _BY_NAME:
        raise ProfileError("targets", "unknown_quantity")
    plausible = _BY_NAME[quantity].plausible
    limits = [limit for limit in (target.low, target.high) if limit is not None]
    if not limits or not all(plausible.low <= limit <= plausible.high for limit in limits):
        raise ProfileError("targets", "not_plausible")
    if limits != sorted(limits):
        raise ProfileError("targets", "low_above_high")
    return target


def targets_json(targets: Mapping[str, Target]) -> dict[str, dict[str, float]]:
    """Return targets as the database keeps them: only the limits that there are."""
    return {
        quantity: {
            side: limit
            for side, limit in (("low", target.low), ("high", target.high))
            if limit is not None
        }
        for quantity, target in targets.items()
    }


def _target_of(name: str) -> str | None:
    for prefix in TARGET_PREFIX:
        if name.startswith(prefix):
            quantity = name.removeprefix(prefix)
            if quantity not in _BY_NAME:
                raise ProfileError("targets", "unknown_quantity")
            return quantity
    return None


def _target(quantity: str, text: str) -> Target:
    low, dots, high = text.partition("..")
    if not dots:
        raise ProfileError("targets", "not_low..high")
    return checked_target(quantity, Target(low=_number(low), high=_number(high)))


def _number(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError as error:
        raise ProfileError("targets", "not_a_number") from error
    if not math.isfinite(number):
        raise ProfileError("targets", "not_a_number")
    return number


def _text(column: str, text: str | None, longest: int, *, needed: bool = False) -> str | None:
    if not text:
        if needed:
            raise ProfileError(column, "missing")
        return None
    if len(text) > longest:
        raise ProfileError(column, "too_long")
    if not text.isprintable():
        raise ProfileError(column, "control_characters")
    return text


def _card(text: str | None) -> str | None:
    if not text:
        return None
    try:
        return read_card_number(text)
    except NumberError as error:
        raise ProfileError("health_card", "not_6_to_32_digits_and_letters") from error


def _date(text: str | None, today: date) -> date | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ProfileError("birth_date", "not_YYYY-MM-DD") from error
    if not date(1850, 1, 1) <= day <= today:
        raise ProfileError("birth_date", "not_plausible")
    return day


def _sex(text: str) -> Sex:
    sex = SEXES.get(text.lower())
    if sex is None:
        raise ProfileError("sex", "unknown_word")
    return sex


def _height(text: str | None) -> float | None:
    if not text:
        return None
    try:
        height = float(text)
    except ValueError as error:
        raise ProfileError("height_cm", "not_a_number") from error
    low, high = HEIGHT_CM
    if not low <= height <= high:
        raise ProfileError("height_cm", "not_plausible")
    return height
