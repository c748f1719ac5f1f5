"""The uplink against a real Mosquitto: nothing is forgotten without its receipt, come what may."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.counts import Counts
from edge.outbox import Limits, Tally
from edge.storage import Storage, StorageSettings, open_storage
from edge.uplink import Patience, Uplink, UplinkSettings
from edge.window import WINDOW_BATCHES
from gateway import wire
from gateway.cli.admin.resend import ask_to_resend
from gateway.errors import UnavailableError, UsageError
from gateway.hub_state import Trouble, decode_device_states
from gateway.platform import mqtt
from gateway.platform.backoff import Backoff
from gateway.platform.broker_address import BrokerAccess, BrokerAddress, broker_address
from gateway.platform.embedded.broker import Broker
from tests.fixtures.mqtt_client import WITHIN_S
from tests.fixtures.processes import gate_of
from tests.hub_agent import until
from tests.outboxes import HUB, measurement

pytestmark = pytest.mark.integration

NAME = wire.hub_name(HUB)
DEVICE = 0xC026DA010203
BATCH, STATE = wire.topic(HUB, wire.Channel.BATCH), wire.topic(HUB, wire.Channel.STATE)
HURRY = Patience(
    receipt=Backoff(first_s=0.3, longest_s=1.0),
    reconnect=Backoff(first_s=0.05, longest_s=0.2),
    refused=Backoff(first_s=0.1, longest_s=0.2),
    taken_over_s=60.0,
)


@dataclass(slots=True, kw_only=True)
class Ingest:
    """Stands in for ingest: notes what arrives, and answers as a test wishes."""

    session: mqtt.Session
    answers: Callable[[wire.Header], bool] = field(default=lambda _header: True)
    """Whether a batch gets its receipt at once."""
    epoch_told: int | None = None
    batches: list[wire.Header] = field(default_factory=list)
    states: list[dict[str, object]] = field(default_factory=list)

    async def run(self) -> None:
        self.session.subscribe([BATCH, STATE])
        while True:
            match await self.session.next_event(None):
                case mqtt.Arrived(topic=topic, payload=payload) if topic == STATE:
                    self.states.append(json.loads(payload))
                case mqtt.Arrived(payload=payload):
                    header, _body = wire.decode_batch(payload)
                    self.batches.append(header)
                    if self.answers(header):
                        self.receipt(header)

    def receipt(self, header: wire.Header) -> None:
        epoch = self.epoch_told or header.epoch
        receipt = wire.Receipt(
            epoch=epoch, sequence=header.sequence, stored=header.count, duplicate=0, quarantined=0
        )
        topic = wire.topic(HUB, wire.Channel.RECEIPT)
        self.session.publish(topic, wire.encode_receipts(epoch, [receipt]))

    @property
    def sequences(self) -> list[int]:
        return [header.sequence for header in self.batches]


@asynccontextmanager
async def ingest_at(broker: Broker, client_id: str = "test-ingest") -> AsyncIterator[Ingest]:
    identity = mqtt.Identity(
        client_id=client_id, expiry_s=3600, will=mqtt.Will(topic="unused", payload=b"")
    )
    async with mqtt.connect(broker.access().address(), identity) as session:
        ingest = Ingest(session=session)
        running = asyncio.create_task(ingest.run())
        try:
            yield ingest
        finally:
            running.cancel()
            await asyncio.wait({running})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    storage: Storage
    uplink: Uplink
    counts: Counts

    async def keep(self, *numbers: int) -> None:
        """Keep one measurement each, in a batch each."""
        for number in numbers:
            await self.storage.append([measurement(number)])

    async def is_drained(self) -> None:
        await until(lambda: self.storage.depth.held == 0)


@asynccontextmanager
async def hub_at(
    folder: Path, address: Callable[[], BrokerAddress], patience: Patience = HURRY
) -> AsyncIterator[Hub]:
    counts = Counts()
    storage_settings = StorageSettings(
        path=folder / "outbox.sqlite", hub=HUB, limits=Limits(batch_records=1), batch_age_s=0.0
    )
    async with open_storage(storage_settings, counts) as storage:
        settings = UplinkSettings(
            hub=HUB, started_at=datetime.now(UTC), broker=address, patience=patience
        )
        uplink = Uplink(settings, storage, counts, lambda: {DEVICE: Trouble.PAIRING_REFUSED})
        running = {asyncio.create_task(storage.run()), asyncio.create_task(uplink.run())}
        try:
            yield Hub(storage=storage, uplink=uplink, counts=counts)
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            for task in running:
                if not task.cancelled():
                    task.result()


def address_of(broker: Broker, user: str = NAME) -> Callable[[], BrokerAddress]:
    return broker.access(user).address


async def test_a_batch_is_forgotten_on_its_receipt_and_not_before(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with ingest_at(broker) as ingest, hub_at(tmp_path, address_of(broker)) as hub:
        ingest.answers = lambda _header: False
        await hub.keep(1)
        await until(lambda: len(ingest.batches) >= 2)
        assert hub.storage.depth.batches == 1
        ingest.receipt(ingest.batches[0])
        await hub.is_drained()
    assert hub.counts.receipts == 1


async def test_batches_arrive_in_order_and_a_backlog_is_drained(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    count = 5 * WINDOW_BATCHES
    async with hub_at(tmp_path, address_of(broker)) as hub:
        async with ingest_at(broker):  # the broker knows its subscription from now on
            await hub.keep(0)
            await hub.is_drained()
        await hub.keep(*range(1, count))
        async with ingest_at(broker) as ingest:
            await hub.is_drained()
            first_seen = list(dict.fromkeys(ingest.sequences))
    assert first_seen == list(range(2, count + 1))


async def test_a_lost_receipt_is_asked_for_by_sending_again(broker: Broker, tmp_path: Path) -> None:
    broker.admit(NAME)
    async with ingest_at(broker) as ingest, hub_at(tmp_path, address_of(broker)) as hub:
        ingest.answers = lambda header: ingest.sequences.count(header.sequence) > 1
        await hub.keep(*range(10))
        await hub.is_drained()
    assert hub.counts.published_again >= 10
    assert set(ingest.sequences) == set(range(1, 11))


async def test_while_ingest_is_down_a_window_is_not_sent_again_and_again(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with ingest_at(broker) as ingest, hub_at(tmp_path, address_of(broker)) as hub:
        ingest.answers = lambda _header: False
        await hub.keep(*range(10))
        await until(lambda: ingest.sequences.count(1) >= 4)
        assert ingest.sequences.count(2) == 1
        assert ingest.sequences.count(10) == 1


async def test_receipts_of_another_epoch_remove_nothing(broker: Broker, tmp_path: Path) -> None:
    broker.admit(NAME)
    async with ingest_at(broker) as ingest, hub_at(tmp_path, address_of(broker)) as hub:
        ingest.epoch_told = 12345
        await hub.keep(1)
        await until(lambda: hub.counts.receipts_unknown > 0)
        assert hub.storage.depth.batches == 1
        ingest.epoch_told = None
        await hub.is_drained()


async def test_rubbish_on_the_receipt_topic_is_counted_and_harmless(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with ingest_at(broker) as ingest, hub_at(tmp_path, address_of(broker)) as hub:
        await until(lambda: bool(ingest.states))  # sent behind its subscription
        beyond = wire.Receipt(epoch=7, sequence=1 << 63, stored=1, duplicate=0, quarantined=0)
        for rubbish in (b"no receipts", wire.encode_receipts(7, [beyond])):
            ingest.session.publish(wire.topic(HUB, wire.Channel.RECEIPT), rubbish)
        await hub.keep(1)
        await hub.is_drained()
        await until(lambda: hub.counts.messages_ignored == 2)


async def test_without_a_subscriber_the_hub_keeps_what_the_broker_acknowledged(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with hub_at(tmp_path, address_of(broker)) as hub:
        await hub.keep(1)
        await until(lambda: hub.counts.unheard > 0)
        assert hub.storage.depth.batches == 1
        async with ingest_at(broker):
            await hub.is_drained()


async def test_a_broker_that_is_killed_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    """Its sessions and queues are gone, whatever it had acknowledged."""
    broker.admit(NAME)
    async with hub_at(tmp_path, address_of(broker)) as hub:
        for first in (0, 100, 200):
            async with ingest_at(broker) as ingest:
                ingest.answers = lambda header: header.sequence % 3 == 0
                await hub.keep(*range(first, first + 20))
                await until(lambda: hub.counts.published > 0 and hub.uplink.is_connected)
                await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
        async with ingest_at(broker):
            await hub.is_drained()
        tallies = await hub.storage.tallies()
    assert tallies[Tally.BATCHES_SEALED] == tallies[Tally.BATCHES_RECEIPTED] == 60
    assert hub.counts.connection_failures >= 3


async def test_a_gate_that_is_killed_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    broker.admit(NAME)
    async with hub_at(tmp_path, address_of(broker)) as hub, ingest_at(broker) as ingest:
        ingest.answers = lambda header: header.sequence % 3 == 0
        for first in (0, 100, 200):
            await hub.keep(*range(first, first + 20))
            await until(lambda: hub.counts.published > 0 and hub.uplink.is_connected)
            os.kill(gate_of(broker), signal.SIGKILL)
            await until(broker.needs_restart)
            await asyncio.to_thread(broker.restart)
        ingest.answers = lambda _header: True
        await hub.is_drained()
        tallies = await hub.storage.tallies()
    assert tallies[Tally.BATCHES_SEALED] == tallies[Tally.BATCHES_RECEIPTED] == 60
    assert hub.counts.connection_failures >= 3


async def test_receipts_that_came_while_the_hub_was_away_are_waiting_for_it(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with ingest_at(broker) as ingest:
        ingest.answers = lambda _header: False
        async with hub_at(tmp_path, address_of(broker)) as hub:
            await hub.keep(1)
            await until(lambda: len(ingest.batches) > 0)
        ingest.receipt(ingest.batches[0])
        seen = len(ingest.batches)
        async with hub_at(tmp_path, address_of(broker)) as hub:
            await hub.is_drained()
        assert len(ingest.batches) - seen <= 1


async def test_a_hub_that_is_not_enrolled_waits_until_it_is(broker: Broker, tmp_path: Path) -> None:
    async with ingest_at(broker), hub_at(tmp_path, address_of(broker)) as hub:
        await hub.keep(1)
        await until(lambda: hub.counts.connection_failures > 1)
        assert hub.counts.connections == 0
        await asyncio.to_thread(broker.admit, NAME)
        await hub.is_drained()


async def test_a_setting_that_became_unreadable_is_waited_for(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    missing = [True]

    def address() -> BrokerAddress:
        if missing[0]:
            raise UsageError("the certificate is gone")
        return broker.access(NAME).address()

    async with ingest_at(broker), hub_at(tmp_path, address) as hub:
        await hub.keep(1)
        await until(lambda: hub.counts.connection_failures > 1)
        missing[0] = False
        await hub.is_drained()


async def test_what_the_broker_forbids_is_kept_and_counted(broker: Broker, tmp_path: Path) -> None:
    """The hub logs in as another one: its own topics are not that one's to write."""
    other = wire.hub_name(HUB + 1)
    broker.admit(NAME, other)
    async with ingest_at(broker):
        async with hub_at(tmp_path, address_of(broker, other)) as hub:
            await hub.keep(1)
            await until(lambda: hub.counts.refused > 1)
            assert hub.storage.depth.batches == 1
        async with hub_at(tmp_path, address_of(broker)) as hub:
            await hub.is_drained()


