"""Bulk exports over real HTTP, and a FHIR client that nobody here wrote, against the running API."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome

from api.archive import Archive, open_archive
from api.fhir.export import LOOK_S, RUNNING_MAX, Exports
from gateway.platform.postgres import TupleRow, connect_blocking, sql
from tests.archives import TOKEN, public_id, served, store
from tests.fixtures.database import as_api
from tests.worlds import NOON, OTHER_RESIDENT, RESIDENT, a_pressure, a_weight, enter_registry, query

pytestmark = pytest.mark.integration

ASYNC = {"Prefer": "respond-async", "Accept": "application/fhir+json"}
WITHIN_S = 30
IN_ORDER: LiteralString = (
    "UPDATE resident SET public_id ="
    " ('0000000' || resident_id - 100 || '-0000-4000-8000-000000000000')::uuid"
)
"""An export goes by the residents' ids: theirs stand in the order of their keys."""


@pytest.fixture
async def api(database: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with served(database, tmp_path / "exports") as client:
        yield client


async def some_readings(database: str) -> None:
    pressures = (a_pressure(at=NOON - timedelta(hours=h)) for h in range(4))
    await store(database, *pressures, a_weight("70.050"))


async def finished(api: httpx.AsyncClient, location: str) -> dict[str, Any]:
    path = urlsplit(location).path
    for _ in range(WITHIN_S * 20):
        response = await api.get(path)
        if response.status_code != 202:
            assert response.status_code == 200, response.text
            manifest: dict[str, Any] = response.json()
            return manifest
        assert response.headers["x-progress"].endswith("residents")
        await asyncio.sleep(0.05)
    raise AssertionError("the export did not finish")


async def test_an_export_has_every_resource_once(database: str, api: httpx.AsyncClient) -> None:
    await some_readings(database)
    accepted = await api.get("/fhir/$export", headers=ASYNC)
    assert accepted.status_code == 202, accepted.text
    manifest = await finished(api, accepted.headers["content-location"])
    assert manifest["requiresAccessToken"]
    counts = {output["type"]: output["count"] for output in manifest["output"]}
    assert counts == {"Patient": 2, "Device": 2, "Observation": 9}
    for output in manifest["output"]:
        response = await api.get(urlsplit(output["url"]).path)
        assert response.headers["content-type"].startswith("application/fhir+ndjson")
        resources = [json.loads(line) for line in response.text.splitlines()]
        assert len({resource["id"] for resource in resources}) == output["count"]
        assert {resource["resourceType"] for resource in resources} == {output["type"]}
    assert '"value":70.050,' in (await api.get(urlsplit(manifest["output"][1]["url"]).path)).text
    actions = query(database, "SELECT DISTINCT action FROM audit WHERE resident_id = 101")
    assert ("observation.export",) in actions


async def test_a_file_of_an_export_is_audited_and_not_for_an_account_that_is_disabled(
    database: str, api: httpx.AsyncClient
) -> None:
    await some_readings(database)
    accepted = await api.get("/fhir/$export", headers=ASYNC)
    manifest = await finished(api, accepted.headers["content-location"])
    path = urlsplit(manifest["output"][0]["url"]).path
    assert (await api.get(path)).status_code == 200
    query(database, "UPDATE account SET disabled_at = now()")
    assert (await api.get(path)).status_code == 401
    status = urlsplit(accepted.headers["content-location"]).path
    assert (await api.get(status)).status_code == 401
    assert (await api.delete(status)).status_code == 401
    assert (await api.get("/fhir/$export", headers=ASYNC)).status_code == 401
    acts = query(
        database, "SELECT action FROM audit WHERE action LIKE 'export.%' ORDER BY audit_id"
    )
    assert acts == [("export.begin",), ("export.read",)]


async def test_an_export_of_one_kind_since_a_time(database: str, api: httpx.AsyncClient) -> None:
    await some_readings(database)
    for since, counts in (("2026-01-01", {"Observation": 9}), ("2999-01-01", {})):
        accepted = await api.get(
            "/fhir/Patient/$export",
            params={"_type": "Observation", "_since": since},
            headers=ASYNC,
        )
        manifest = await finished(api, accepted.headers["content-location"])
        assert {output["type"]: output["count"] for output in manifest["output"]} == counts


def file_in(folder: Path) -> Path:
    """The Observations of the one export, of its last lease."""
    (file,) = folder.glob("*/*/Observation.ndjson")
    return file


async def exported(database: str, folder: Path) -> str:
    """Export the Observations of residents whose ids are in the order of their keys; return its status's address."""
    enter_registry(database)
    query(database, IN_ORDER)
    await some_readings(database)
    async with served(database, folder) as api:
        accepted = await api.get("/fhir/$export?_type=Observation", headers=ASYNC)
        location: str = accepted.headers["content-location"]
        await finished(api, location)
    return location


async def test_an_export_goes_on_after_a_crash_where_it_was_whole(
    database: str, tmp_path: Path
) -> None:
    """The first resident is whole in the files, the second half written: as a killed API leaves it."""
    folder = tmp_path / "exports"
    location = await exported(database, folder)
    file = file_in(folder)
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + b'{"half a l')
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute(
            "UPDATE fhir_export SET state = 'running', behind = NULL, residents_done = 0,"
            " sizes = '{\"Observation\": 0}', counts = '{}', leased_until = '-infinity'"
        )
    async with served(database, folder) as api:
        await finished(api, location)
    file = file_in(folder)
    assert file.read_bytes() == whole
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute(
            "UPDATE fhir_export SET state = 'running', behind = %s, residents_done = 1,"
            " sizes = %s::jsonb, leased_until = '-infinity'",
            [public_id(database), json.dumps({"Observation": len(whole)})],
        )
    file.write_bytes(whole + b'{"half a l')
    async with served(database, folder) as api:
        await finished(api, location)
    assert file_in(folder).read_bytes() == whole


