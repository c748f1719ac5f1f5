"""What a search of Observations asks for. FHIR R4, search, and the Observation's search parameters.

A parameter that is not known is ignored or refused, as `Prefer: handling` says (lenient by default); a
modifier or a value that is wrong is always refused. Pages go on behind the last Observation that was
shown, by its id, so that a page neither skips nor repeats one, whatever arrives in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from api.cursor import BEFORE_ALL, BEHIND_ALL, Place, decode_place
from api.fhir.dates import Clause, clause_of, parse_date
from api.fhir.observations import ELEMENTS, SUMMARY
from api.fhir.outcomes import Issue, OutcomeError
from api.fhir.parts import PARTS_OF, Part
from api.fhir.tokens import (
    Token,
    alternatives,
    parse_tokens,
    part_has_any_code,
    part_has_category,
    part_has_code,
    part_has_component_code,
    unescaped,
)
from api.fhir.vocabulary import RESIDENT_ID
from api.measurement_rows import Order
from gateway.measurement import device_address

COUNT_DEFAULT, COUNT_MAX = 100, 1000
"""A page has at most so many Observations; a larger `_count` is taken as the largest."""
IDS_MAX = 200
"""`_id` names at most so many; more are refused."""
DATES_MAX = 8
"""So many conditions on times; more are refused."""
LAST_MAX = 100
"""`$lastn` gives at most so many of a code; a larger `max` is refused."""
CURSOR = "_cursor"
"""Ours, in the links of pages: the id of the last Observation before the page."""

_IGNORED = frozenset({"_format", "_pretty"})
"""Answers are JSON; what asks for another format is refused before."""
_PARTS_BY: Final[Mapping[str, Callable[[Part, Token], bool]]] = {
    "code": part_has_code,
    "component-code": part_has_component_code,
    "combo-code": part_has_any_code,
    "category": part_has_category,
}
_STATUSES = frozenset({"final", "preliminary", "entered-in-error"})
_TOTALS = frozenset({"none", "estimate", "accurate"})
_SUMMARIES = frozenset({"true", "false", "count", "data", "text"})
INCLUDES: Final = ("Observation:subject", "Observation:patient", "Observation:device")
REVINCLUDES: Final = ("Provenance:target",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationId:
    """An Observation's id taken apart: a row's place, and which part of it."""

    place: Place
    part: Part


@dataclass(slots=True, kw_only=True)
class Search:
    """One search. `used` are the parameters as given that took effect, for the links."""

    parts: tuple[Part, ...]
    resident: UUID | None = None
    ids: Sequence[ObservationId] | None = None
    clauses: Sequence[tuple[bool, Clause]] = ()
    """(of the time that it was stored, else of the effective time; its bounds)."""
    statuses: Sequence[str] | None = None
    devices: Sequence[str] | None = None
    """Addresses."""
    order: Order = Order.DESC
    count: int = COUNT_DEFAULT
    after: ObservationId | None = None
    total: bool = False
    count_only: bool = False
    elements: frozenset[str] | None = None
    includes: frozenset[str] = frozenset()
    provenance: bool = False
    last: int = 1
    used: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def by_sign(self) -> dict[int, tuple[Part, ...]]:
        """The wanted parts by the sign's code, in the sign's own order."""
        wanted = set(map(id, self.parts))
        chosen = {
            code: tuple(part for part in parts if id(part) in wanted)
            for code, parts in PARTS_OF.items()
        }
        return {code: parts for code, parts in chosen.items() if parts}

    def bounds(self) -> tuple[datetime, datetime]:
        """Return bounds on the rows' own time that no wanted row lies outside of, for the index."""
        low, high = BEFORE_ALL.measured_at, BEHIND_ALL.measured_at
        slack = max(
            (
                timedelta(seconds=part.sign.period.plausible.high)
                for part in self.parts
                if part.sign.period is not None
            ),
            default=timedelta(),
        )
        for of_stored, clause in self.clauses:
            if of_stored:
                continue
            starts = [bound for bound in (clause.starts_from, clause.ends_from) if bound]
            ends = [bound for bound in (clause.starts_before, clause.ends_before) if bound]
            if clause.either and starts and ends:
                continue
            if starts:
                low = max(low, (min if clause.either else max)(starts))
            if ends:
                high = min(high, (max if clause.either else min)(ends))
        return _moved(low, -slack), _moved(high, slack)


