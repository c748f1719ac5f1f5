"""What searches and tokens say: dates, tokens, scopes, Observation ids, identifiers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access import Principal, Role
from api.fhir.access import parts_for, require_scope
from api.fhir.dates import Prefix, clause_of, holds, parse_date
from api.fhir.outcomes import OutcomeError
from api.fhir.parts import PARTS, PARTS_OF
from api.fhir.scopes import parse_scopes, parts_allowed
from api.fhir.search import Search, parse_observation_id, parse_search
from api.fhir.tokens import Token, parse_token, parse_tokens
from api.fhir.vocabulary import LOINC
from api.measurement_rows import Order
from gateway.gatt.times import TimeType
from gateway.measurement import TimeQuality
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_NAME, SIGNS
from tests.observations import a_row, made_of, resources_of

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PRESSURE = BY_NAME["blood_pressure"]


def search(*pairs: tuple[str, str], strict: bool = False) -> Search:
    return parse_search(pairs, allowed=PARTS, now=NOW, strict=strict)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2026", "2025-12-31T16:00:00Z", "2026-12-31T16:00:00Z"),
        ("2026-12", "2026-11-30T16:00:00Z", "2026-12-31T16:00:00Z"),
        ("2026-02", "2026-01-31T16:00:00Z", "2026-02-28T16:00:00Z"),
        ("2026-11-20", "2026-11-19T16:00:00Z", "2026-11-20T16:00:00Z"),
        ("2026-11-20T04:05Z", "2026-11-20T04:05:00Z", "2026-11-20T04:06:00Z"),
        ("2026-11-20T12:05:09+08:00", "2026-11-20T04:05:09Z", "2026-11-20T04:05:10Z"),
        ("2026-11-20T04:05:09.5Z", "2026-11-20T04:05:09.5Z", "2026-11-20T04:05:09.6Z"),
        ("2026-11-20T12:05:09", "2026-11-20T04:05:09Z", "2026-11-20T04:05:10Z"),
    ],
)
def test_a_partial_date_is_a_range(text: str, low: str, high: str) -> None:
    parsed = parse_date(text, NOW)
    assert (parsed.low, parsed.high) == (
        datetime.fromisoformat(low),
        datetime.fromisoformat(high),
    )


@pytest.mark.parametrize(
    "text",
    ["", "x", "26", "2026-13", "2026-02-30", "2026-1-1", "zz2026", "2026-11-20T4:00", "0000", "eq"],
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"date|prefix"):
        parse_date(text, NOW)


moments = st.integers(0, 5 * 86_400).map(
    lambda seconds: datetime(2026, 11, 18, tzinfo=UTC) + timedelta(seconds=seconds)
)


@given(start=moments, length=st.integers(0, 200_000), day=st.sampled_from(["19", "20", "21"]))
def test_prefixes_are_what_fhir_says_of_each_other(start: datetime, length: int, day: str) -> None:
    """FHIR R4, search, 3.1.1.4.7, table of prefixes."""
    ends = start + timedelta(seconds=length)
    is_so = {
        prefix: holds(clause_of(parse_date(f"{prefix.value}2026-11-{day}", NOW)), start, ends)
        for prefix in Prefix
    }
    asked = parse_date(f"2026-11-{day}", NOW)
    assert is_so[Prefix.NE] is not is_so[Prefix.EQ]
    assert is_so[Prefix.GE] == (is_so[Prefix.GT] or is_so[Prefix.EQ])
    assert is_so[Prefix.LE] == (is_so[Prefix.LT] or is_so[Prefix.EQ])
    assert not is_so[Prefix.SA] or is_so[Prefix.GT]
    assert not is_so[Prefix.EB] or is_so[Prefix.LT]
    assert is_so[Prefix.EQ] == (asked.low <= start and ends < asked.high)
    assert not is_so[Prefix.EQ] or is_so[Prefix.AP]


@given(start=moments, length=st.integers(0, 86_400), prefix=st.sampled_from(Prefix))
def test_no_row_that_matches_lies_outside_the_bounds_for_the_index(
    start: datetime, length: int, prefix: Prefix
) -> None:
    asked = search(("date", f"{prefix.value}2026-11-20"))
    ((_of_stored, clause),) = asked.clauses
    low, high = asked.bounds()
    ends = start + timedelta(seconds=length)
    if holds(clause, start, ends):
        assert low <= start < high  # placed by the device's time
        assert low <= ends < high  # placed by the reception, at its end


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("8867-4", Token(system=None, code="8867-4")),
        ("http://loinc.org|8867-4", Token(system="http://loinc.org", code="8867-4")),
        ("|8867-4", Token(system="", code="8867-4")),
        ("http://loinc.org|", Token(system="http://loinc.org", code=None)),
        (r"a\|b", Token(system=None, code="a|b")),
        (r"a\,b", Token(system=None, code="a,b")),
    ],
)
def test_a_token_has_a_system_or_none_or_any(text: str, token: Token) -> None:
    assert parse_token(text) == token
    assert len(parse_tokens(f"{text},x")) == 2


def test_scopes_narrow_what_is_seen() -> None:
    vital = parts_allowed(parse_scopes(["system/Observation.rs?category=vital-signs"]), "s")
    assert {part.sign.name for part in vital} >= {"blood_pressure", "body_weight"}
    assert all(part.sign is not BY_NAME["activity"] for part in vital)
    pulse = parts_allowed(parse_scopes(["system/Observation.rs?code=http://loinc.org|8867-4"]), "r")
    assert {part.codes[0].code for part in pulse} == {"8867-4"}
    assert parts_allowed(parse_scopes(["system/*.rs"]), "s") == PARTS
    assert parts_allowed(parse_scopes(["patient/Observation.read"]), "s") == PARTS
    for nothing in (
        "system/Observation.cud",
        "system/Patient.rs",
        "system/Observation.rs?status=final",
        "system/Observation.",
        "openid",
    ):
        assert parts_allowed(parse_scopes([nothing]), "s") == (), nothing


def principal(role: Role, *scopes: str, resident: UUID | None = None) -> Principal:
    return Principal(user=UUID(int=1), role=role, scopes=frozenset(scopes), resident=resident)


def test_a_scope_is_good_only_for_whom_it_names() -> None:
    own = UUID(int=7)
    for good in (
        principal(Role.SERVICE),
        principal(Role.CLINICIAN, "openid"),
        principal(Role.SERVICE, "system/Observation.rs"),
        principal(Role.CLINICIAN, "user/Observation.rs"),
        principal(Role.RESIDENT, "patient/Observation.rs", resident=own),
    ):
        assert parts_for(good, "s") == PARTS
    for bad in (
        principal(Role.SERVICE, "patient/Observation.rs"),
        principal(Role.CLINICIAN, "system/Observation.rs"),
        principal(Role.CLINICIAN, "patient/Observation.rs"),
        principal(Role.CLINICIAN, "user/Observation.s"),
    ):
        with pytest.raises(OutcomeError):
            parts_for(bad, "r")
    with pytest.raises(OutcomeError):
        require_scope(principal(Role.SERVICE, "system/Observation.rs"), "Patient", "r")


def test_codes_select_parts_and_several_must_all_hold() -> None:
    assert {p.suffix for p in search(("code", "85354-9")).parts} == {"p"}
    both = search(("code", "http://loinc.org|"), ("code", "urn:iso:std:iso:11073:10101|149546"))
    assert [p.title.en for p in both.parts] == ["Pulse rate"]
    assert search(("code", "8867-4"), ("code", "85354-9")).parts == ()


def test_sorting_by_what_is_not_indexed_is_not_supported() -> None:
    assert search(("_sort", "date")).order is Order.ASC
    assert search(("_sort", "code")).ignored == ["_sort"]
    with pytest.raises(OutcomeError):
        search(("_sort", "code"), strict=True)


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.name)
def test_an_id_leads_back_to_its_part(sign: VitalSign) -> None:
    for made in made_of(a_row(sign)):
        back = parse_observation_id(made.id)
        assert (back.place, back.part) == (made.place, made.part)
    for wrong in ("", "x", made.id[:-1] + "z", made.id.upper(), "0" * 44):
        with pytest.raises(ValueError, match="no such"):
            parse_observation_id(wrong)


@pytest.mark.parametrize(
    ("time_type", "resolution", "of_device", "stamp"),
    [
        # 2026-11-20T04:00:00 is 1795147200 s since 1970, 848462400 s since 2000.
        (TimeType.LOCAL, 0, False, "848462400"),
        (TimeType.UTC, 3, False, "848462400.000"),
        (TimeType.UTC, 1, True, "848462400.0+32"),
        (TimeType.TICKS, 3, False, "1795147200.000"),
    ],
)
def test_the_identifier_follows_the_guides_recipe(
    time_type: TimeType, resolution: int, *, of_device: bool, stamp: str
) -> None:
    """PHD guide, "Generating the PHD Reported Timestamp": device, patient, type, time."""
    row = a_row(PRESSURE, time_type=time_type, resolution=resolution, of_device=of_device)
    panel = resources_of(row)[0]
    (identifier,) = panel["identifier"]
    patient = panel["subject"]["reference"].removeprefix("Patient/")
    assert identifier["value"] == f"C026DA010203-{patient}-150020-{stamp}"


def test_a_duration_is_part_of_the_identifier() -> None:
    row = a_row(BY_NAME["activity"], time_type=TimeType.UTC, resolution=3, of_device=True)
    (identifier,) = resources_of(row)[0]["identifier"]
    assert identifier["value"].endswith("-848462400.000+32..900.000")


def test_without_a_device_time_there_is_no_identifier() -> None:
    row = a_row(PRESSURE, time_type=0, time_quality=TimeQuality.RECEPTION)
    assert "identifier" not in resources_of(row)[0]


def test_a_period_ends_with_the_reception_where_the_device_has_no_clock() -> None:
    activity = BY_NAME["activity"]
    placed = resources_of(a_row(activity))[0]["effectivePeriod"]
    assert (placed["start"][11:16], placed["end"][11:16]) == ("12:00", "12:15")
    received = a_row(activity, time_type=0, time_quality=TimeQuality.RECEPTION)
    period = resources_of(received)[0]["effectivePeriod"]
    assert (period["start"][11:16], period["end"][11:16]) == ("11:45", "12:00")


def test_status_bits_are_an_observation_derived_from_the_panel() -> None:
    panel, _pulse, bits = resources_of(a_row(PRESSURE, status=0b100011))
    assert [c["code"]["coding"][0]["code"] for c in bits["component"]] == [
        "8410608.0", "8410608.1", "8410608.5",
    ]  # fmt: skip
    assert bits["derivedFrom"] == [{"reference": f"Observation/{panel['id']}"}]
    assert panel["interpretation"][0]["coding"][0]["code"] == "questionable"


def test_saturation_and_pulse_of_an_oximeter_are_two_observations() -> None:
    """FHIR R4 vital signs: oxygensat wants 2708-6, with 59408-5 beside it; heartrate 8867-4."""
    saturation, pulse, _amplitude = resources_of(a_row(BY_NAME["pulse_oximetry"]))
    assert saturation["id"] != pulse["id"]
    assert "component" not in saturation
    assert loinc_of(saturation) == ["2708-6", "59408-5"]
    assert loinc_of(pulse) == ["8867-4"]
    profiles = [made["meta"]["profile"][0].rpartition("/")[2] for made in (saturation, pulse)]
    assert profiles == ["oxygensat", "heartrate"]
    assert saturation["effectiveDateTime"] == pulse["effectiveDateTime"]


def test_glucose_is_of_the_laboratory_and_claims_no_vital_signs_profile() -> None:
    (glucose,) = resources_of(a_row(BY_NAME["blood_glucose"], unit_set=1, status=1 << 12))
    assert glucose["category"][0]["coding"][0]["code"] == "laboratory"
    assert loinc_of(glucose) == ["15074-8"]
    assert "profile" not in glucose["meta"]
    assert glucose["valueQuantity"]["code"] == "mmol/L"


def loinc_of(resource: dict[str, Any]) -> list[str]:
    return [c["code"] for c in resource["code"]["coding"] if c["system"] == LOINC]


def test_a_body_site_is_told_by_snomed() -> None:
    (resource,) = resources_of(a_row(BY_NAME["body_temperature"], status=9))
    assert resource["bodySite"]["coding"][0]["code"] == "42859004"


def test_no_code_of_ours_names_two_quantities_of_one_sign() -> None:
    for parts in PARTS_OF.values():
        codes = [code for part in parts for code in part.codes]
        assert len(codes) == len(set(codes))
