"""Observations of other gateways: through the API, the inbox and a real worker, to rows and verdicts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api import gateways
from api.erasure import erase
from api.fhir import creation
from api.fhir.vocabulary import PHD_IDENTIFIER
from gateway.errors import UsageError
from gateway.platform.postgres import connect_blocking
from ingest.ledger import read_ledger
from tests.archives import SERVICE, a_token, api_over, public_id, store
from tests.fixtures.workers import Workers
from tests.unit.test_fhir_received import a_panel, coded, quantity
from tests.worlds import OTHER_RESIDENT, a_pressure, enter_registry, query

pytestmark = pytest.mark.integration

GATEWAY = "00000000000000f1"
SCOPES = "system/Observation.crs"
OURS = {"system": "urn:clinic", "value": "reading-1"}
UNLESS = {"If-None-Exist": "identifier=urn:clinic|reading-1"}
FHIR = {"Content-Type": "application/fhir+json"}


def admit(dsn: str, scopes: str = SCOPES) -> None:
    """Let the tests' service create, with a hub of the first home that stands for it."""
    with connect_blocking(dsn, application="hearth-tests") as connection:
        connection.execute(
            "INSERT INTO hub (hub_id, name, home_id) OVERRIDING SYSTEM VALUE VALUES (3, %s, 1)",
            [GATEWAY],
        )
        connection.execute("UPDATE account SET scopes = %s", [scopes.split()])
        gateways.stand_in(connection, GATEWAY, "tests")


@asynccontextmanager
async def a_clinic(dsn: str, scopes: str = SCOPES) -> AsyncIterator[httpx.AsyncClient]:
    """The API, for a service with these scopes."""
    async with api_over(dsn) as api:
        api.headers["Authorization"] = f"Bearer {a_token(SERVICE, scope=scopes)}"
        yield api