def parse_search(
    pairs: Sequence[tuple[str, str]],
    *,
    allowed: Sequence[Part],
    now: datetime,
    strict: bool,
    last_n: bool = False,
) -> Search:
    """Return what (name, value) pairs ask for, within the parts that the reader may see.

    Raises:
        OutcomeError: a parameter is wrong, or unknown and `strict`.
    """
    search = Search(parts=tuple(allowed))
    clauses: list[tuple[bool, Clause]] = []
    for name, value in pairs:
        bare, _, modifier = name.partition(":")
        if not value and bare not in _IGNORED:
            continue
        if bare in _IGNORED:
            continue
        if modifier and not (
            bare in {"_include", "_revinclude"} or (bare, modifier) == ("subject", "Patient")
        ):
            raise OutcomeError(
                Issue.NOT_SUPPORTED,
                "不支持此修饰符 / the modifier is not supported",
                parameter=bare,
            )
        if not _take(search, clauses, bare, value, now, last_n=last_n):
            search.ignored.append(bare)
            continue
        search.used.append((name, value))
    if search.ignored and strict:
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            f"未知或不支持的参数 / unknown or unsupported: {', '.join(_shown(search.ignored))}",
        )
    if len(clauses) > DATES_MAX:
        raise OutcomeError(Issue.TOO_COSTLY, f"时间条件过多 / at most {DATES_MAX} dates")
    search.clauses = clauses
    return search


def parse_observation_id(text: str) -> ObservationId:
    """Return what an Observation's id stands for.

    Raises:
        ValueError: no Observation has it.
    """
    token, _, suffix = text.rpartition("-")
    place = decode_place(token)
    for part in PARTS_OF.get(place.sign, ()):
        if part.suffix == suffix:
            return ObservationId(place=place, part=part)
    raise ValueError("no such id was given out")


def reference_id(text: str, kind: str) -> str:
    """Return the id of a reference parameter: `ID`, `Kind/ID`, or an absolute URL that ends so."""
    return text.rsplit(f"{kind}/", maxsplit=1)[-1]


def device_of(text: str) -> str | None:
    """Return the address of a device by its FHIR id; None: no device has such an id."""
    try:
        address = device_address(int(text, 16))
    except (ValueError, OverflowError):
        return None
    return address if address.replace(":", "") == text else None


