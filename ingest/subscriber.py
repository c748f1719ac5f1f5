"""One lane's persistent MQTT 5 session: reads batches, acknowledges after COMMIT, sends receipts.

MQTT 5.0 (OASIS, 2019-03-07). The codec is `mqtt5`; the session is ours, because no client for
Python acknowledges by hand at this rate (DECISIONS.md has the figures). What it keeps to:

- the session outlives the connection: Clean Start 0, a named Session Expiry (3.1.2.11.2);
- with a session present the backlog comes before any SUBACK, so PUBLISH is read at once;
- PUBACKs go out in the order of arrival (4.6), and only of the connection that the message came by:
  a packet id means nothing on the next one. One exception: what is shed of a hub that is over its
  rate is acknowledged at once, past what waits for its COMMIT, since else it would fill the window
  and hold up the lane's other hubs. No broker that we know looks at the order;
- Receive Maximum (3.1.2.11.3) and a paused socket bound what is in memory;
- 0x8E (session taken over) ends it: another worker has the lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import cast

import mqtt5

from gateway import wire
from gateway.errors import UnavailableError, UsageError
from gateway.platform.backoff import Backoff
from gateway.platform.broker_address import BrokerAddress
from gateway.platform.logs import get_logger
from ingest import metrics
from ingest.batches import Message
from ingest.fairness import REJECTED_BYTES, is_like_a_batch

RECEIVE_MAX = 4096
"""Messages of a lane that the broker may have sent without their PUBACK; it holds back the rest. So
many that a round trip to the broker does not bound how fast a flood can be shed."""
SESSION_EXPIRY_S = 30 * 24 * 3600
"""How long the broker keeps a lane's backlog while no worker reads it; hubs keep theirs anyway."""
KEEP_ALIVE_S = 20
"""The broker drops a worker that is silent for one and a half times this."""
SILENT_PINGS_MAX = 2
"""A broker that answers none of so many pings is gone, even if TCP has not noticed."""
CONNECT_S_MAX = 10.0
"""A broker that does not answer CONNECT within this is down."""
BACKOFF = Backoff(first_s=0.1, longest_s=5.0)
PACKET_BYTES_MAX = 32 * 1024 * 1024
"""No broker of ours lets a larger packet through; one that does is not read further."""

MESSAGE_OVERHEAD_BYTES = 512
"""Counted for each message held, beside its payload: what Python needs for it."""

_log = get_logger(__name__)
_generations = count(1)
"""Of all lanes of this process: a lane that was given back and taken again is another `Lane`, and an
acknowledgement that was due to the former must not reach a message of the latter."""
_SERIAL_BITS = 40
_PUBLISH = 3
_STATE_LEVEL = f"/{wire.Channel.STATE.name.lower()}"
_FAILURE = 0x80
"""Reason codes from here on say that something was refused (2.4)."""
_HEADER_BYTES_MIN = 2


class LaneTakenError(Exception):
    """Another worker has taken the session of this lane over."""


@dataclass(slots=True)
class Intake:
    """What the lanes of a worker have read and not yet committed; bounded in bytes.

    Above `bytes_max` every lane stops reading its socket, below half of it they go on. What came by a
    connection that is gone counts too: the pipeline still has it.
    """

    bytes_max: int
    deliver: Callable[[Message], None]
    admits: Callable[[int | None, int], bool] = lambda _hub, _size: True
    """Whether so many bytes of a hub are taken; what is not is shed (ingest.fairness)."""
    tell: Callable[[int, bytes], None] = lambda _hub, _state: None
    """Takes what a hub says on its state topic (ingest.device_states); QoS 0, nothing is held."""
    bytes_held: int = 0
    paused: bool = False
    _lanes: set[Lane] = field(default_factory=set)
    _sizes: dict[int, int] = field(default_factory=dict)
    """Token -> bytes of each message that is held."""

    def took(self, token: int, size: int) -> None:
        """Count a message that was read."""
        self._sizes[token] = size
        self.bytes_held += size
        if not self.paused and self.bytes_held > self.bytes_max:
            self.paused = True
            for lane in self._lanes:
                lane.pause()

    def released(self, token: int) -> None:
        """Count a message that was committed."""
        self.bytes_held -= self._sizes.pop(token)
        if self.paused and self.bytes_held <= self.bytes_max // 2:
            self.paused = False
            for lane in self._lanes:
                lane.resume()

    def add(self, lane: Lane) -> None:
        """Let a lane's connection be paused with the others."""
        self._lanes.add(lane)
        if self.paused:
            lane.pause()

    def remove(self, lane: Lane) -> None:
        """Forget a lane's connection."""
        self._lanes.discard(lane)