async def post(
    api: httpx.AsyncClient,
    document: dict[str, Any],
    path: str = "/fhir/Observation",
    **headers: str,
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.post(path, content=json.dumps(document), headers=FHIR | named)


def a_bundle(*documents: dict[str, Any], unless: str | None = None) -> dict[str, Any]:
    request = {"method": "POST", "url": "Observation"}
    if unless is not None:
        request["ifNoneExist"] = unless
    entries = [{"resource": document, "request": request} for document in documents]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def rows(dsn: str) -> int:
    ((count,),) = query(dsn, "SELECT count(*) FROM measurement")
    return int(count)


def outcome_of(response: httpx.Response) -> str:
    document = response.json()
    assert document["resourceType"] == "OperationOutcome"
    return str(document["issue"][0]["diagnostics"])


async def test_what_is_created_is_stored_by_ingest_and_the_same_again_is_found(
    workers: Workers,
) -> None:
    admit(workers.database)
    workers.start()
    document = a_panel(identifier=[OURS])
    async with a_clinic(workers.database) as api:
        made = await post(api, document, **UNLESS)
        assert made.status_code == 201, made.text
        again = await post(api, document, **UNLESS)
        other = await post(api, a_panel(identifier=[OURS], component=[
            {"code": coded("8480-6"), "valueQuantity": quantity(200, "mm[Hg]")}
        ]), **UNLESS)  # fmt: skip
        without = await post(api, document)
        read = await api.get(made.headers["Location"])
    assert [r.status_code for r in (again, other, without)] == [200, 200, 200]
    assert len({r.headers["Location"] for r in (made, again, other, without)}) == 1
    assert made.json() == again.json() == other.json() == without.json() == read.json()
    assert made.json()["subject"]["reference"] == f"Patient/{public_id(workers.database)}"
    assert made.json()["extension"][0]["valueReference"]["reference"] == f"Device/hub-{GATEWAY}"
    assert rows(workers.database) == 1
    ledger = await asyncio.to_thread(read_ledger, workers.database)
    assert ledger.balanced
    assert (ledger.total("stored"), ledger.total("duplicate")) == (1, 1)
    await emptied(workers.database)


async def test_the_same_at_the_same_time_is_created_once(workers: Workers) -> None:
    admit(workers.database)
    workers.start()
    document = a_panel(identifier=[OURS])
    async with a_clinic(workers.database) as api:
        answers = await asyncio.gather(*(post(api, document, **UNLESS) for _ in range(5)))
    assert {a.status_code for a in answers} <= {200, 201}
    assert len({a.headers["Location"] for a in answers}) == 1
    assert query(workers.database, "SELECT published, stored FROM batch") == [(1, 1)]


async def test_an_erasure_forgets_by_which_identifier_it_was_created(workers: Workers) -> None:
    admit(workers.database)
    workers.start()
    later = a_panel(identifier=[OURS], effectiveDateTime="2026-11-20T15:00:00+08:00")
    async with a_clinic(workers.database) as api:
        assert (await post(api, later, **UNLESS)).status_code == 201
        assert (await post(api, a_panel())).status_code == 201
    assert len(query(workers.database, "SELECT * FROM fhir_created")) == 1
    with connect_blocking(workers.database, application="hearth-tests") as connection:
        assert erase(connection, public_id(workers.database), "asked for it").measurements == 2
    assert query(workers.database, "SELECT * FROM fhir_created") == []
    ledger = await asyncio.to_thread(read_ledger, workers.database)
    assert ledger.balanced


async def emptied(dsn: str) -> None:
    """Wait until the inbox is."""
    for _ in range(100):
        if query(dsn, "SELECT * FROM fhir_inbox") == []:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the inbox is not emptied")


async def test_a_reading_that_a_hub_of_ours_brought_is_the_same_by_the_recipe(
    workers: Workers,
) -> None:
    """The PHD identifier tells the device's own time, by which a reading is known again."""
    admit(workers.database)
    await store(workers.database, a_pressure())
    workers.start()
    async with a_clinic(workers.database) as api:
        patient = public_id(workers.database)
        shown = await api.get(f"/fhir/Observation?patient={patient}&code=85354-9")
        (entry,) = shown.json()["entry"]
        (identifier,) = entry["resource"]["identifier"]
        assert identifier["system"] == PHD_IDENTIFIER
        unless = f"identifier={identifier['system']}|{identifier['value']}"
        found = await post(api, entry["resource"], If_None_Exist=unless)
        assert (found.status_code, found.json()) == (200, entry["resource"])
        # a second time-line of the same clock: one identifier, two readings
        query(
            workers.database,
            "INSERT INTO measurement SELECT (jsonb_populate_record(m, jsonb_build_object("
            "'measured_at', m.measured_at + interval '90 days'))).* FROM measurement AS m",
        )
        several = await post(api, entry["resource"], If_None_Exist=unless)
        assert several.status_code == 412, several.text
    assert rows(workers.database) == 2


async def test_a_transaction_is_one_reading_and_each_entry_has_its_answer(
    workers: Workers,
) -> None:
    admit(workers.database)
    workers.start()
    pulse = a_panel(code=coded("8867-4"), component=None, valueQuantity=quantity(71, "/min"))
    later = "2026-11-20T13:00:00+08:00"
    wrong = a_panel(
        effectiveDateTime=later,
        component=[{"code": coded("8480-6"), "valueQuantity": quantity(400, "mm[Hg]")}],
    )
    async with a_clinic(workers.database) as api:
        response = await post(api, a_bundle(a_panel(), pulse, wrong), "/fhir")
    assert response.status_code == 200, response.text
    bundle = response.json()
    assert bundle["type"] == "transaction-response"
    statuses = [entry["response"]["status"] for entry in bundle["entry"]]
    assert statuses == ["201 Created", "201 Created", "422 Unprocessable Entity"]
    assert [entry["resource"]["code"]["coding"][0]["code"] for entry in bundle["entry"][:2]] == [
        "85354-9",
        "8867-4",
    ]
    told = bundle["entry"][2]["response"]["outcome"]["issue"][0]
    assert told["severity"] == "error"
    assert "implausible (systolic_mmhg)" in told["diagnostics"]
    assert rows(workers.database) == 1
    assert query(workers.database, "SELECT reason, state FROM quarantine") == [(30, "waiting")]
    ledger = await asyncio.to_thread(read_ledger, workers.database)
    assert ledger.balanced
    assert (ledger.total("stored"), ledger.total("quarantined")) == (1, 1)


async def test_one_refused_entry_and_nothing_of_a_transaction_is_handed_over(
    database: str,
) -> None:
    enter_registry(database)
    admit(database)
    async with a_clinic(database) as api:
        response = await post(api, a_bundle(a_panel(), a_panel(status="cancelled")), "/fhir")
        assert response.status_code == 422
        issue = response.json()["issue"][0]
        assert issue["expression"] == ["Bundle.entry[1].resource.status"]
        for spoilt in (
            {"resourceType": "Bundle", "type": "batch"},
            {"resourceType": "Bundle", "type": "transaction", "entry": 1},
            {"resourceType": "Bundle", "type": "transaction", "entry": [1]},
            a_bundle(*(101 * [a_panel()])),
            a_bundle(*(2 * [a_panel(identifier=[OURS])]), unless="identifier=urn:clinic|reading-1"),
        ):
            assert (await post(api, spoilt, "/fhir")).status_code == 400
        empty = await post(api, a_bundle(), "/fhir")
        assert (empty.status_code, empty.json()["entry"]) == (200, [])
    assert query(database, "SELECT * FROM fhir_inbox") == []


async def test_what_is_kept_apart_is_told_and_found_once_it_is_put_right(
    workers: Workers,
) -> None:
    admit(workers.database)
    query(workers.database, "DELETE FROM link")
    workers.start()
    document = a_panel(identifier=[OURS])
    async with a_clinic(workers.database) as api:
        for _ in range(2):
            kept = await post(api, document, **UNLESS)
            assert kept.status_code == 422, kept.text
            assert "unlinked" in outcome_of(kept)
        ((batches,),) = query(workers.database, "SELECT count(*) FROM batch")
        assert batches == 1
        query(
            workers.database,
            "INSERT INTO link (device_id, user_slot, resident_id, during)"
            " VALUES (11, 255, 101, '(,)')",
        )
        for _ in range(100):
            found = await post(api, document, **UNLESS)
            if found.status_code == 200:
                break
            await asyncio.sleep(0.1)
        assert found.status_code == 200
    assert rows(workers.database) == 1


async def test_a_corrected_observation_under_the_same_identifier_is_judged_anew(
    workers: Workers,
) -> None:
    admit(workers.database)
    workers.start()
    wrong = [{"code": coded("8480-6"), "valueQuantity": quantity(400, "mm[Hg]")}]
    async with a_clinic(workers.database) as api:
        kept = await post(api, a_panel(identifier=[OURS], component=wrong), **UNLESS)
        put_right = await post(api, a_panel(identifier=[OURS]), **UNLESS)
    assert (kept.status_code, put_right.status_code) == (422, 201)


async def test_without_a_worker_it_is_kept_and_told_so_and_goes_on_later(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "ANSWER_S_MAX", 0.2)
    admit(workers.database)
    async with a_clinic(workers.database) as api:
        for _ in range(2):
            waiting = await post(api, a_panel(identifier=[OURS]), **UNLESS)
            assert waiting.status_code == 202
        assert len(query(workers.database, "SELECT * FROM fhir_inbox")) == 1
        workers.start()
        monkeypatch.setattr(creation, "ANSWER_S_MAX", 30.0)
        done = await post(api, a_panel(identifier=[OURS]), **UNLESS)
        assert done.status_code == 201
    assert rows(workers.database) == 1


async def test_the_inbox_is_bounded(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "ANSWER_S_MAX", 0.0)
    monkeypatch.setattr(creation, "WAITING_MAX", 1)
    enter_registry(database)
    admit(database)
    async with a_clinic(database) as api:
        assert (await post(api, a_panel())).status_code == 202
        refused = await post(api, a_panel())
        assert refused.status_code == 503
    assert len(query(database, "SELECT * FROM fhir_inbox")) == 1


async def test_what_names_another_resident_than_the_link_is_refused(database: str) -> None:
    enter_registry(database)
    admit(database)
    other = {"reference": f"Patient/{public_id(database, OTHER_RESIDENT)}"}
    async with a_clinic(database) as api:
        refused = await post(api, a_panel(subject=other))
    assert refused.status_code == 422
    assert refused.json()["issue"][0]["expression"] == ["Observation.subject"]
    assert query(database, "SELECT * FROM fhir_inbox") == []


async def test_a_time_to_come_and_a_device_of_another_home_are_kept_apart(
    workers: Workers,
) -> None:
    admit(workers.database)
    workers.start()
    to_come = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="seconds")
    stranger = {"identifier": {
        "system": "http://hl7.org/fhir/sid/eui-48/bluetooth", "value": "C0:26:DA:0F:0F:0F"
    }}  # fmt: skip
    async with a_clinic(workers.database) as api:
        future = await post(api, a_panel(effectiveDateTime=to_come))
        unknown = await post(api, a_panel(device=stranger))
    assert (future.status_code, unknown.status_code) == (422, 422)
    assert "time_future" in outcome_of(future)
    assert "device_unknown" in outcome_of(unknown)


