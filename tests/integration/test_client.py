"""The generated client: as the API describes itself now, and against the running API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.cli.client import FOLDER, client_sources, description
from hearth_client import ApiError, Client
from tests.archives import TOKEN, public_id, served, store
from tests.worlds import NOON, OTHER_RESIDENT, a_pressure, a_weight, enter_registry

pytestmark = pytest.mark.integration


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    enter_registry(database)
    await store(database, a_pressure(), a_weight())
    async with served(database) as api:
        with Client(str(api.base_url), TOKEN) as hearth:
            yield hearth


def test_the_client_is_up_to_date() -> None:
    for name, source in client_sources(description()).items():
        assert (FOLDER / name).read_text(encoding="utf-8") == source, "run `hearth client`"


async def test_it_reads_what_the_api_says(database: str, client: Client) -> None:
    resident = str(public_id(database))

    def use() -> None:
        assert len(list(client.every(client.list_residents, limit=1))) == 2
        page = client.list_measurements(resident, sign=["body_weight"], limit=5)
        assert [item["sign"] for item in page["items"]] == ["body_weight"]
        assert client.read_latest(resident)["blood_pressure"]["latest"]["device"]
        begin, end = NOON.isoformat(), NOON.replace(hour=5).isoformat()
        series = client.read_series(resident, from_=begin, to=end, width="hour")
        assert series["signs"]["blood_pressure"]["count"] == [1]
        assert client.read_copy(resident)[:2] == b"PK"

    await asyncio.to_thread(use)


async def test_it_writes_once_with_a_key(database: str, client: Client) -> None:
    resident = str(public_id(database, OTHER_RESIDENT))

    def use() -> None:
        for _ in range(2):
            done = client.write_link(
                {"device": "C0:26:DA:01:02:03", "user_slot": 9, "resident": resident},
                idempotency_key="a-key-of-my-own",
            )
            assert done == {"done": True}
        targets = client.write_targets(resident, {"targets": {"systolic_mmhg": {"high": 130}}})
        assert targets["targets"]["systolic_mmhg"]["high"] == 130

    await asyncio.to_thread(use)


async def test_a_refusal_is_an_error_with_the_problems_words(client: Client) -> None:
    with pytest.raises(ApiError, match="没有这位居民") as refused:
        await asyncio.to_thread(client.read_resident, "00000000-0000-0000-0000-000000000000")
    assert refused.value.status == 404


async def test_it_follows_live_events(database: str, client: Client) -> None:
    events = client.follow(resident=[str(public_id(database))])
    first = await asyncio.to_thread(next, events)
    assert first.name == "ready"
    await store(database, a_pressure(at=NOON.replace(minute=30)), sequence=2)
    reading = await asyncio.to_thread(next, events)
    assert reading.data["measurement"]["sign"] == "blood_pressure"
    assert reading.last_id
    events.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_connection_of_ones_own_is_used() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"signs": [], "absences": [], "time_qualities": []})

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://api")
    assert Client("http://api", "t0ken", http).read_signs()["signs"] == []
    assert seen == ["Bearer t0ken"]
