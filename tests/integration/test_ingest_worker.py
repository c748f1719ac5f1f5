"""The ingest service as its own process, over the real broker and the real database."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bench.chaos.proxy import Network
from gateway import wire
from gateway.hub_state import Trouble, devices_part
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.database import Database
from gateway.platform.embedded.packages import Packages
from ingest.batches import Message
from ingest.leases import BROKER_AWAY_S_MAX, PERIOD_S
from ingest.ledger import read_ledger
from ingest.migrations import migrate
from ingest.verdicts import Verdict
from tests.fixtures.database import make_timescale
from tests.fixtures.servers import reachable_folder
from tests.fixtures.workers import WITHIN_S, HubClient, Workers, a_hub, eventually
from tests.worlds import (
    CUFF,
    EPOCH,
    HUB,
    NOON,
    OTHER_HUB,
    SCALE,
    a_message,
    a_pressure,
    a_weight,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration


def batches(count: int, first: int = 1) -> list[Message]:
    """Batches of one reading each, a minute apart."""
    return [
        a_message(a_pressure(at=NOON + timedelta(minutes=sequence)), sequence=sequence)
        for sequence in range(first, first + count)
    ]


def stored(database: str) -> int:
    ((count,),) = query(database, "SELECT count(*) FROM measurement")
    return int(count)


def test_a_batch_gets_its_receipt_after_it_is_committed(workers: Workers) -> None:
    workers.start()
    with a_hub(workers.broker) as hub:
        hub.publish(a_message(a_pressure(), a_weight(), sequence=1))
        receipt = hub.receipts()[1]
    assert (receipt.epoch, receipt.stored, receipt.quarantined) == (EPOCH, 2, 0)
    assert stored(workers.database) == 2


def test_what_is_published_before_the_first_worker_starts_is_stored(workers: Workers) -> None:
    """The broker has no session to keep it for and says so; the hub repeats."""
    with a_hub(workers.broker) as hub:
        hub.publish(*batches(3))
        workers.start()
        assert set(hub.receipts()) == {1, 2, 3}
    assert stored(workers.database) == 3


def test_what_is_published_while_no_worker_runs_waits_at_the_broker(workers: Workers) -> None:
    with a_hub(workers.broker) as hub:
        workers.start()
        hub.publish(*batches(1))
        hub.receipts()
        workers.running[0].kill()
        hub.publish(*batches(50, first=2))
        workers.start()
        eventually(lambda: stored(workers.database) == 51)


@pytest.mark.parametrize("hub_bytes_per_s", [16 << 20])
def test_rubbish_is_counted_and_kept_apart_and_the_service_goes_on(workers: Workers) -> None:
    worker = workers.start()
    good = a_message(a_pressure(), sequence=1)
    rubbish = [
        os.urandom(300),
        b"",
        good.payload[:-1],
        good.payload[:4] + b"\x09" + good.payload[5:],
        a_message(a_pressure(), hub=OTHER_HUB).payload,
        bytes(10_000_000),
    ]
    with a_hub(workers.broker) as hub:
        hub.publish(good)
        hub.receipts()
        for each in rubbish:
            hub.send(each)
        hub.publish(a_message(a_weight(), sequence=2))
        assert hub.receipts()[1].stored == 1
    eventually(lambda: read_ledger(workers.database).rejected == len(rubbish))
    assert worker.is_alive()
    assert read_ledger(workers.database).balanced


def test_what_a_hub_tells_of_its_devices_is_kept_also_from_before_the_worker(
    workers: Workers,
) -> None:
    """Retained, so that a worker that starts later learns it too; other homes' devices are not its."""

    def tell(hub: HubClient, uptime_s: float, **devices: Trouble | None) -> None:
        told = {
            "started_at": NOON.isoformat(),
            "uptime_s": uptime_s,
            "devices": devices_part({CUFF: devices["cuff"], SCALE: None, 0xBADBADBADBAD: None}),
        }
        hub.tell(json.dumps(told).encode())

    kept = "SELECT device_id, trouble FROM hub_device WHERE hub_id = 1 ORDER BY device_id"
    with a_hub(workers.broker) as hub, a_hub(workers.broker, OTHER_HUB) as other:
        tell(hub, 1.0, cuff=Trouble.BOND_LOST)
        tell(other, 1.0, cuff=Trouble.UNREACHABLE)
        workers.start()
        eventually(lambda: query(workers.database, kept) == [(11, "bond-lost"), (12, None)])
        hub.tell(b"no state")
        tell(hub, 10**400, cuff=None)
        hub.tell(b'{"online": false}')
        tell(hub, 2.0, cuff=None)
        eventually(lambda: query(workers.database, kept) == [(11, None), (12, None)])
        hub.publish(*batches(1))
        assert hub.receipts()[1].stored == 1
    assert query(workers.database, "SELECT count(*) FROM hub_device") == [(2,)]


