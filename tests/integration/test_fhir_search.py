"""Searches, reads and operations of FHIR over the real database, stored by the real ingest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from api.fhir.search import IDS_MAX
from gateway.measurement import Measurement
from gateway.quantity import Absent
from gateway.vitals import BY_NAME
from tests.archives import api_over, public_id, store
from tests.worlds import (
    NOON,
    OTHER_RESIDENT,
    a_pressure,
    a_reading,
    a_weight,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration

LOINC = "http://loinc.org"
CUFF_TOO_LOOSE = 1 << 1
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with api_over(database) as client:
        yield client


def a_walk(steps: int = 900, *, minutes_ago: int = 0, period_s: int = 900) -> Measurement:
    at = NOON - timedelta(minutes=minutes_ago)
    reading = a_reading(
        Decimal(steps), Decimal(640), Decimal("31.5"), Decimal(9), Decimal(period_s), at=at
    )
    return replace(a_pressure(at=at), sign=BY_NAME["activity"].code, reading=reading)


async def found(api: httpx.AsyncClient, database: str, **parameters: str) -> list[dict[str, Any]]:
    bundle = await searched(api, patient=str(public_id(database)), **parameters)
    return [
        entry["resource"] for entry in bundle.get("entry", []) if entry["search"]["mode"] == "match"
    ]


async def searched(api: httpx.AsyncClient, **parameters: str) -> dict[str, Any]:
    response = await api.get("/fhir/Observation", params=parameters)
    assert response.status_code == 200, response.text
    bundle: dict[str, Any] = response.json()
    return bundle


def next_of(bundle: dict[str, Any]) -> str | None:
    return next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)


def codes(resources: list[dict[str, Any]]) -> list[str]:
    return [resource["code"]["coding"][0]["code"] for resource in resources]


async def test_a_panel_is_one_observation_and_its_pulse_another(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure())
    panel, pulse = sorted(await found(api, database), key=lambda r: r["id"], reverse=True)
    assert codes([panel, pulse]) == ["85354-9", "8867-4"]
    assert [c["valueQuantity"]["value"] for c in panel["component"] if "valueQuantity" in c] == [
        128,
        82,
    ]
    assert panel["component"][2]["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert panel["effectiveDateTime"] == "2026-11-20T12:00:00.000+08:00"
    assert panel["extension"][0]["valueReference"]["reference"] == "Device/hub-00000000000000a1"
    assert pulse["valueQuantity"]["value"] == 71


async def test_digits_are_kept_and_another_unit_is_told(
    database: str, api: httpx.AsyncClient
) -> None:
    kpa = replace(
        a_pressure().reading,
        values=tuple(map(Decimal, ("16.0", "10.7", "12.40", "71"))),
        unit_set=1,
    )
    await store(database, a_weight("70.050"), replace(a_pressure(), reading=kpa))
    text = (await api.get("/fhir/Observation", params={"patient": str(public_id(database))})).text
    assert '"value":70.050,' in text
    assert '"valueQuantity":{"value":16.0,"unit":"kPa"' in text
    assert '"value":120.0,"unit":"mm[Hg]"' in text


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"code": "8867-4"}, 1),
        ({"code": f"{LOINC}|8867-4"}, 1),
        ({"code": f"{LOINC}|8867-4,{LOINC}|29463-7"}, 2),
        ({"code": "urn:iso:std:iso:11073:10101|150020"}, 1),
        ({"code": "|8867-4"}, 0),
        ({"code": f"{LOINC}|"}, 3),
        ({"component-code": "8480-6"}, 1),
        ({"code": "8480-6"}, 0),
        ({"combo-code": "8480-6,8867-4"}, 2),
        ({"category": "vital-signs"}, 3),
        ({"category": "phd"}, 5),
        ({"category": "activity"}, 1),
        ({"status": "final"}, 5),
        ({"status": "preliminary"}, 0),
        ({"device": "Device/C026DA040506"}, 1),
        ({"device": "C026DA0F0F0F"}, 0),
        ({"device": "nonsense"}, 0),
        ({"_lastUpdated": "ge2026-01-01"}, 5),
        ({"_lastUpdated": "lt2026-01-01"}, 0),
        ({"_count": "2"}, 2),
    ],
)
async def test_parameters_select(
    database: str, api: httpx.AsyncClient, parameters: dict[str, str], expected: int
) -> None:
    await store(database, a_pressure(status=CUFF_TOO_LOOSE), a_weight(), a_walk())
    assert len(await found(api, database, **parameters)) == expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2026-11-20", True),
        ("eq2026-11", True),
        ("2026-11-20T12:00:00+08:00", True),
        ("2026-11-20T04:00Z", True),
        ("2026-11-20T11:59", False),
        ("ne2026-11-20", False),
        ("ne2026-11-19", True),
        ("gt2026-11-20", False),
        ("gt2026-11-20T03:59:59Z", True),
        ("lt2026-11-20", False),
        ("lt2026-11-21", True),
        ("ge2026-11-20", True),
        ("ge2026-11-20T04:00:00Z", True),
        ("le2026-11-20T04:00:00Z", True),
        ("le2026-11-19", False),
        ("sa2026-11-19", True),
        ("sa2026-11-20", False),
        ("eb2026-11-21", True),
        ("eb2026-11-20", False),
        ("ap2026-11-20", True),
    ],
)
async def test_dates_compare_with_what_was_measured(
    database: str, api: httpx.AsyncClient, date: str, *, expected: bool
) -> None:
    await store(database, a_weight())
    assert bool(await found(api, database, date=date)) == expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2026-11-20T12:00:00+08:00", False),  # not wholly within that second
        ("2026-11-20", True),
        ("gt2026-11-20T04:10:00Z", True),  # ends later
        ("sa2026-11-20T04:00:00Z", False),  # began within it
        ("lt2026-11-20T04:10:00Z", True),
        ("eb2026-11-20T04:10:00Z", False),
        ("eb2026-11-20T04:20:00Z", True),
        ("ge2026-11-20T04:20:00Z", False),
        ("ap2026-11-20T04:10:00Z", True),
    ],
)
async def test_dates_compare_with_the_whole_period(
    database: str, api: httpx.AsyncClient, date: str, *, expected: bool
) -> None:
    await store(database, a_walk(period_s=900))
    (resource,) = await found(api, database)
    assert resource["effectivePeriod"]["end"] == "2026-11-20T12:15:00.000+08:00"
    assert bool(await found(api, database, date=date)) == expected


async def test_pages_go_on_where_they_were_while_readings_arrive(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, *(a_pressure(at=NOON - timedelta(hours=h)) for h in range(5)))
    for sort in ("-date", "date"):
        whole = [r["id"] for r in await found(api, database, _sort=sort)]
        assert len(whole) == 10
        for count in (1, 2, 3, 7):
            bundle = await searched(
                api, patient=str(public_id(database)), _sort=sort, _count=str(count)
            )
            seen = [entry["resource"]["id"] for entry in bundle["entry"]]
            while url := next_of(bundle):
                bundle = (await api.get(url)).json()
                seen += [entry["resource"]["id"] for entry in bundle["entry"]]
            assert seen == whole, (sort, count)


async def test_a_later_page_has_what_was_there_and_nothing_twice(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, *(a_pressure(at=NOON - timedelta(hours=h)) for h in (2, 4)))
    whole = [r["id"] for r in await found(api, database)]
    bundle = await searched(api, patient=str(public_id(database)), _count="3")
    await store(database, a_pressure(at=NOON), a_pressure(at=NOON - timedelta(hours=3)), sequence=2)
    (url,) = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
    seen = [entry["resource"]["id"] for entry in bundle["entry"]]
    seen += [entry["resource"]["id"] for entry in (await api.get(url)).json()["entry"]]
    assert [one for one in seen if one in whole] == whole
    assert len(set(seen)) == len(seen)


async def test_totals_counts_and_subsets(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure(), a_weight())
    patient = str(public_id(database))
    assert "total" not in await searched(api, patient=patient)
    assert (await searched(api, patient=patient, _total="accurate", _count="1"))["total"] == 3
    counted = await searched(api, patient=patient, _summary="count")
    assert counted["total"] == 3
    assert "entry" not in counted
    (weight,) = await found(api, database, code="29463-7", _elements="value,effective")
    assert set(weight) == {
        "resourceType", "id", "meta", "status", "code", "effectiveDateTime",
        "_effectiveDateTime", "valueQuantity",
    }  # fmt: skip
    assert weight["meta"]["tag"][0]["code"] == "SUBSETTED"
    (summary,) = await found(api, database, code="29463-7", _summary="true")
    assert "device" not in summary
    assert "valueQuantity" in summary


async def test_what_is_referred_to_can_come_along(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_weight())
    bundle = await api.get(
        "/fhir/Observation",
        params=[
            ("patient", str(public_id(database))),
            ("_include", "Observation:subject"),
            ("_include", "Observation:device"),
            ("_revinclude", "Provenance:target"),
        ],
    )
    entries = bundle.json()["entry"]
    assert [(e["search"]["mode"], e["resource"]["resourceType"]) for e in entries] == [
        ("match", "Observation"),
        ("include", "Patient"),
        ("include", "Device"),
        ("include", "Provenance"),
    ]
    by_kind = {e["resource"]["resourceType"]: e["resource"] for e in entries}
    observation = by_kind["Observation"]
    assert observation["subject"]["reference"] == f"Patient/{by_kind['Patient']['id']}"
    assert observation["device"]["reference"] == f"Device/{by_kind['Device']['id']}"
    target = by_kind["Provenance"]["target"][0]["reference"]
    assert target == f"Observation/{observation['id']}"
    for entry in entries:
        assert (await api.get(urlsplit(entry["fullUrl"]).path)).json()["id"] == entry["resource"][
            "id"
        ]


async def test_a_search_may_come_as_a_form(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_weight(), a_pressure())
    response = await api.post(
        "/fhir/Observation/_search",
        content=f"patient={public_id(database)}&code=29463-7",
        headers=FORM,
    )
    assert [e["resource"]["code"]["coding"][0]["code"] for e in response.json()["entry"]] == [
        "29463-7"
    ]


async def test_a_patient_may_be_named_by_an_identifier(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_weight())
    patient = (await api.get(f"/fhir/Patient/{public_id(database)}")).json()
    (identifier,) = patient["identifier"]
    name = f"{identifier['system']}|{identifier['value']}"
    bundle = await searched(api, **{"patient.identifier": name})
    assert len(bundle["entry"]) == 1
    link = dict(parse_qsl(urlsplit(bundle["link"][0]["url"]).query))
    assert link == {"patient": patient["id"]}
    found_patients = (await api.get("/fhir/Patient", params={"identifier": name})).json()
    assert [e["resource"]["id"] for e in found_patients["entry"]] == [patient["id"]]


async def test_unknown_parameters_are_ignored_or_refused_as_asked(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_weight())
    parameters = {"patient": str(public_id(database)), "colour": "red"}
    lenient = (await api.get("/fhir/Observation", params=parameters)).json()
    assert [e["search"]["mode"] for e in lenient["entry"]] == ["match", "outcome"]
    assert "colour" not in lenient["link"][0]["url"]
    strict = await api.get(
        "/fhir/Observation", params=parameters, headers={"Prefer": "handling=strict"}
    )
    assert strict.status_code == 400
    assert strict.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/fhir/Observation", 400),
        ("/fhir/Observation?patient=x&date=nonsense", 400),
        ("/fhir/Observation?patient=x&date=xx2026", 400),
        ("/fhir/Observation?patient=x&code:in=y", 400),
        ("/fhir/Observation?patient=x&_count=-1", 400),
        ("/fhir/Observation?patient=x&_cursor=zz", 400),
        ("/fhir/Observation?patient=x&_format=xml", 406),
        ("/fhir/Observation/nothing", 404),
        ("/fhir/Patient/nothing", 404),
        ("/fhir/Device/nothing", 404),
        ("/fhir/Nothing", 404),
        ("/fhir/AuditEvent", 400),
    ],
)
async def test_every_error_is_an_outcome(api: httpx.AsyncClient, path: str, status: int) -> None:
    response = await api.get(path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/fhir+json"
    assert response.json()["resourceType"] == "OperationOutcome"


async def test_without_a_token_there_is_an_outcome_and_what_says_how_to_ask(
    api: httpx.AsyncClient,
) -> None:
    api.headers.pop("Authorization")
    refused = await api.get("/fhir/Observation?patient=x")
    assert refused.status_code == 401
    assert refused.json()["issue"][0]["code"] == "login"
    assert (await api.get("/fhir/metadata")).json()["resourceType"] == "CapabilityStatement"
    smart = (await api.get("/fhir/.well-known/smart-configuration")).json()
    assert "permission-v2" in smart["capabilities"]


async def test_the_latest_of_each_code_goes_by_the_time_of_measurement(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure(Decimal(131)), a_weight("71.000"), sequence=1)
    late = [a_pressure(Decimal(117), at=NOON - timedelta(days=d)) for d in (9, 1, 5)]
    await store(database, *late, sequence=2)
    patient = str(public_id(database))
    response = await api.get("/fhir/Observation/$lastn", params={"patient": patient})
    last = [entry["resource"] for entry in response.json()["entry"]]
    assert codes(last) == ["85354-9", "8867-4", "29463-7"]
    assert last[0]["component"][0]["valueQuantity"]["value"] == 131
    response = await api.get(
        "/fhir/Observation/$lastn", params={"patient": patient, "max": "3", "code": "85354-9"}
    )
    times = [e["resource"]["effectiveDateTime"][:10] for e in response.json()["entry"]]
    assert times == ["2026-11-20", "2026-11-19", "2026-11-15"]
    assert (await api.get("/fhir/Observation/$lastn")).status_code == 400
    too_many = {"patient": patient, "max": "101"}
    assert (await api.get("/fhir/Observation/$lastn", params=too_many)).status_code == 400


async def test_statistics_leave_artefacts_out(database: str, api: httpx.AsyncClient) -> None:
    values = [(118, 0), (122, 0), (171, CUFF_TOO_LOOSE), (129, 0)]
    await store(
        database,
        *(
            a_pressure(Decimal(v), at=NOON - timedelta(hours=h), status=s)
            for h, (v, s) in enumerate(values)
        ),
    )
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "subject", "valueUri": f"Patient/{public_id(database)}"},
            {"name": "code", "valueString": "8480-6"},
            {"name": "start", "valueString": "2026-11-01"},
        ],
    }
    response = await api.post("/fhir/Observation/$stats", json=parameters)
    assert response.status_code == 200, response.text
    systolic = response.json()["parameter"][0]["resource"]
    told = {
        c["code"]["coding"][0]["code"]: c["valueQuantity"]["value"] for c in systolic["component"]
    }
    assert told == {
        "average": 123.0, "minimum": 118.0, "maximum": 129.0, "count": 3, "std-dev": 5.56776,
    }  # fmt: skip
    assert systolic["note"][0]["text"].endswith("artefacts left out: 1")


async def test_provenance_and_devices_come_page_by_page_as_well(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, *(a_weight(at=NOON - timedelta(hours=h)) for h in range(3)))
    ids = {one["id"] for one in await found(api, database)}
    url: str | None = f"/fhir/Provenance?target={','.join(ids)}&_count=2"
    sizes = []
    targets = set()
    while url is not None:
        bundle = (await api.get(url)).json()
        sizes.append(len(bundle["entry"]))
        targets |= {e["resource"]["target"][0]["reference"] for e in bundle["entry"]}
        url = next_of(bundle)
    assert max(sizes) == 2
    assert targets == {f"Observation/{name}" for name in ids}
    patient = str(public_id(database))
    for count, status in (("1", 200), ("0", 400), ("x", 400)):
        asked = {"patient": patient, "_count": count}
        assert (await api.get("/fhir/Device", params=asked)).status_code == status


async def test_an_operation_takes_no_other_resource_for_its_parameters(
    database: str, api: httpx.AsyncClient
) -> None:
    subject = [{"name": "subject", "valueUri": f"Patient/{public_id(database)}"}]
    for document in (
        {"resourceType": "Bundle", "parameter": subject},
        {"parameter": subject},
        {"resourceType": "Parameters", "parameter": [{"name": 5, "valueString": "8480-6"}]},
        {"resourceType": "Parameters", "parameter": [{"name": "code", "valueString": 8480}]},
    ):
        response = await api.post("/fhir/Observation/$stats", json=document)
        assert response.status_code == 400, response.text


async def test_everything_of_a_patient_comes_page_by_page(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, *(a_pressure(at=NOON - timedelta(hours=h)) for h in range(3)), a_weight())
    url: str | None = f"/fhir/Patient/{public_id(database)}/$everything?_count=3"
    kinds = []
    while url:
        bundle = (await api.get(url)).json()
        kinds += [entry["resource"]["resourceType"] for entry in bundle["entry"]]
        url = next_of(bundle)
    assert kinds == ["Patient", "Device", "Device"] + ["Observation"] * 7


async def test_an_invalid_reading_is_in_error_and_has_no_value(
    database: str, api: httpx.AsyncClient
) -> None:
    walk = a_walk()
    await store(database, replace(walk, reading=replace(walk.reading, status=1)))
    (resource,) = await found(api, database, status="entered-in-error")
    assert {c["dataAbsentReason"]["coding"][0]["code"] for c in resource["component"]} == {"error"}


async def test_another_residents_observations_are_not_among_them(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure(), a_weight())
    other = public_id(database, OTHER_RESIDENT)
    assert "entry" not in await searched(api, patient=str(other))
    (mine,) = await found(api, database, code="29463-7")
    both = await searched(api, patient=str(other), _id=mine["id"])
    assert "entry" not in both


async def test_devices_are_those_that_all_parameters_name(
    database: str, api: httpx.AsyncClient
) -> None:
    own, other = public_id(database), public_id(database, OTHER_RESIDENT)
    for asked, ids in (
        (f"patient={own}", ["C026DA010203", "C026DA040506"]),
        (f"patient={own}&_id=C026DA010203", ["C026DA010203"]),
        (f"patient={other}&_id=C026DA010203", []),
    ):
        bundle = (await api.get(f"/fhir/Device?{asked}")).json()
        assert [e["resource"]["id"] for e in bundle.get("entry", [])] == ids, asked


async def test_patients_are_found_by_any_of_several_ids(
    database: str, api: httpx.AsyncClient
) -> None:
    own, other = str(public_id(database)), str(public_id(database, OTHER_RESIDENT))
    nobody = "00000000-0000-4000-8000-00000000000f"
    for asked, ids in (
        ({"_id": f"{own},{other},{nobody},{own}"}, {own, other}),
        ({"_id": f"{own},{other}", "identifier": other}, {other}),
        ({"_id": f"{nobody},nothing"}, set()),
    ):
        bundle = (await api.get("/fhir/Patient", params=asked)).json()
        told = [entry["resource"]["id"] for entry in bundle.get("entry", [])]
        assert (set(told), len(told)) == (ids, len(ids)), asked
    many = ",".join([own] * (IDS_MAX + 1))
    assert (await api.get("/fhir/Patient", params={"_id": many})).status_code in {400, 414}


async def test_a_search_by_ids_holds_to_what_else_it_asks_for(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure(), a_walk())
    (panel,) = await found(api, database, code="85354-9")
    (steps,) = await found(api, database, category="activity")
    pressure, walk = panel["id"], steps["id"]
    both = f"{pressure},{walk},{pressure}"
    for asked, ids in (
        ({}, {pressure, walk}),
        ({"date": "ge2026-11-20"}, {pressure, walk}),
        ({"date": "2026-11-20T12:00:00+08:00"}, {pressure}),  # the walk goes on behind it
        ({"date": "lt2026"}, set()),
        ({"_lastUpdated": "lt2026"}, set()),
        ({"status": "final"}, {pressure, walk}),
        ({"status": "preliminary"}, set()),
        ({"device": "C026DA010203"}, {pressure, walk}),
        ({"device": "C026DA040506"}, set()),
        ({"_summary": "count"}, set()),
    ):
        bundle = await searched(api, _id=both, **asked)
        told = [entry["resource"]["id"] for entry in bundle.get("entry", [])]
        assert (set(told), len(told)) == (ids, len(ids)), asked
    response = await api.get(f"/fhir/Observation?_id={both}&_id={walk}")
    assert [entry["resource"]["id"] for entry in response.json()["entry"]] == [walk]


async def test_each_read_is_audited_and_the_audit_can_be_read(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_weight())
    (weight,) = await found(api, database)
    await api.get(f"/fhir/Observation/{weight['id']}")
    actions = [
        action for (action,) in query(database, "SELECT action FROM audit ORDER BY audit_id")
    ]
    assert actions == ["observation.search", "observation.read"]


async def test_an_absence_has_its_reason(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure(systolic=Absent.NOT_A_NUMBER))
    panel = (await found(api, database, code="85354-9"))[0]
    assert panel["component"][0]["dataAbsentReason"]["coding"][0]["code"] == "not-a-number"