class Lane:
    """The session of one lane, over one connection after the other."""

    def __init__(self, number: int, broker: Callable[[], BrokerAddress], intake: Intake) -> None:
        self.number = number
        self._broker = broker
        self._intake = intake
        self._generation = 0
        self._connection: _Connection | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the session."""
        return self._connection is not None and self._connection.subscribed.done()

    async def run(self) -> None:
        """Read until cancelled, connecting again whenever the broker is lost.

        Raises:
            LaneTakenError: another worker reads this lane now.
        """
        failures = 0
        while True:
            self._generation = next(_generations)
            try:
                await self._run_once()
                failures = 0
            except (UnavailableError, UsageError) as error:
                failures += 1
                wait_s = BACKOFF.wait_s(failures)
                _log.warning("lane_lost", lane=self.number, why=str(error), again_in_s=wait_s)
                await asyncio.sleep(wait_s)

    def acknowledge(self, token: int) -> None:
        """Release a committed message and send its PUBACK, unless its connection is gone."""
        self._intake.released(token)
        generation, serial = token >> _SERIAL_BITS, token & (1 << _SERIAL_BITS) - 1
        if self._connection is not None and generation == self._generation:
            self._connection.acknowledge(serial)

    def flush(self) -> None:
        """Send the PUBACKs gathered by `acknowledge`, in one write."""
        if self._connection is not None:
            self._connection.flush()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message at QoS 0; a receipt that is lost is asked for by the hub's repeat."""
        if self._connection is not None:
            self._connection.write(mqtt5.PublishPacket(topic, payload).write())

    def pause(self) -> None:
        """Stop reading the socket."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Go on reading the socket."""
        if self._connection is not None:
            self._connection.resume()

    async def _run_once(self) -> None:
        loop = asyncio.get_running_loop()
        broker = self._broker()
        connection = _Connection(self.number, self._generation, broker, self._intake)
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await loop.create_connection(
                    lambda: connection, broker.host, broker.port, ssl=broker.tls
                )
                self._connection = connection
                self._intake.add(self)
                await asyncio.wait(
                    [connection.subscribed, connection.ended], return_when=asyncio.FIRST_COMPLETED
                )
            _log.info("lane_connected", lane=self.number)
            await connection.ended
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"broker: {str(error) or 'no answer'}") from error
        finally:
            self._intake.remove(self)
            self._connection = None
            connection.close()


async def reaches(broker: Callable[[], BrokerAddress]) -> bool:
    """Tell whether the broker takes us now, in a session that leaves nothing behind."""
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            address = broker()
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=address.tls
            )
            try:
                writer.write(_connect_packet(address, "hearth-ingest-away", keeps_session=False))
                accepted = await _next_packet(reader)
                writer.write(mqtt5.DisconnectPacket().write())
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError, ValueError, IndexError, UnavailableError, UsageError):
        return False
    return (
        isinstance(accepted, mqtt5.ConnAckPacket)
        and accepted.reason_code is mqtt5.ConnAckReasonCode.SUCCESS
    )


async def _next_packet(reader: asyncio.StreamReader) -> object:
    """Return what the broker says first."""
    data = b""
    while (size := _packet_size(memoryview(data))) is None or size > len(data):
        data += await reader.readexactly(1)
    packet, _size = mqtt5.read(memoryview(data))
    return packet


