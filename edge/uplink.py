"""The uplink: drains the outbox over MQTT and forgets a batch only on its receipt.

Up: batches (QoS 1) and a retained state; down: receipts. PUBACK is flow control and a hint, never a
receipt: brokers lose what they have acknowledged (DECISIONS.md). Runs for ever; whatever is down,
it backs off and comes back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from edge.counts import Counts
from edge.storage import Storage
from edge.window import RECEIPT_WAIT, Window
from gateway import __version__, wire
from gateway.errors import DecodeError, UnavailableError, UsageError
from gateway.hub_state import Trouble, devices_part
from gateway.platform import mqtt
from gateway.platform.backoff import Backoff
from gateway.platform.broker_address import BrokerAddress
from gateway.platform.logs import get_logger
from gateway.resend import decode_resend

SESSION_EXPIRY_S = 24 * 3600
"""How long the broker keeps receipts for a hub that is away. Beyond, the batches are sent again."""
RECONNECT = Backoff(first_s=1.0, longest_s=60.0)
"""Between attempts to connect to a broker that is away."""
RECONNECT_REFUSED = Backoff(first_s=10.0, longest_s=300.0)
"""The same where the broker refuses us: a person has to act, which takes longer."""
TAKEN_OVER_S = 300.0
"""Pause after another process connected as this hub: coming back at once would cut it off."""
STABLE_S = 30.0
"""A connection that held this long was a good one: the next back-off starts anew."""
STATE_INTERVAL_S = 60.0
"""The state is published at most this often, and only when it has changed."""

Connect = Callable[[BrokerAddress, mqtt.Identity], AbstractAsyncContextManager[mqtt.Session]]
"""Opens a session: `mqtt.connect`, or one that misbehaves (bench.chaos)."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the uplink waits for what. Trying never ends; the outbox keeps everything."""

    receipt: Backoff = RECEIPT_WAIT
    reconnect: Backoff = RECONNECT
    refused: Backoff = RECONNECT_REFUSED
    taken_over_s: float = TAKEN_OVER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkSettings:
    """Which hub, since when, and where to. `broker` is asked at each connection."""

    hub: int
    started_at: datetime
    broker: Callable[[], BrokerAddress]
    patience: Patience = Patience()
    connect: Connect = mqtt.connect