class Held(Exports):
    """A worker that stands still before each resident until it may go on."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        super().__init__(archive, folder)
        self.is_there = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def _write_resident(self, *given: Any) -> None:  # noqa: ANN401 - passed on
        self.is_there.set()
        await self.may_go_on.wait()
        await super()._write_resident(*given)


async def test_a_worker_that_was_taken_for_dead_writes_into_no_file_of_the_one_after_it(
    database: str, tmp_path: Path
) -> None:
    """Two API processes over one folder; one of them notes nothing for longer than its lease."""
    folder = tmp_path / "exports"
    location = await exported(database, folder)
    whole = file_in(folder).read_bytes()
    query(
        database,
        "UPDATE fhir_export SET state = 'running', behind = NULL, residents_done = 0,"
        " sizes = '{}', counts = '{}', leased_until = '-infinity'",
    )
    async with open_archive(as_api(database)) as archive, asyncio.TaskGroup() as group:
        held = Held(archive, folder)
        task = group.create_task(held.run_forever())
        await asyncio.wait_for(held.is_there.wait(), WITHIN_S)
        query(database, "UPDATE fhir_export SET leased_until = now() - interval '1 s'")
        async with served(database, folder) as api:
            manifest = await finished(api, location)
            held.may_go_on.set()
            held.is_there.clear()
            await asyncio.sleep(2 * LOOK_S)  # it ends what it had in hand, and looks for more
            (output,) = manifest["output"]
            text = (await api.get(urlsplit(output["url"]).path)).content
        task.cancel()
    assert text == whole
    counts = query(database, "SELECT state, residents_done, counts FROM fhir_export")
    assert counts == [("complete", 2, {"Observation": output["count"]})]
    assert file_in(folder).read_bytes() == whole


async def test_a_folder_that_another_worker_makes_meanwhile_is_not_swept_away(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not among those that were to be kept a moment before."""
    meanwhile, old = (tmp_path / str(uuid4()) for _ in range(2))
    old.mkdir()
    async with open_archive(as_api(database)) as archive:
        rows = archive.rows

        async def asked(statement: sql.SQL, parameters: dict[str, object]) -> Sequence[TupleRow]:
            answer = await rows(statement, parameters)
            meanwhile.mkdir(exist_ok=True)
            return answer

        monkeypatch.setattr(archive, "rows", asked)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Exports(archive, tmp_path).run_forever())
            async with asyncio.timeout(WITHIN_S):
                while old.exists():  # noqa: ASYNC110 - the file system has no event to wait for
                    await asyncio.sleep(0.01)
            task.cancel()
    assert meanwhile.exists()


