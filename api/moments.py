"""Times and dates in requests: RFC 3339 only. Pydantic by itself also takes numbers for them."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator

_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _instant(value: object) -> object:
    if not isinstance(value, str) or not _INSTANT.match(value):
        raise ValueError("not RFC 3339, such as 2026-05-01T08:00:00+08:00")
    return value


def _day(value: object) -> object:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise ValueError("not RFC 3339, such as 2026-05-01")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_instant)]
"""An instant with its offset."""
Day = Annotated[date, BeforeValidator(_day)]
"""A date."""
