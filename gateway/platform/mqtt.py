"""The one door to the MQTT client library (paho): a session for a hub, MQTT 5.

paho's network code runs on this process's event loop, through its documented hooks for external
loops; no thread, except that connecting (name lookup, TCP, TLS) blocks and is done in one. Its own
reconnecting and its own store of messages are not used: a broken connection ends the `Session`, and
its owner, who knows what is unsent, opens the next.

PUBACK is flow control, never a receipt; but its reason codes are told, since one of them means
"nobody has it" (0x10) and another "not allowed" (0x87). aiomqtt hides them, hence paho itself.

The reader of ingest is another one (ingest.subscriber); the reference that it is tested against,
paho with manual acknowledgement, belongs here too once it is written.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.errors import UnavailableError
from gateway.platform.broker_address import BrokerAddress

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer  # these are there for type checkers only
    from paho.mqtt.client import SocketLike

CONNECT_S_MAX = 10.0
"""A broker that does not accept a connection within this is down."""
KEEPALIVE_S = 60
"""A connection over which nothing came for this long is asked for life, and ended without it."""
KEEPALIVE_CHECK_S = 5.0
"""How often that is looked at."""
DISCONNECT_S_MAX = 2.0
"""Leaving in order may take this long; then the socket is closed, which publishes the will too."""
RECEIVE_MAXIMUM = 32
"""Messages the broker may have sent without our acknowledgement; it holds back the rest. They are
acknowledged when they are taken from the session, so this bounds what waits in here as well."""
MESSAGE_BYTES_MAX = 64 << 10
"""The broker does not send us a longer message. 1,024 receipts are 16 kB."""
EVENTS_MAX = 1024
"""Events that wait to be taken. Reached only by messages of QoS 0, which nobody should send us:
they are dropped."""

_QOS_1 = 1
_NO_SUBSCRIBER = 0x10
_SESSION_TAKEN_OVER = 0x8E
_DISCONNECT_WITH_WILL = 0x04
_REFUSALS = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C})
"""CONNACK: version, client id, user name or password, not authorised, banned, method."""
_CERTIFICATE_REFUSED = re.compile(r"ALERT_(CERTIFICATE_\w+|BAD_CERTIFICATE|UNKNOWN_CA)")
"""OpenSSL's names of the alerts (RFC 8446, 6.2) by which a broker refuses our certificate. With TLS 1.3
they come after the handshake, as far as we can tell."""


class RefusedError(UnavailableError):
    """The broker does not want us: a person must act, there or here."""


class TakenOverError(UnavailableError):
    """Another connection came with our client id. Coming back would cut that one off, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes, retained, when the connection breaks."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How a session is known: its client id stays the same over connections and restarts.

    `expiry_s`: how long the broker keeps it, with what arrives for it, without a connection.
    """

    client_id: str
    expiry_s: int
    will: Will | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The broker's word on a message: PUBACK with its reason."""

    mid: int
    reason: str
    is_refused: bool
    has_subscriber: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A message for us."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unacknowledged:
    message: Arrived
    mid: int
    qos: int


Event = Published | Arrived