@pytest.mark.parametrize("left", [None, 100])
async def test_an_export_whose_files_are_shorter_than_noted_begins_anew(
    database: str, tmp_path: Path, left: int | None
) -> None:
    """The folder is not the one that was written to, or a power cut took the files' end."""
    enter_registry(database)
    await some_readings(database)
    folder = tmp_path / "exports"
    async with served(database, folder) as api:
        accepted = await api.get("/fhir/$export?_type=Observation", headers=ASYNC)
        location = accepted.headers["content-location"]
        (before,) = (await finished(api, location))["output"]
    file = file_in(folder)
    whole = file.read_bytes()
    if left is None:
        shutil.rmtree(folder)
    else:
        file.write_bytes(whole[:left])
    query(
        database,
        "UPDATE fhir_export SET state = 'running', leased_until = '-infinity',"
        " behind = (SELECT public_id FROM resident WHERE resident_id = 101)",
    )
    async with served(database, folder) as api:
        (after,) = (await finished(api, location))["output"]
    assert after["count"] == before["count"]
    assert file_in(folder).read_bytes() == whole


async def test_an_export_is_noted_as_long_as_its_files_are(database: str, tmp_path: Path) -> None:
    """The second resident, who has no readings, is written after what was half written is cut off."""
    folder = tmp_path / "exports"
    location = await exported(database, folder)
    file = file_in(folder)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"half a l')
    query(
        database,
        "UPDATE fhir_export SET state = 'running', leased_until = '-infinity',"
        " behind = (SELECT public_id FROM resident WHERE resident_id = 101)",
    )
    async with served(database, folder) as api:
        await finished(api, location)
    ((sizes,),) = query(database, "SELECT sizes FROM fhir_export")
    assert sizes == {"Observation": len(whole)}


async def test_what_was_being_stored_when_an_export_began_is_in_the_next_one(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure())
    accepted = await api.get("/fhir/$export?_type=Observation", headers=ASYNC)
    manifest = await finished(api, accepted.headers["content-location"])
    assert manifest["output"][0]["count"] == 2
    await store(database, a_weight(), sequence=2)  # it committed after the export had read
    query(
        database,
        "UPDATE measurement SET stored_at = (SELECT started_at - interval '1 s' FROM fhir_export)",
    )
    since = {"_type": "Observation", "_since": manifest["transactionTime"]}
    accepted = await api.get("/fhir/$export", params=since, headers=ASYNC)
    manifest = await finished(api, accepted.headers["content-location"])
    text = (await api.get(urlsplit(manifest["output"][0]["url"]).path)).text
    assert "29463-7" in text