def test_a_senml_pack_goes_the_way_of_a_batch(workers: Workers) -> None:
    """Stored, kept apart, a duplicate, receipted and in the ledger, as what our own hubs send."""
    at_s = NOON.timestamp()
    hub_urn, cuff = f"hearth:{wire.hub_name(HUB)}:", "urn:dev:mac:c026dafffe010203:"

    def pack(sequence: int, systolic: str, *more: str) -> bytes:
        records = [
            f'{{"n": "{hub_urn}epoch", "v": {EPOCH}}}',
            f'{{"n": "{hub_urn}sequence", "v": {sequence}}}',
            f'{{"bn": "{cuff}", "bt": {at_s}, "bu": "mm[Hg]", "n": "systolic_mmhg", "v": {systolic}}}',
            *more,
        ]
        return f"[{', '.join(records)}]".encode()

    diastolic = '{"n": "diastolic_mmhg", "v": 82}'
    impossible = '{"n": "systolic_mmhg", "t": 60, "v": 999}'
    stranger = f'{{"bn": "{cuff[:-2]}f:", "n": "systolic_mmhg", "t": 60, "v": 120}}'
    workers.start()
    with a_hub(workers.broker) as hub:
        hub.publish_pack(1, pack(1, "128.50", diastolic, impossible, stranger))
        hub.receipts()
        hub.send(pack(3, '"128"'))
        hub.publish_pack(2, pack(2, "128.50", diastolic))
        receipts = hub.receipts()
    eventually(lambda: read_ledger(workers.database).rejected == 1)
    terms = [(r.stored, r.duplicate, r.quarantined) for _n, r in sorted(receipts.items())]
    assert terms == [(1, 0, 2), (0, 1, 0)]
    assert query(workers.database, "SELECT resident_id, measured_at, systolic_mmhg, diastolic_mmhg,"
                                   " digits & 255 FROM measurement") == [
        (101, NOON, 128.5, 82.0, 256 - 2)
    ]  # fmt: skip
    assert query(workers.database, "SELECT reason FROM quarantine ORDER BY reason") == [
        (Verdict.DEVICE_UNKNOWN,), (Verdict.IMPLAUSIBLE,), (Verdict.NO_BATCH,),
    ]  # fmt: skip
    assert read_ledger(workers.database).balanced