@pytest.mark.parametrize(
    ("token", "account", "expected"),
    [
        ("", SCOPES, 403),
        ("system/Observation.rs", SCOPES, 403),
        ("system/Observation.c?code=29463-7", SCOPES, 403),
        ("patient/Observation.c", SCOPES, 403),
        (SCOPES, "system/Observation.rs", 403),
        ("system/Observation.c", "system/Observation.c", 202),
        ("system/*.cruds", "system/*.*", 202),
        ("system/Observation.c?code=85354-9", "system/Observation.c?code=85354-9", 202),
    ],
)
async def test_only_a_service_within_its_scopes_creates(
    database: str, monkeypatch: pytest.MonkeyPatch, token: str, account: str, expected: int
) -> None:
    monkeypatch.setattr(creation, "ANSWER_S_MAX", 0.0)
    enter_registry(database)
    admit(database, account)
    async with a_clinic(database, token) as api:
        assert (await post(api, a_panel())).status_code == expected
    handed = query(database, "SELECT * FROM fhir_inbox")
    assert len(handed) == (expected == 202)


async def test_creation_and_its_refusal_are_audited(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "ANSWER_S_MAX", 0.0)
    enter_registry(database)
    async with a_clinic(database) as api:
        query(database, "UPDATE account SET scopes = '{system/Observation.crs}'")
        refused = await post(api, a_panel())
        assert refused.status_code == 403
        admit(database)
        await post(api, a_panel())
    told = query(database, "SELECT detail FROM audit WHERE action = 'observation.create'")
    assert told == [({"refused": "gateway"},), ({"entries": 1},)]