class Uplink:
    """The uplink of one hub. `devices`: how it gets on with each of them (edge.troubles)."""

    def __init__(
        self,
        settings: UplinkSettings,
        storage: Storage,
        counts: Counts,
        devices: Callable[[], Mapping[int, Trouble | None]] = dict,
    ) -> None:
        self._settings = settings
        self._devices = devices
        self._began_s = time.monotonic()
        self._storage = storage
        self._counts = counts
        self._window = Window(settings.patience.receipt)
        self._epoch = storage.epoch
        self._is_behind = True
        """The outbox may hold batches that are not in the window."""
        self._last_state: dict[str, object] = {}
        self._state_due_s = 0.0
        self._log = _log.bind(hub=wire.hub_name(settings.hub))
        self.is_connected = False

    async def run(self) -> None:
        """Connect, drain, and connect again, until cancelled."""
        failures = 0
        while True:
            began_s = _now_s()
            try:
                async with self._settings.connect(
                    self._settings.broker(), self._identity()
                ) as session:
                    await self._converse(session)
            except (UnavailableError, UsageError) as error:
                failures = 1 if _now_s() - began_s >= STABLE_S else failures + 1
                wait_s = self._pause_after_s(error, failures)
                self._counts.connection_failures += 1
                self._log.warning("uplink_down", why=str(error), wait_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)

    async def _converse(self, session: mqtt.Session) -> None:
        """Publish what is due and take what comes, until the session breaks."""
        session.subscribe([self._topic(wire.Channel.RECEIPT), self._topic(wire.Channel.CONFIG)])
        self._window.reconnected(is_resumed=session.is_resumed)
        self._counts.connections += 1
        self._log.info("uplink_up", is_resumed=session.is_resumed)
        self._is_behind = True
        self._last_state = {}
        self._state_due_s = _now_s()

        def on_sealed() -> None:
            self._is_behind = True
            session.wake()

        self._storage.on_sealed = on_sealed
        self.is_connected = True
        try:
            while True:
                await self._fill()
                self._publish_due(session)
                await self._publish_state(session)
                await self._take(await session.next_event(self._pause_s()))
        finally:
            self.is_connected = False

    async def _fill(self) -> None:
        """Take further batches into the window, as far as there are any and it has room."""
        if self._epoch != self._storage.epoch:
            self._epoch = self._storage.epoch
            self._window.begin_anew()
            self._is_behind = True
        room = self._window.room
        if self._is_behind and room:
            self._is_behind = False
            batches = await self._storage.next_batches(
                after=self._window.last_id, in_flight=self._window.in_flight, limit=room
            )
            self._window.add(batches)
            self._is_behind = self._is_behind or len(batches) == room

    def _publish_due(self, session: mqtt.Session) -> None:
        for batch in self._window.due(_now_s()):
            mid = session.publish(self._topic(wire.Channel.BATCH), batch.message)
            is_again = self._window.sent(batch, mid, _now_s())
            self._counts.published += 1
            self._counts.published_again += is_again

    async def _publish_state(self, session: mqtt.Session) -> None:
        """Publish, retained, how the hub is: numbers, versions, and which devices are in trouble."""
        if _now_s() < self._state_due_s:
            return
        self._state_due_s = _now_s() + STATE_INTERVAL_S
        state = {
            **self._head(is_online=True),
            "outbox": asdict(self._storage.depth),
            "since_file_was_made": await self._storage.tallies(),
            "since_start": self._counts.as_numbers(),
            "devices": devices_part(self._devices()),
        }
        if state != self._last_state:
            self._last_state = state
            told = state | {
                "reported_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "uptime_s": round(time.monotonic() - self._began_s, 3),
            }
            session.publish(self._topic(wire.Channel.STATE), json.dumps(told).encode(), retain=True)

    async def _take(self, event: mqtt.Event | None) -> None:
        match event:
            case mqtt.Published(is_refused=True, reason=reason):
                self._counts.refused += 1
                self._log.error("publish_refused", why=reason)
            case mqtt.Published(mid=mid, has_subscriber=has_subscriber):
                self._counts.unheard += not has_subscriber
                self._window.accepted(mid)
            case mqtt.Arrived(topic=topic, payload=payload):
                if topic == self._topic(wire.Channel.CONFIG):
                    await self._take_request(payload)
                else:
                    await self._take_receipts(payload)
            case None:
                pass

    async def _take_receipts(self, payload: bytes) -> None:
        try:
            receipts = wire.decode_receipts(payload)
        except DecodeError as error:
            self._counts.messages_ignored += 1
            self._log.warning("no_receipts", why=str(error))
            return
        try:
            removed = await self._storage.receipted(receipts)
        except UnavailableError as error:
            # The disk is full or failing: the batches stay, and are sent and receipted again.
            self._log.warning("receipts_not_noted", why=str(error))
            return
        self._window.receipted([(r.epoch, r.sequence) for r in receipts], _now_s())
        self._counts.receipts += len(removed)
        self._counts.receipts_unknown += len(receipts) - len(removed)
        self._is_behind = True

    async def _take_request(self, payload: bytes) -> None:
        """Send again what was asked for; a request that was met is retained, and harmless."""
        try:
            resent = await self._storage.resend(decode_resend(payload))
        except DecodeError as error:
            self._counts.messages_ignored += 1
            self._log.warning("no_request", why=str(error))
            return
        except UnavailableError as error:
            self._log.warning("request_put_off", why=str(error))
            return
        if resent is not None:
            self._log.warning("resending", batches=resent)
            self._is_behind = True

    def _pause_s(self) -> float:
        """Return how long nothing has to be done, if nothing happens."""
        wake_s = self._window.wake_s()
        until_s = self._state_due_s if wake_s is None else min(wake_s, self._state_due_s)
        return max(until_s - _now_s(), 0.0)

    def _pause_after_s(self, error: UnavailableError | UsageError, failures: int) -> float:
        patience = self._settings.patience
        match error:
            case mqtt.TakenOverError():
                return patience.taken_over_s
            case mqtt.RefusedError() | UsageError():
                return patience.refused.wait_s(failures)
            case _:
                return patience.reconnect.wait_s(failures)

    def _identity(self) -> mqtt.Identity:
        will = json.dumps(self._head(is_online=False)).encode()
        return mqtt.Identity(
            client_id=wire.hub_name(self._settings.hub),
            expiry_s=SESSION_EXPIRY_S,
            will=mqtt.Will(topic=self._topic(wire.Channel.STATE), payload=will),
        )

    def _head(self, *, is_online: bool) -> dict[str, object]:
        return {
            "online": is_online,
            "hub": wire.hub_name(self._settings.hub),
            "version": __version__,
            "epoch": self._storage.epoch,
            "started_at": self._settings.started_at.isoformat(timespec="seconds"),
        }

    def _topic(self, channel: wire.Channel) -> str:
        return wire.topic(self._settings.hub, channel)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