def test_workers_share_the_lanes_and_a_dead_ones_pass_on(workers: Workers) -> None:
    first = workers.start()
    eventually(workers.all_lanes_are_held)
    second = workers.start()
    eventually(lambda: sorted(workers.lanes_of().values()) == [wire.LANES // 2] * 2)
    first.kill()
    eventually(lambda: list(workers.lanes_of().values()) == [wire.LANES])
    with a_hub(workers.broker) as hub:
        hub.publish(*batches(5))
        hub.receipts()
    assert second.is_alive()


async def test_a_worker_that_reaches_only_the_database_leaves_its_lanes_until_the_broker_is_back(
    workers: Workers,
) -> None:
    """Its way to the broker is cut, and nothing new gets through."""
    access = workers.broker.access()
    port = access.address().port
    half = [wire.LANES // 2] * 2
    network = Network(lambda: port)
    async with network.open():
        workers.start()
        apart = workers.start(
            replace(access, url=access.url.replace(f":{port}", f":{network.port}"))
        )
        await asyncio.to_thread(eventually, lambda: sorted(workers.lanes_of().values()) == half)
        network.weather.is_refusing = True
        network.cut()
        alone = BROKER_AWAY_S_MAX + WITHIN_S
        await asyncio.to_thread(
            eventually, lambda: list(workers.lanes_of().values()) == [wire.LANES], alone
        )
        await asyncio.to_thread(send_and_await, workers)
        network.weather.is_refusing = False
        await asyncio.to_thread(eventually, lambda: sorted(workers.lanes_of().values()) == half)
        apart.kill()
        await asyncio.sleep(PERIOD_S)  # its connections end before the network does


def send_and_await(workers: Workers) -> None:
    with a_hub(workers.broker) as hub, a_hub(workers.broker, OTHER_HUB) as other:
        hub.publish(*batches(5))
        other.publish(a_message(sequence=1, hub=OTHER_HUB))
        hub.receipts()
        other.receipts()


def test_a_worker_without_company_keeps_its_lanes_while_the_broker_is_away(
    workers: Workers,
) -> None:
    workers.start()
    eventually(workers.all_lanes_are_held)
    workers.broker.kill()
    time.sleep(BROKER_AWAY_S_MAX + 3 * PERIOD_S)
    assert workers.all_lanes_are_held()


def test_a_worker_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    workers: Workers,
) -> None:
    with a_hub(workers.broker) as hub:
        workers.start()
        eventually(workers.all_lanes_are_held)
        for round_ in range(3):
            hub.publish(*batches(100, first=1 + 100 * round_))
            workers.running[-1].kill()
            workers.start()
        hub.receipts()
    ledger = read_ledger(workers.database)
    assert ledger.balanced
    assert (ledger.total("published"), ledger.total("stored")) == (300, 300)


def test_the_broker_may_die_and_come_back(workers: Workers) -> None:
    workers.start()
    eventually(workers.all_lanes_are_held)
    with a_hub(workers.broker) as hub:
        hub.publish(*batches(5))
        hub.receipts()
    workers.broker.kill()
    workers.broker.start()
    with a_hub(workers.broker) as hub:
        hub.publish(*batches(5, first=6))
        hub.receipts()
    assert stored(workers.database) == 10
    assert read_ledger(workers.database).balanced


@pytest.fixture
def own_database(packages: Packages) -> Iterator[Database]:
    """A database server of the test's own, to be killed."""
    with reachable_folder() as folder, Database(folder, packages) as running:
        make_timescale_if_lacking(running)
        migrate(running.url())
        yield running


def make_timescale_if_lacking(server: Database) -> None:
    if not query(server.url(), "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'"):
        make_timescale(server, "hearth")


def test_the_database_may_die_and_come_back(
    own_database: Database, broker: Broker, tmp_path: Path
) -> None:
    enter_registry(own_database.url())
    workers = Workers(own_database.url(), broker, tmp_path)
    worker = workers.start()
    try:
        with a_hub(broker) as hub:
            hub.publish(*batches(5))
            hub.receipts()
            own_database.kill()
            hub.publish(*batches(50, first=6))
            own_database.start()
            hub.receipts()
        assert worker.is_alive()
        assert stored(own_database.url()) == 55
        assert read_ledger(own_database.url()).balanced
    finally:
        worker.kill()


def test_what_waits_for_a_link_is_stored_when_the_link_comes(workers: Workers) -> None:
    workers.start()
    with a_hub(workers.broker) as hub:
        hub.publish(a_message(a_weight(slot=5), sequence=1))
        assert hub.receipts()[1].quarantined == 1
    query(workers.database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                            " VALUES (12, 5, 102, '(,)')")  # fmt: skip
    eventually(lambda: stored(workers.database) == 1)
    assert query(workers.database, "SELECT resident_id, measured_at FROM measurement") == [
        (102, NOON)
    ]
    assert read_ledger(workers.database).balanced


def test_an_entry_that_cannot_be_replayed_does_not_end_the_worker(workers: Workers) -> None:
    """As an earlier version kept it: received at a time that no date of Python's is."""
    worker = workers.start()
    with a_hub(workers.broker) as hub:
        hub.publish(a_message(a_weight(slot=5), sequence=1))
        assert hub.receipts()[1].quarantined == 1
        query(workers.database, "UPDATE quarantine SET received_at = '0091-03-27 BC'")
        query(workers.database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                                " VALUES (12, 5, 102, '(,)')")  # fmt: skip
        time.sleep(2.0)  # it has been tried
        hub.publish(a_message(a_weight(at=NOON + timedelta(minutes=1)), sequence=2))
        assert hub.receipts()[2].stored == 1
    assert worker.is_alive()


def test_a_hub_that_is_enrolled_while_the_worker_runs_is_heard(workers: Workers) -> None:
    workers.start()
    eventually(workers.all_lanes_are_held)
    query(
        workers.database,
        "INSERT INTO hub (hub_id, name, home_id)"
        " OVERRIDING SYSTEM VALUE VALUES (3, '00000000000000c3', 1)",
    )
    with a_hub(workers.broker, 0xC3) as hub:
        hub.publish(a_message(a_pressure(), hub=0xC3))
        hub.receipts()
    assert stored(workers.database) == 1