@pytest.mark.parametrize(
    ("unless", "expected"),
    [
        ("identifier=urn:clinic|another", 412),
        ("identifier=reading-1", 400),
        ("identifier=urn:clinic|reading-1&status=final", 400),
        ("identifier=urn:clinic|reading-1,urn:clinic|2", 400),
        ("code=1", 400),
        ("", 400),
    ],
)
async def test_a_condition_that_is_not_one_of_its_identifiers_is_refused(
    database: str, unless: str, expected: int
) -> None:
    enter_registry(database)
    admit(database)
    async with a_clinic(database) as api:
        refused = await post(api, a_panel(identifier=[OURS]), If_None_Exist=unless)
    assert refused.status_code == expected
    assert query(database, "SELECT * FROM fhir_inbox") == []


async def test_what_is_no_fhir_is_refused(database: str) -> None:
    enter_registry(database)
    admit(database)
    async with a_clinic(database) as api:
        text = await api.post("/fhir/Observation", content="x", headers={"Content-Type": "text/x"})
        broken = await api.post("/fhir", content="{", headers=FHIR)
    assert (text.status_code, broken.status_code) == (415, 400)
    assert {r.json()["resourceType"] for r in (text, broken)} == {"OperationOutcome"}


async def test_minimal_is_answered_without_the_observation(workers: Workers) -> None:
    admit(workers.database)
    workers.start()
    async with a_clinic(workers.database) as api:
        made = await post(api, a_panel(), Prefer="return=minimal")
        assert made.status_code == 201
        assert "stored" in outcome_of(made)


async def test_a_batch_that_a_dead_worker_left_is_taken_by_another_and_stored_once(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "ANSWER_S_MAX", 60.0)
    admit(workers.database)
    first = workers.start()
    async with a_clinic(workers.database) as api:
        assert (await post(api, a_panel())).status_code == 201
        workers.start()
        first.kill()
        at = "2026-11-20T14:00:00+08:00"
        assert (await post(api, a_panel(effectiveDateTime=at))).status_code == 201
    assert rows(workers.database) == 2
    ledger = await asyncio.to_thread(read_ledger, workers.database)
    assert ledger.balanced


def test_a_hub_stands_for_one_service_and_is_no_box(database: str) -> None:
    enter_registry(database)
    admit(database)
    query(
        database,
        "INSERT INTO account (login, role) VALUES ('other', 'service'), ('who', 'clinician')",
    )
    query(
        database,
        "INSERT INTO batch VALUES (1, 1, 1, now(), now(), 2, 0, 0, 0, 0, 1, 1)",
    )
    with connect_blocking(database, application="hearth-tests") as connection:
        for hub, service in (
            (GATEWAY, "other"),
            ("00000000000000a1", "who"),
            ("00000000000000b2", "other"),
            ("00000000000000ff", "other"),
        ):
            with pytest.raises(UsageError):
                gateways.stand_in(connection, hub, service)
