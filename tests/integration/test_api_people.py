"""Residents as people over the REST API: found, described, given limits, linked, copied."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from api import resident_file
from api.archive import open_archive
from api.idempotency import forget_old_answers
from api.resident_import import import_residents
from gateway.platform.postgres import connect_blocking
from gateway.stored import QUARANTINE_REASONS
from ingest.verdicts import Verdict
from tests.archives import API, IDENTITIES, api_over, public_id, store
from tests.fixtures.database import as_api
from tests.worlds import (
    NOON,
    OTHER_RESIDENT,
    a_pressure,
    a_weight,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration

SAMPLE = "11010519491231002X"
LINE = f"王秀英,{SAMPLE},A1234567,158,..130\n"
DEVICE = "C0:26:DA:01:02:03"


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as connection:
        file = io.BytesIO(
            f"name,national_id,health_card,height_cm,target:systolic_mmhg\n{LINE}".encode()
        )
        import_residents(
            connection, IDENTITIES, file, date(2026, 11, 25), lambda _: None, lambda *_at: None
        )
    async with api_over(database) as client:
        yield client


def imported(database: str) -> UUID:
    ((resident,),) = query(
        database, "SELECT public_id FROM resident JOIN resident_profile USING (resident_id)"
    )
    return UUID(str(resident))


@pytest.mark.parametrize(
    "wanted",
    [
        {"national_id": SAMPLE.lower()},
        {"health_card": "a123-4567"},
        {"name": "王 秀英", "birth_date": "1949-12-31"},
    ],
)
async def test_a_resident_is_found_by_number_card_or_name(
    database: str, api: httpx.AsyncClient, wanted: dict[str, str]
) -> None:
    response = await api.post(f"{API}/residents/search", json=wanted)
    assert response.json() == {
        "items": [
            {
                "id": str(imported(database)),
                "visible": True,
                "name": "王秀英",
                "birth_date": "1949-12-31",
            }
        ]
    }


@pytest.mark.parametrize(
    ("wanted", "column"),
    [
        ({"national_id": "110105194912310020"}, "national_id"),
        ({"health_card": "?"}, "health_card"),
        ({"name": "王秀英"}, "national_id"),
        ({}, "national_id"),
    ],
)
async def test_a_search_for_what_cannot_be_is_refused_without_repeating_it(
    api: httpx.AsyncClient, wanted: dict[str, str], column: str
) -> None:
    response = await api.post(f"{API}/residents/search", json=wanted)
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == column
    assert all(value not in response.text for value in wanted.values() if len(value) > 1)


async def test_a_double_entry_is_found_as_what_it_was_merged_into(
    database: str, api: httpx.AsyncClient
) -> None:
    query(
        database,
        "UPDATE resident SET merged_into = 101 WHERE resident_id IN"
        " (SELECT resident_id FROM resident_profile)",
    )
    response = await api.post(f"{API}/residents/search", json={"national_id": SAMPLE})
    assert [item["id"] for item in response.json()["items"]] == [str(public_id(database))]


async def test_a_profile_says_who_it_is(database: str, api: httpx.AsyncClient) -> None:
    response = await api.get(f"{API}/residents/{imported(database)}/profile")
    profile = response.json()
    assert (profile["name"], profile["national_id"]) == ("王秀英", SAMPLE)
    assert (profile["sex"], profile["height_cm"]) == ("female", 158.0)
    assert profile["targets"] == {"systolic_mmhg": {"low": None, "high": 130.0}}


async def test_limits_are_set_only_in_place_of_those_that_were_read(
    database: str, api: httpx.AsyncClient
) -> None:
    path = f"{API}/residents/{imported(database)}/targets"
    read = await api.get(path)
    new = {"targets": {"body_weight_kg": {"low": 50, "high": 70.5}}}
    done = await api.put(path, json=new, headers={"If-Match": read.headers["etag"]})
    assert done.status_code == 200
    assert done.headers["etag"] == (await api.get(path)).headers["etag"]
    again = await api.put(path, json=new, headers={"If-Match": read.headers["etag"]})
    assert again.status_code == 412
    audited = "SELECT count(*) FROM audit WHERE action = 'targets.write'"
    assert query(database, audited) == [(2,)]


@pytest.mark.parametrize(
    "targets",
    [
        {"unheard_of": {"high": 1}},
        {"systolic_mmhg": {"low": 140, "high": 120}},
        {"systolic_mmhg": {"high": 9000}},
        {"systolic_mmhg": {}},
    ],
)
async def test_limits_that_cannot_be_are_refused(
    database: str, api: httpx.AsyncClient, targets: dict[str, dict[str, float]]
) -> None:
    path = f"{API}/residents/{imported(database)}/targets"
    assert (await api.put(path, json={"targets": targets})).status_code == 422


async def test_the_same_bytes_are_not_sent_again(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure())
    path = f"{API}/residents/{public_id(database)}/latest"
    tag = (await api.get(path)).headers["etag"]
    again = await api.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    await store(database, a_pressure(at=NOON + timedelta(minutes=1)), sequence=2)
    assert (await api.get(path, headers={"If-None-Match": tag})).status_code == 200


def a_link(database: str) -> dict[str, object]:
    """A write that nobody has made yet."""
    resident = public_id(database, OTHER_RESIDENT)
    return {"device": DEVICE, "user_slot": 7, "resident": str(resident)}


async def test_a_write_with_a_key_is_done_once_and_answered_again(
    database: str, api: httpx.AsyncClient
) -> None:
    link = a_link(database)
    key = {"Idempotency-Key": str(uuid4())}
    first = await api.post(f"{API}/links", json=link, headers=key)
    second = await api.post(f"{API}/links", json=link, headers=key)
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert query(database, "SELECT count(*) FROM link WHERE user_slot = 7") == [(1,)]
    assert query(database, "SELECT count(*) FROM audit WHERE action = 'link.add'") == [(1,)]
    other = await api.post(f"{API}/links", json=link | {"user_slot": 8}, headers=key)
    assert other.status_code == 422
    bad = await api.post(f"{API}/links", json=link, headers={"Idempotency-Key": "short"})
    assert bad.status_code == 400


async def test_a_look_up_by_a_body_is_kept_nowhere_and_audited_each_time(
    database: str, api: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    for _ in range(2):
        found = await api.post(f"{API}/residents/search", json={"national_id": SAMPLE}, headers=key)
        assert found.json()["items"][0]["name"] == "王秀英"
        assert "idempotent-replayed" not in found.headers
    assert query(database, "SELECT count(*) FROM idempotent_answer") == [(0,)]
    audited = (
        "SELECT count(*) FROM audit"
        " WHERE action = 'resident.search' AND resident_id IS NOT NULL AND detail ? 'by'"
    )
    assert query(database, audited) == [(2,)], "whom it showed is told of each time"


async def test_an_answer_that_was_kept_is_seen_by_its_own_principal_only(
    database: str, api: httpx.AsyncClient
) -> None:
    link = a_link(database)
    key = {"Idempotency-Key": str(uuid4())}
    assert (await api.post(f"{API}/links", json=link, headers=key)).status_code == 200
    assert query(database, "SELECT count(*) FROM idempotent_answer") == [(1,)]
    ((mine,),) = query(database, "SELECT principal FROM idempotent_answer")
    with connect_blocking(as_api(database), application="hearth-tests") as connection:
        for principal, seen in (("", 0), (str(uuid4()), 0), (mine, 1)):
            connection.execute("SELECT set_config('hearth.principal', %s, true)", [principal])
            counted = connection.execute("SELECT count(*) FROM idempotent_answer").fetchone()
            assert counted == (seen,), principal


async def test_an_answer_that_was_kept_is_not_given_to_an_account_that_is_disabled(
    database: str, api: httpx.AsyncClient
) -> None:
    link = a_link(database)
    key = {"Idempotency-Key": str(uuid4())}
    assert (await api.post(f"{API}/links", json=link, headers=key)).status_code == 200
    query(database, "UPDATE account SET disabled_at = now()")
    assert (await api.post(f"{API}/links", json=link, headers=key)).status_code == 401


async def test_answers_that_were_kept_are_forgotten_after_a_day(
    database: str, api: httpx.AsyncClient
) -> None:
    link = a_link(database)
    for key in ("of-a-day-ago", "of-this-morning"):
        await api.post(f"{API}/links", json=link, headers={"Idempotency-Key": key})
    query(
        database,
        "UPDATE idempotent_answer SET answered_at = now() - CASE key"
        " WHEN 'of-a-day-ago' THEN interval '25 hours' ELSE interval '23 hours' END",
    )
    async with open_archive(as_api(database)) as archive:
        await forget_old_answers(archive.pool)
    assert query(database, "SELECT key FROM idempotent_answer") == [("of-this-morning",)]


async def test_a_write_under_way_is_not_done_twice(database: str, api: httpx.AsyncClient) -> None:
    link = a_link(database)
    key = "a-key-that-is-taken"
    query(
        database,
        "INSERT INTO idempotent_answer (principal, key, request_digest, status, headers, body)"
        " VALUES ('00000000-0000-0000-0000-000000000001', 'a-key-that-is-taken', '', 0, '{}', '')",
    )
    response = await api.post(f"{API}/links", json=link, headers={"Idempotency-Key": key})
    assert response.status_code == 422  # another request's key: nothing is told of it
    assert query(database, "SELECT count(*) FROM link WHERE user_slot = 7") == [(0,)]


async def test_a_link_is_made_listed_and_ended(database: str, api: httpx.AsyncClient) -> None:
    resident = str(public_id(database, OTHER_RESIDENT))
    link = {"device": DEVICE, "user_slot": 3, "resident": resident}
    start = {"starts_at": "2026-05-01T08:00:00+08:00"}
    assert (await api.post(f"{API}/links", json=link | start)).status_code == 200
    listed = (await api.get(f"{API}/links", params={"resident": resident})).json()["items"]
    assert [(entry["device"], entry["user_slot"]) for entry in listed] == [(DEVICE, 3)]
    at = {"at": "2026-06-01T00:00:00Z"}
    for _ in range(2):
        assert (await api.post(f"{API}/links/end", json=link | at)).status_code == 200
    listed = (await api.get(f"{API}/links", params={"resident": resident})).json()["items"]
    assert datetime.fromisoformat(listed[0]["ends_at"]).month == 6
    gone = await api.post(f"{API}/links/end", json=link | {"user_slot": 4})
    assert gone.status_code == 404


async def test_a_slot_that_is_anothers_is_a_conflict(database: str, api: httpx.AsyncClient) -> None:
    link = {"device": DEVICE, "resident": str(public_id(database, OTHER_RESIDENT))}
    response = await api.post(f"{API}/links", json=link)
    assert response.status_code == 409
    unknown = await api.post(f"{API}/links", json=link | {"device": "00:00:00:00:00:01"})
    assert unknown.status_code == 422


async def test_what_is_kept_apart_is_listed_without_its_content(
    database: str, api: httpx.AsyncClient
) -> None:
    query(
        database,
        "INSERT INTO quarantine (device, received_at, content_bytes, kind, reason, content)"
        " VALUES (211273098789379, now(), 1, 1, 40, 'x'), (-1, now(), 1, 2, 60, 'y')",
    )
    page = (await api.get(f"{API}/quarantine", params={"limit": 1})).json()
    assert [entry["reason"] for entry in page["items"]] == ["undecoded"]
    rest = (await api.get(f"{API}/quarantine", params={"after": page["next"]})).json()
    assert [(e["reason"], e["device"]) for e in rest["items"]] == [("unlinked", DEVICE)]
    waiting = {"state": "waiting", "reason": "unlinked"}
    assert len((await api.get(f"{API}/quarantine", params=waiting)).json()["items"]) == 1
    assert (await api.get(f"{API}/quarantine", params={"reason": "x"})).status_code == 422


def test_the_reasons_words_are_those_of_the_verdicts() -> None:
    reasons = {v.value: v.name.lower() for v in Verdict if v > Verdict.DUPLICATE}
    assert reasons == QUARANTINE_REASONS


async def test_whom_a_list_shows_is_audited_by_name_and_nobody_else(
    database: str, api: httpx.AsyncClient
) -> None:
    shown = {}
    for route in ("worklists/last-measured", "links"):
        page = (await api.get(f"{API}/{route}", params={"limit": 1})).json()
        assert page["next"] is not None, "there is one more, which is not shown"
        (shown[route],) = {item["resident"] for item in page["items"]}
    rows = query(
        database,
        "SELECT action, public_id::text, detail ->> 'by' FROM audit JOIN resident USING (resident_id)"
        " WHERE action IN ('worklist.read', 'link.list') ORDER BY audit_id",
    )
    assert rows == [
        ("worklist.read", shown["worklists/last-measured"], "service"),
        ("link.list", shown["links"], "service"),
    ]


async def test_the_worklist_tells_when_and_no_values(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure(), a_weight(at=NOON - timedelta(days=3)))
    items = (await api.get(f"{API}/worklists/last-measured")).json()["items"]
    by_resident = {item["resident"]: item for item in items}
    assert len(by_resident) == 3
    mine = by_resident[str(public_id(database))]
    assert set(mine["signs"]) == {"blood_pressure", "body_weight"}
    assert mine["last_measured_at"] == mine["signs"]["blood_pressure"]
    never = by_resident[str(public_id(database, OTHER_RESIDENT))]
    assert (never["last_measured_at"], never["signs"]) == (None, {})
    query(
        database,
        "INSERT INTO objection (resident_id, sign) SELECT resident_id, sign FROM measurement"
        " ORDER BY measured_at DESC LIMIT 1",
    )
    items = (await api.get(f"{API}/worklists/last-measured")).json()["items"]
    (signs,) = [item["signs"] for item in items if item["resident"] == str(public_id(database))]
    assert set(signs) == {"body_weight"}, "the other is withheld, from who reads everyone's too"


def response_text(content: bytes) -> str:
    """The Observations of a copy, as they are written: a parsed number has lost its last zero."""
    with zipfile.ZipFile(io.BytesIO(content)) as copy:
        return copy.read("fhir/Observation.ndjson").decode()


async def test_a_copy_of_many_pieces_is_handed_over_whole(
    database: str, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_file, "PIECE_BYTES", 64)
    await store(database, a_pressure(), a_weight("70.050"))
    response = await api.get(f"{API}/residents/{public_id(database)}/copy")
    with zipfile.ZipFile(io.BytesIO(response.content)) as copy:
        assert copy.testzip() is None
        assert len(copy.read("measurements.json").splitlines()) == 2


async def test_a_copy_has_everything_in_three_forms(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure(), a_weight("70.050"))
    response = await api.get(f"{API}/residents/{public_id(database)}/copy")
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as copy:
        lines = [json.loads(line) for line in copy.read("measurements.json").splitlines()]
        table = list(csv.DictReader(io.StringIO(copy.read("measurements.csv").decode("utf-8-sig"))))
        profile = json.loads(copy.read("profile.json"))
        fhir = {
            kind: [json.loads(line) for line in copy.read(f"fhir/{kind}.ndjson").splitlines()]
            for kind in ("Patient", "Device", "Observation")
        }
    assert [one["id"] for one in fhir["Patient"]] == [str(public_id(database))]
    assert {one["resourceType"] for one in fhir["Device"]} == {"Device"}
    observed = {one["code"]["coding"][0]["code"]: one for one in fhir["Observation"]}
    assert {"85354-9", "29463-7"} <= set(observed)
    assert '"value":70.050' in response_text(response.content)
    assert {line["sign"] for line in lines} == {"blood_pressure", "body_weight"}
    assert {row["body_weight_kg"] for row in table} == {"70.050", ""}
    assert {row["mean_arterial_mmhg"] for row in table} == {"not_sent", ""}
    assert profile["id"] == str(public_id(database))