def _connect_packet(broker: BrokerAddress, client_id: str, *, keeps_session: bool) -> bytes:
    password = broker.password
    return mqtt5.ConnectPacket(
        client_id,
        clean_start=not keeps_session,
        session_expiry_interval=SESSION_EXPIRY_S if keeps_session else 0,
        receive_max=RECEIVE_MAX,
        keep_alive=KEEP_ALIVE_S,
        username=broker.username,
        password=password.get_secret_value().encode() if password else None,
    ).write()


class _Connection(asyncio.Protocol):
    """One connection of a lane: bytes in, messages out."""

    def __init__(self, lane: int, generation: int, broker: BrokerAddress, intake: Intake) -> None:
        loop = asyncio.get_running_loop()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        """Done when the broker has granted the subscription."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Raises why the connection ended."""
        self._lane = lane
        self._generation = generation
        self._broker = broker
        self._intake = intake
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._serial = 0
        self._held: dict[int, int | None] = {}
        """Serial number -> packet id of each message that is not committed yet."""
        self._acknowledgements: list[bytes] = []
        self._pinger: asyncio.TimerHandle | None = None
        self._silent_pings = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        name = f"hearth-ingest-{self._lane:02d}"
        self.write(_connect_packet(self._broker, name, keeps_session=True))
        self._await_ping()

    def data_received(self, data: bytes) -> None:
        self._silent_pings = 0
        self._buffer += data
        view = memoryview(self._buffer)
        offset = 0
        try:
            while offset < len(view):
                size = _packet_size(view[offset:])
                if size is None or size > len(view) - offset:
                    break
                self._take(view[offset : offset + size])
                offset += size
        except (_BrokenStreamError, LaneTakenError) as error:
            self._end(error)
        finally:
            view.release()
        del self._buffer[:offset]
        self.flush()  # what was shed is acknowledged now

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(UnavailableError(f"broker: connection lost: {exc or 'closed'}"))

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def acknowledge(self, serial: int) -> None:
        packet_id = self._held.pop(serial)
        if packet_id is not None:
            self._acknowledgements.append(mqtt5.PubAckPacket(packet_id).write())

    def flush(self) -> None:
        if self._acknowledgements:
            self.write(b"".join(self._acknowledgements))
            self._acknowledgements.clear()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Leave without a DISCONNECT: the broker keeps the session, as after a crash."""
        if self._pinger is not None:
            self._pinger.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._held.clear()
        self._end(UnavailableError("broker: closed by us"))
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()  # seen: nobody may be waiting for it

    def _take(self, packet_bytes: memoryview) -> None:
        try:
            packet, _size = mqtt5.read(packet_bytes)
        except (ValueError, IndexError) as error:
            self._take_unreadable(packet_bytes, error)
            return
        match packet:
            case mqtt5.PublishPacket():
                self._take_message(packet.topic, packet.payload, packet.packet_id)
            case mqtt5.ConnAckPacket():
                self._connected(packet)
            case mqtt5.SubAckPacket():
                self._subscribed(packet)
            case mqtt5.DisconnectPacket():
                if packet.reason_code is mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER:
                    raise LaneTakenError
                raise _BrokenStreamError(f"broker: {packet.reason_code.name.lower()}")
            case _:
                pass  # PINGRESP, and what a broker sends that we do not ask for

    def _take_message(self, topic: str, payload: bytes, packet_id: int | None) -> None:
        hub = wire.hub_of_topic(topic)
        size = len(payload) + MESSAGE_OVERHEAD_BYTES
        if not self._intake.admits(hub, size + (0 if is_like_a_batch(payload) else REJECTED_BYTES)):
            self._shed(packet_id)
            return
        if topic.endswith(_STATE_LEVEL):
            if hub is not None:
                self._intake.tell(hub, bytes(payload))
            return
        self._serial += 1
        token = self._generation << _SERIAL_BITS | self._serial
        self._held[self._serial] = packet_id
        self._intake.took(token, size)
        self._intake.deliver(
            Message(
                lane=self._lane,
                token=token,
                hub=hub,
                payload=payload,
                received_at=datetime.now(UTC),
            )
        )

    def _shed(self, packet_id: int | None) -> None:
        """Let a message go: acknowledged, so that those behind it come; not stored, no receipt."""
        metrics.SHED.inc()
        if packet_id is not None:
            self._acknowledgements.append(mqtt5.PubAckPacket(packet_id).write())

    def _take_unreadable(self, packet_bytes: memoryview, error: Exception) -> None:
        """Take a PUBLISH that the codec refuses apart by hand: one hub must not block its lane."""
        first = packet_bytes[0]
        if first >> 4 != _PUBLISH:
            raise _BrokenStreamError(f"broker sent what is no MQTT 5: {error}") from error
        _length, start = _variable_integer(packet_bytes, 1)
        end = start + 2 + int.from_bytes(packet_bytes[start : start + 2], "big")
        topic = bytes(packet_bytes[start + 2 : end]).decode("utf-8", "replace")
        packet_id = None
        if first & 0b110:
            packet_id = int.from_bytes(packet_bytes[end : end + 2], "big")
            end += 2
        _log.warning("publish_unreadable", lane=self._lane, why=str(error))
        self._take_message(topic, bytes(packet_bytes[end:]), packet_id)

    def _connected(self, packet: mqtt5.ConnAckPacket) -> None:
        if packet.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            raise _BrokenStreamError(f"broker refuses: {packet.reason_code.name.lower()}")
        batches = wire.lane_filter(self._lane, wire.Channel.BATCH)
        states = wire.lane_filter(self._lane, wire.Channel.STATE)
        self.write(
            mqtt5.SubscribePacket(
                1,
                [
                    mqtt5.TopicFilter(batches, max_qos=mqtt5.QoS.AT_LEAST_ONCE),
                    mqtt5.TopicFilter(states, max_qos=mqtt5.QoS.AT_MOST_ONCE),
                ],
            ).write()
        )

    def _subscribed(self, packet: mqtt5.SubAckPacket) -> None:
        batches, *states = packet.reason_codes
        if int(batches) >= _FAILURE:
            raise _BrokenStreamError(f"broker refuses the subscription: {batches.name.lower()}")
        if any(int(code) >= _FAILURE for code in states):
            _log.warning("states_refused", lane=self._lane, cure="let ingest read .../state")
        if not self.subscribed.done():
            self.subscribed.set_result(None)

    def _await_ping(self) -> None:
        self._pinger = asyncio.get_running_loop().call_later(KEEP_ALIVE_S / 2, self._ping)

    def _ping(self) -> None:
        if self._intake.paused:
            self._silent_pings = 0  # we do not listen, so silence means nothing
        elif self._silent_pings >= SILENT_PINGS_MAX:
            self._end(_BrokenStreamError("broker: no answer to pings"))
            return
        self._silent_pings += 1
        self.write(mqtt5.PingReqPacket().write())
        self._await_ping()

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)


class _BrokenStreamError(UnavailableError):
    """The connection is of no further use."""


def _packet_size(view: memoryview) -> int | None:
    """Return the whole size of the packet that begins here; None while its header is cut."""
    if len(view) < _HEADER_BYTES_MIN:
        return None
    try:
        length, start = _variable_integer(view, 1)
    except IndexError:
        return None
    if start + length > PACKET_BYTES_MAX:
        raise _BrokenStreamError(f"broker: a packet of {start + length} bytes")
    return start + length


def _variable_integer(view: memoryview, offset: int) -> tuple[int, int]:
    """Return a Variable Byte Integer (MQTT 5.0, 1.5.5) and the offset behind it."""
    value = 0
    for shift in range(0, 28, 7):
        byte = view[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, offset
    raise _BrokenStreamError("broker: a packet without a length")