async def test_the_state_is_retained_and_says_when_the_hub_is_gone(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with hub_at(tmp_path, address_of(broker)) as hub:
        await until(lambda: hub.uplink.is_connected)
        async with ingest_at(broker, "late") as ingest:
            await until(lambda: len(ingest.states) > 0)
            (state,) = ingest.states
            assert state["online"] is True
            assert (state["hub"], state["epoch"]) == (NAME, hub.storage.epoch)
            assert state["outbox"] == {"entries": 0, "batches": 0, "records": 0}
            told = decode_device_states(json.dumps(state).encode())
            assert told is not None
            assert told.devices == {DEVICE: Trouble.PAIRING_REFUSED}
    async with ingest_at(broker, "later") as ingest:
        await until(lambda: len(ingest.states) > 0)
        assert ingest.states[0]["online"] is False
        assert decode_device_states(json.dumps(ingest.states[0]).encode()) is None


async def test_a_hub_that_is_cut_off_by_its_double_does_not_fight_back(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with hub_at(tmp_path / "first", address_of(broker)) as first:
        await until(lambda: first.uplink.is_connected)
        async with ingest_at(broker), hub_at(tmp_path / "second", address_of(broker)) as second:
            await until(lambda: first.counts.connection_failures == 1)
            await second.keep(1)
            await second.is_drained()
        assert first.counts.connections == 1


async def test_a_session_ends_with_an_error_that_says_why(broker: Broker) -> None:
    identity = mqtt.Identity(client_id="x", expiry_s=0, will=mqtt.Will(topic="unused", payload=b""))
    without = BrokerAccess(url=broker.access().url, ca_file=broker.access().ca_file)
    with pytest.raises(mqtt.RefusedError, match="refuses our certificate"):
        async with mqtt.connect(without.address(), identity):
            pass
    nowhere = broker_address("mqtt://127.0.0.1:1")
    with pytest.raises(UnavailableError, match="refused"):
        async with mqtt.connect(nowhere, identity):
            pass


async def test_a_refusal_that_comes_before_our_first_bytes_is_told_as_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    handshake = mqtt.TellingSocket.do_handshake

    def and_wait_for_the_end(self: mqtt.TellingSocket, block: bool = False) -> None:  # noqa: FBT001, FBT002 - ssl's
        handshake(self, block)
        poll = select.poll()
        poll.register(self, select.POLLRDHUP)
        assert poll.poll(1000 * WITHIN_S)

    monkeypatch.setattr(mqtt.TellingSocket, "do_handshake", and_wait_for_the_end)
    identity = mqtt.Identity(client_id="x", expiry_s=0, will=None)
    without = BrokerAccess(url=broker.access().url, ca_file=broker.access().ca_file)
    for _ in range(10):
        with pytest.raises(mqtt.RefusedError, match="refuses our certificate"):
            async with mqtt.connect(without.address(), identity):
                pass


async def test_connecting_can_be_cancelled(broker: Broker) -> None:
    identity = mqtt.Identity(client_id="x", expiry_s=0, will=mqtt.Will(topic="unused", payload=b""))

    async def connect() -> None:
        async with mqtt.connect(broker.access().address(), identity):
            await asyncio.Event().wait()

    for _ in range(5):
        connecting = asyncio.create_task(connect())
        await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait({connecting})
        assert connecting.cancelled()


async def test_what_a_restored_store_asks_for_comes_again(broker: Broker, tmp_path: Path) -> None:
    """Also where the hub was away when it was asked; and only once, though the request stays."""
    broker.admit(NAME)
    async with ingest_at(broker) as ingest:
        async with hub_at(tmp_path, address_of(broker)) as hub:
            await hub.keep(1, 2)
            await hub.is_drained()
        seen = len(ingest.batches)
        await ask_to_resend(broker.access(), [NAME], datetime.now(UTC))
        for _connection in range(2):
            async with hub_at(tmp_path, address_of(broker)) as hub:
                await until(lambda: len(ingest.batches) >= seen + 2)
                await hub.is_drained()
                tallies = await hub.storage.tallies()
        assert ingest.sequences[seen:] == [1, 2]
        assert (tallies[Tally.BATCHES_RESENT], tallies[Tally.STORED]) == (2, 2)


async def test_rubbish_on_the_config_topic_is_counted_and_harmless(
    broker: Broker, tmp_path: Path
) -> None:
    broker.admit(NAME)
    async with ingest_at(broker) as ingest, hub_at(tmp_path, address_of(broker)) as hub:
        await until(lambda: bool(ingest.states))  # sent behind its subscription
        ingest.session.publish(wire.topic(HUB, wire.Channel.CONFIG), b"no request")
        await until(lambda: hub.counts.messages_ignored == 1)
        await hub.keep(1)
        await hub.is_drained()