async def test_a_cancelled_export_is_gone(
    database: str, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    await some_readings(database)
    accepted = await api.get("/fhir/$export", headers=ASYNC)
    path = urlsplit(accepted.headers["content-location"]).path
    await finished(api, path)
    assert (await api.delete(path)).status_code == 202
    assert (await api.get(path)).status_code == 404
    assert list((tmp_path / "exports").iterdir()) == []
    assert (await api.delete(path)).status_code == 404


async def test_that_an_export_was_asked_for_is_forgotten_some_time_after_its_files(
    database: str, tmp_path: Path
) -> None:
    location = await exported(database, tmp_path)
    query(database, "UPDATE fhir_export SET finished_at = now() - interval '31 days'")
    async with served(database, tmp_path) as api:
        for _ in range(100):
            if (await api.get(urlsplit(location).path)).status_code == 404:
                break
            await asyncio.sleep(0.1)
    assert query(database, "SELECT count(*) FROM fhir_export") == [(0,)]


async def test_files_are_only_for_whoever_began_the_export(
    database: str, api: httpx.AsyncClient
) -> None:
    await some_readings(database)
    accepted = await api.get("/fhir/$export", headers=ASYNC)
    path = urlsplit(accepted.headers["content-location"]).path
    manifest = await finished(api, path)
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute("UPDATE fhir_export SET account = gen_random_uuid()")
    for url in (path, urlsplit(manifest["output"][0]["url"]).path):
        assert (await api.get(url)).status_code == 404
    del api.headers["Authorization"]
    assert (await api.get(urlsplit(manifest["output"][0]["url"]).path)).status_code == 401


async def test_so_many_exports_and_no_more(database: str, tmp_path: Path) -> None:
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute(
            "INSERT INTO fhir_export (account, principal, request, kinds, leased_until)"
            " SELECT gen_random_uuid(), '{}', '', '{}', 'infinity'"
            " FROM generate_series(1, %s)",
            [RUNNING_MAX],
        )
    async with served(database, tmp_path / "exports") as api:
        refused = await api.get("/fhir/$export", headers=ASYNC)
    assert refused.status_code == 429
    assert refused.json()["issue"][0]["code"] == "throttled"
    assert "retry-after" in refused.headers


async def test_an_export_must_be_asked_for_asynchronously(api: httpx.AsyncClient) -> None:
    assert (await api.get("/fhir/$export")).status_code == 400
    for wrong in ("_type=Encounter", "_since=x", "_outputFormat=csv", "patient=1"):
        assert (await api.get(f"/fhir/$export?{wrong}", headers=ASYNC)).status_code == 400


async def test_a_client_that_nobody_here_wrote_walks_all_of_it(
    database: str, api: httpx.AsyncClient
) -> None:
    """fhirpy: search, paging, references, $lastn, export, errors."""
    days = [a_pressure(Decimal(120 + d), at=NOON - timedelta(days=d)) for d in range(7)]
    await store(database, *days, a_weight())
    client = AsyncFHIRClient(f"{api.base_url}/fhir", authorization=f"Bearer {TOKEN}")
    patient = await client.resources("Patient").search(_id=str(public_id(database))).get()
    search = client.resources("Observation").search(patient=patient.id)
    panels = await search.search(code="http://loinc.org|85354-9").limit(3).fetch_all()
    assert len(panels) == 7
    times = [panel["effectiveDateTime"] for panel in panels]
    assert times == sorted(times, reverse=True)
    subject = await panels[0]["subject"].to_resource()
    assert subject.id == patient.id
    device = await panels[0]["device"].to_resource()
    assert device["identifier"][0]["value"] == "C0-26-DA-01-02-03"
    some = await search.search(date__ge="2026-11-19", date__lt="2026-11-20").fetch_all()
    assert {one["code"]["coding"][0]["code"] for one in some} == {"85354-9", "8867-4"}
    total = await search.count()
    assert total == 15
    last = await client.execute(
        "Observation/$lastn", method="get", params={"patient": patient.id, "max": 2}
    )
    codes = [entry["resource"]["code"]["coding"][0]["code"] for entry in last["entry"]]
    assert codes == ["85354-9", "85354-9", "8867-4", "8867-4", "29463-7"]
    accepted = await api.get("/fhir/Patient/$export", headers=ASYNC)
    manifest = await finished(api, accepted.headers["content-location"])
    assert {o["type"] for o in manifest["output"]} == {"Patient", "Device", "Observation"}
    with pytest.raises(OperationOutcome):
        await client.resources("Observation").fetch()
    assert RESIDENT != OTHER_RESIDENT