class Session:
    """A connection that stands. When it breaks, every method raises an `UnavailableError`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | _Unacknowledged | None] = asyncio.Queue(EVENTS_MAX)
        self._connected = asyncio.Event()
        self._lost: UnavailableError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure = ""
        client.on_log = self._on_log
        self.is_resumed = False
        """The broker still has the session, with the messages that came meanwhile."""

    async def next_event(self, timeout_s: float | None) -> Event | None:
        """Return what happened next, and acknowledge it; None after `timeout_s` or `wake`."""
        if self._events.empty():
            self._check()
        try:
            async with asyncio.timeout(timeout_s):
                event = await self._events.get()
        except TimeoutError:
            return None
        if event is None:
            self._check()
        if isinstance(event, _Unacknowledged):
            if self._lost is None:
                self._client.ack(event.mid, event.qos)
            return event.message
        return event

    def wake(self) -> None:
        """Let `next_event` return None now."""
        if not self._events.full():
            self._events.put_nowait(None)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send a message, QoS 1; its `Published` event carries the number returned here."""
        self._check()
        info = self._client.publish(topic, payload, _QOS_1, retain)
        if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise UnavailableError(f"mqtt: {info.rc.name}")
        return info.mid

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for messages of these topics, QoS 1; a refusal ends the session."""
        self._check()
        self._client.subscribe([(topic, _QOS_1) for topic in topics])

    async def begin(self) -> None:
        """Take over a client that has sent its CONNECT; return once the broker has accepted."""
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_register_write = self._on_writing
        client.on_socket_unregister_write = self._on_written
        client.on_socket_close = self._on_socket_close
        sock = client.socket()
        if sock is None:
            raise self._broken("the connection closed at once")
        self._loop.add_reader(sock.fileno(), self._read)
        if client.want_write():
            self._write()
        self._keep_alive()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await self._connected.wait()
        except TimeoutError as error:
            raise UnavailableError("mqtt: the broker does not answer") from error
        self._check()

    async def end(self) -> None:
        """Leave, so that the broker publishes the will at once; never raises."""
        if self._timer:
            self._timer.cancel()
        if self._lost is None:
            with_will = ReasonCode(PacketTypes.DISCONNECT, identifier=_DISCONNECT_WITH_WILL)
            self._client.disconnect(with_will)
            self._write()
        try:
            async with asyncio.timeout(DISCONNECT_S_MAX):
                while self._lost is None:
                    await self._events.get()
        except TimeoutError:
            pass
        sock = self._client.socket()
        if sock is not None:
            self._on_socket_close(self._client, None, sock)
            sock.close()

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _lose(self, error: UnavailableError) -> None:
        self._lost = self._lost or error
        self._connected.set()
        self.wake()

    def _read(self) -> None:
        sock = self._client.socket()
        try:
            self._client.loop_read()
            # What TLS has decrypted already, no selector announces.
            while isinstance(sock, ssl.SSLSocket) and sock.fileno() >= 0 and sock.pending():
                self._client.loop_read()
        except Exception as error:  # noqa: BLE001 - paho lets out whatever its parsing meets
            self._break(error)

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001 - as in _read
            self._break(error)

    def _break(self, error: Exception) -> None:
        sock = self._client.socket()
        if sock is not None:
            self._on_socket_close(self._client, None, sock)
        self._lose(UnavailableError(f"mqtt: {type(error).__name__}: {error}"))

    def _keep_alive(self) -> None:
        self._client.loop_misc()
        self._timer = self._loop.call_later(KEEPALIVE_CHECK_S, self._keep_alive)

    def _on_connect(
        self,
        _client: Client,
        _userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            kind = RefusedError if reason.value in _REFUSALS else UnavailableError
            self._lose(kind(f"mqtt: connection refused: {reason}"))
            return
        self.is_resumed = flags.session_present
        self._connected.set()

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.value == _SESSION_TAKEN_OVER:
            self._lose(TakenOverError(f"mqtt: disconnected: {reason}"))
        else:
            self._lose(self._broken(f"disconnected: {reason}"))

    def _broken(self, otherwise: str) -> UnavailableError:
        """Return why the connection broke, as far as paho has said."""
        if _CERTIFICATE_REFUSED.search(self._failure):
            return RefusedError(f"mqtt: the broker refuses our certificate: {self._failure}")
        return UnavailableError(f"mqtt: {self._failure or otherwise}")

    def _on_log(self, _client: Client, _userdata: object, level: int, text: str) -> None:
        # What broke a connection paho says nowhere else.
        if level == LogLevel.MQTT_LOG_ERR:
            self._failure = text

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._lose(RefusedError(f"mqtt: subscription refused: {reasons[0]}"))

    def _on_publish(
        self,
        _client: Client,
        _userdata: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._put(
            Published(
                mid=mid,
                reason=str(reason),
                is_refused=reason.is_failure,
                has_subscriber=reason.value != _NO_SUBSCRIBER,
            )
        )

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        arrived = Arrived(topic=message.topic, payload=bytes(message.payload))
        self._put(_Unacknowledged(message=arrived, mid=message.mid, qos=message.qos))

    def _put(self, event: Published | _Unacknowledged) -> None:
        if not self._events.full():
            self._events.put_nowait(event)

    def _on_writing(self, _client: Client, _userdata: object, sock: SocketLike) -> None:
        self._loop.add_writer(sock.fileno(), self._write)

    def _on_written(self, _client: Client, _userdata: object, sock: SocketLike) -> None:
        self._loop.remove_writer(sock.fileno())

    def _on_socket_close(self, _client: Client, _userdata: object, sock: SocketLike) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())


class TellingSocket(ssl.SSLSocket):
    """A TLS socket whose failure to write names the alert that the other side sent before it left.

    With TLS 1.3 our handshake is done before the broker has looked at our certificate. Where its alert
    and its end come before our first bytes, the write fails and says only that; the alert, which
    says why, lies in the socket unread.
    """

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send as ssl.SSLSocket does."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.recv(1)  # raises the alert, if there is one
            raise


@asynccontextmanager
async def connect(broker: BrokerAddress, identity: Identity) -> AsyncIterator[Session]:
    """Connect once; the session is left with its will published.

    Raises:
        RefusedError: the broker does not accept this user.
        UnavailableError: the broker cannot be reached, or the session broke.
    """
    client = Client(
        CallbackAPIVersion.VERSION2,
        identity.client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = CONNECT_S_MAX
    client.max_inflight_messages_set(0)  # the owner bounds what is in flight
    if identity.will is not None:
        client.will_set(identity.will.topic, identity.will.payload, _QOS_1, retain=True)
    if broker.username is not None:
        secret = broker.password
        client.username_pw_set(broker.username, secret.get_secret_value() if secret else None)
    if broker.tls is not None:
        broker.tls.sslsocket_class = TellingSocket
        client.tls_set_context(broker.tls)
    session = Session(client)
    error = await _connect_in_thread(client, broker, identity)
    if error is not None:
        raise UnavailableError(f"mqtt: {broker.host}:{broker.port}: {error}") from error
    try:
        await session.begin()
        yield session
    finally:
        await session.end()


async def _connect_in_thread(
    client: Client, broker: BrokerAddress, identity: Identity
) -> OSError | None:
    """Connect, as far as the CONNECT that is sent; return what failed.

    Returned without its traceback: that would keep the socket of a failed TLS handshake, which
    paho leaves to close itself, open until the garbage collector comes.
    """
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's
    properties.SessionExpiryInterval = identity.expiry_s
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MESSAGE_BYTES_MAX

    def work() -> OSError | None:
        try:
            client.connect(
                broker.host, broker.port, KEEPALIVE_S, clean_start=False, properties=properties
            )
        except OSError as error:
            return error.with_traceback(None)
        return None

    connecting = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        # A thread cannot be stopped; what it opens is closed as soon as it is there.
        connecting.add_done_callback(lambda _done: _discard(client))
        raise


def _discard(client: Client) -> None:
    sock = client.socket()
    if sock is not None:
        sock.close()