def _take(  # noqa: C901, PLR0912, PLR0915 - one case a parameter
    search: Search,
    clauses: list[tuple[bool, Clause]],
    name: str,
    value: str,
    now: datetime,
    *,
    last_n: bool,
) -> bool:
    """Let one parameter take effect; tells whether it is known."""
    match name:
        case "patient" | "subject":
            _take_patient(search, name, reference_id(value, "Patient"))
        case "patient.identifier" | "subject.identifier":
            (token, *others) = parse_tokens(value)
            if others or token.system not in {None, RESIDENT_ID} or token.code is None:
                _take_patient(search, name, "")
            else:
                _take_patient(search, name, token.code)
        case "code" | "component-code" | "combo-code" | "category":
            test, tokens = _PARTS_BY[name], parse_tokens(value)
            search.parts = tuple(
                part for part in search.parts if any(test(part, token) for token in tokens)
            )
        case "date" | "_lastUpdated":
            if len(alternatives(value)) > 1:
                raise OutcomeError(
                    Issue.NOT_SUPPORTED, "每个参数一个日期 / one date a parameter", parameter=name
                )
            try:
                clauses.append((name == "_lastUpdated", clause_of(parse_date(value, now))))
            except ValueError as error:
                raise OutcomeError(Issue.INVALID, f"日期有误 / {error}", parameter=name) from error
        case "status":
            wanted = {token.code or "" for token in parse_tokens(value)}
            before = _STATUSES if search.statuses is None else set(search.statuses)
            search.statuses = sorted(wanted & before)
        case "device":
            texts = [reference_id(unescaped(text), "Device") for text in alternatives(value)]
            found = {address for address in map(device_of, texts) if address is not None}
            search.devices = sorted(
                found if search.devices is None else found & set(search.devices)
            )
        case "_id":
            _take_ids(search, [unescaped(text) for text in alternatives(value)])
        case "_count":
            search.count = min(_whole(name, value, least=0), COUNT_MAX)
            search.count_only = search.count_only or search.count == 0
        case "_sort":
            if value not in {"date", "-date"}:
                return False
            search.order = Order.DESC if value.startswith("-") else Order.ASC
        case "_summary":
            if value not in _SUMMARIES:
                raise OutcomeError(
                    Issue.INVALID, "应为 / true, text, data, count or false", parameter=name
                )
            search.count_only = search.count_only or value == "count"
            if value == "true":
                search.elements = SUMMARY
            elif value == "text":
                search.elements = frozenset()
        case "_elements":
            search.elements = _elements(value)
        case "_total":
            if value not in _TOTALS:
                raise OutcomeError(
                    Issue.INVALID, "应为 / none, estimate or accurate", parameter=name
                )
            search.total = value != "none"
        case "_include":
            if value not in INCLUDES:
                return False
            search.includes |= {value.partition(":")[2]}
        case "_revinclude":
            if value not in REVINCLUDES:
                return False
            search.provenance = True
        case "max" if last_n:
            search.last = _whole(name, value, least=1)
            if search.last > LAST_MAX:
                raise OutcomeError(Issue.TOO_COSTLY, f"最多 / at most {LAST_MAX}", parameter=name)
        case _ if name == CURSOR and not last_n:
            try:
                search.after = parse_observation_id(value)
            except ValueError as error:
                raise OutcomeError(
                    Issue.INVALID, "不是有效的位置 / no such page was given out", parameter=name
                ) from error
        case _:
            return False
    return True


def _take_patient(search: Search, name: str, text: str) -> None:
    if "," in text:
        raise OutcomeError(
            Issue.TOO_COSTLY, "每次查询一位居民 / one patient a search", parameter=name
        )
    try:
        resident = UUID(text)
    except ValueError:
        resident = UUID(int=0)  # nobody's: finds nothing
    if search.resident not in {None, resident}:
        raise OutcomeError(
            Issue.TOO_COSTLY, "每次查询一位居民 / one patient a search", parameter=name
        )
    search.resident = resident


def _take_ids(search: Search, texts: Sequence[str]) -> None:
    if len(texts) > IDS_MAX:
        raise OutcomeError(Issue.TOO_COSTLY, f"最多 / at most {IDS_MAX}", parameter="_id")
    ids = []
    for text in texts:
        try:
            ids.append(parse_observation_id(text))
        except ValueError:
            continue  # nobody's: finds nothing
    search.ids = [one for one in dict.fromkeys(ids) if search.ids is None or one in search.ids]


def _elements(value: str) -> frozenset[str]:
    named = frozenset(alternatives(value))
    choices = {
        "effectiveDateTime": "effective",
        "effectivePeriod": "effective",
        "effective[x]": "effective",
        "valueQuantity": "value",
        "value[x]": "value",
    }
    return frozenset(choices.get(name, name) for name in named) & frozenset(ELEMENTS)


def _whole(name: str, value: str, least: int) -> int:
    if not value.isdecimal() or len(value) > 6 or int(value) < least:  # noqa: PLR2004
        raise OutcomeError(
            Issue.INVALID,
            f"应为不小于 {least} 的整数 / a whole number from {least}",
            parameter=name,
        )
    return int(value)


def _shown(names: Sequence[str]) -> list[str]:
    # A name is the asker's text: only what looks like a parameter's name is told again.
    return sorted({name for name in names if name.replace("_", "").replace("-", "").isalnum()})[:10]


def _moved(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return moment.astimezone(UTC)
