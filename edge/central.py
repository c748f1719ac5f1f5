"""The central: scans with one adapter and connects to devices. The one door to bleak.

What BlueZ does and what follows from it here (each seen with BlueZ 5.82 on Linux 6.12, or reported
in the issue named): a device's object vanishes when the scan ends, so the scan runs all the time;
two scans answer InProgress, so there is one an adapter; discovery may be announced before its
results are there, so connecting and discovering is done for one device at a time and the results
are read again (bleak#1806); a device that has lost its bond is never connected, the call only times
out, so the bond is removed here and made anew; `StopNotify` made cuffs forget their bond, so a link
is just dropped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from bleak import BleakClient, BleakScanner
from bleak.args.bluez import BlueZDiscoveryFilters, BlueZScannerArgs, OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakDBusError, BleakError, BleakGATTProtocolError, BleakGATTProtocolErrorCode
from dbus_fast.errors import DBusError

from edge.bluez import Adapter, Bluez
from edge.counts import Counts
from edge.heard import Heard, has_what_it_advertises
from gateway.errors import UnavailableError
from gateway.gatt.uuids import uuid16
from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger
from gateway.vitals import SERVICES, SIGNS

DEVICES_MAX = 512
"""Devices that can be connected to; at the bound the one heard longest ago has to be heard again."""
DISCOVERIES_MAX = 3
"""Readings of what discovery found; still incomplete after these, it is taken as it is."""
DISCOVERY_PAUSE_S = 0.2
"""Between them. BlueZ was seen to be less than this behind its own announcement."""
BOND_TIMEOUTS_MAX = 2
"""A bonded device that advertises while a connection to it times out, so many times in a row, has
lost its bond. Once may be a bad moment, and some devices pair only in a special mode."""
SCAN_BACKOFF = Backoff(first_s=0.5, longest_s=60.0)
"""Between attempts to scan with an adapter that is there; without end."""
FAILURES_BEFORE_RESET = 5
"""Scans that could not be started, in a row; then the adapter's power is cycled."""
CONNECTS_BEFORE_RESET = 20
"""Connections that failed, in a row and whichever device; then the same, unless a link stands."""
RSSI_MIN_DBM = -127
"""No device is too far; but with a limit, BlueZ tells each advertisement, not only a new or a
louder one (org.bluez.Adapter: "the RSSI delta-threshold ... will not be applied")."""

_SECURITY_CODES = frozenset(
    {
        BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHENTICATION,
        BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHORIZATION,
        BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION,
        BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION_KEY_SIZE,
    }
)
_SECURITY_ERRORS = frozenset({"org.bluez.Error.NotPermitted", "org.bluez.Error.NotAuthorized"})

_log = get_logger(__name__)


class LinkError(UnavailableError):
    """A device cannot be reached, or the link to it broke, or it refused what was asked."""


class SecurityError(LinkError):
    """The device wants a bond first."""


class PairingError(LinkError):
    """The device does not pair: a person has to put it into pairing mode."""


class BondLostError(LinkError):
    """The device does not connect since it has lost its bond, which is removed here now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralSettings:
    """Which adapter (None: the first), how it scans, and how long it may take.

    `is_passive`: the controller filters, which saves power, and hears only devices that put a known
    service first in their advertisement; it needs BlueZ's experimental features.
    """

    adapter: str | None = None
    is_passive: bool = False
    connect_s_max: float = 20.0
    """Connecting and discovering. Linux itself gives up a connection after 20 s."""
    pair_s_max: float = 30.0
    """Pairing; the Security Manager's own time-out (Core 5.4, Vol 3 Part H, 3.4)."""
    request_s_max: float = 10.0
    """One read, write or subscription."""


@dataclass(slots=True, kw_only=True)
class _Known:
    device: BLEDevice
    services: frozenset[int]
    heard_s: float = 0.0
    is_paired: bool = False
    timeouts: int = 0
    """Connections in a row that timed out while the device, bonded, went on advertising."""


class Link:
    """A connection to a device. `news` is set when it is gone, from whichever side.

    Its user may set and clear `news` for itself, to wait for one thing only.
    """

    def __init__(self, settings: CentralSettings) -> None:
        self._settings = settings
        self._client: BleakClient | None = None
        self._by_uuid: dict[int, BleakGATTCharacteristic] = {}
        self.news = asyncio.Event()
        self.is_ended = False

    def discovered(self, client: BleakClient) -> None:
        """Take what `client`, connected, has discovered."""
        self._client = client
        self._by_uuid = {}
        for characteristic in client.services.characteristics.values():
            uuid = uuid16(characteristic.uuid)
            if uuid is not None:
                self._by_uuid.setdefault(uuid, characteristic)

    def end(self) -> None:
        """Note that the link is gone."""
        self.is_ended = True
        self.news.set()

    @property
    def characteristics(self) -> frozenset[int]:
        """The 16-bit UUIDs of the device's characteristics."""
        return frozenset(self._by_uuid)

    def can_write(self, uuid: int) -> bool:
        """Tell whether the device says that a characteristic can be written."""
        characteristic = self._by_uuid.get(uuid)
        return characteristic is not None and "write" in characteristic.properties

    async def subscribe(self, uuid: int, callback: Callable[[bytes], None]) -> None:
        """Let `callback` have every value that is notified or indicated from now on.

        Raises:
            SecurityError: `pair` first.
            LinkError: it failed.
        """
        async with self._request() as client:
            await client.start_notify(
                self._by_uuid[uuid], lambda _characteristic, value: callback(bytes(value))
            )

    async def read(self, uuid: int) -> bytes:
        """Return a characteristic's value; raises as `subscribe` does."""
        async with self._request() as client:
            return bytes(await client.read_gatt_char(self._by_uuid[uuid]))

    async def write(self, uuid: int, value: bytes) -> None:
        """Write a characteristic and wait for the device's answer; raises as `subscribe` does."""
        async with self._request() as client:
            await client.write_gatt_char(self._by_uuid[uuid], value, response=True)

    async def pair(self) -> None:
        """Make a bond.

        Raises:
            PairingError: the device does not want to.
        """
        try:
            async with self._request(self._settings.pair_s_max) as client:
                await client.pair()
        except LinkError as error:
            raise PairingError(str(error)) from error

    @asynccontextmanager
    async def _request(self, s_max: float | None = None) -> AsyncIterator[BleakClient]:
        if self._client is None or self.is_ended:
            raise LinkError("bluetooth: the link is gone")
        with _translated():
            async with asyncio.timeout(s_max or self._settings.request_s_max):
                yield self._client


class Central:
    """One adapter. `run` must be running; `hear` is called with every advertisement."""

    def __init__(
        self,
        bluez: Bluez,
        settings: CentralSettings,
        counts: Counts,
        hear: Callable[[Heard], None],
    ) -> None:
        self._bluez = bluez
        self._settings = settings
        self._counts = counts
        self._hear = hear
        self._adapter: Adapter | None = None
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._connecting = asyncio.Lock()
        self._failed_connects = 0
        self._links: set[Link] = set()

    @property
    def is_scanning(self) -> bool:
        """Whether the adapter is there and devices can be heard."""
        return self._adapter is not None

    async def run(self) -> None:
        """Scan, whatever comes and goes, until cancelled."""
        failures = 0
        while True:
            adapter = await self._bluez.ready(self._settings.adapter)
            try:
                async with self._scan(adapter):
                    failures = 0
                    await self._bluez.lost(adapter)
                    self._counts.adapter_losses += 1
            except UnavailableError as error:
                failures += 1
                _log.warning("scan_failed", adapter=adapter.name, why=str(error), failures=failures)
                if failures % FAILURES_BEFORE_RESET == 0:
                    await self._reset(adapter)
                await asyncio.sleep(SCAN_BACKOFF.wait_s(failures))

    @asynccontextmanager
    async def connect(self, address: str) -> AsyncIterator[Link]:
        """Connect to a device that was heard, and discover what it has; drop the link at the end.

        Raises:
            BondLostError: it has lost its bond.
            LinkError: it cannot be reached, or broke.
        """
        known, adapter = self._known.get(address), self._adapter
        if known is None or adapter is None:
            raise LinkError("the device is not heard any more")
        link = Link(self._settings)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._bluez.expecting(known.device.details["path"]))
            async with self._connecting:
                try:
                    await self._establish(link, known, adapter, stack)
                except LinkError:
                    await self._note_failure(adapter)
                    raise
            self._failed_connects = 0
            self._links.add(link)
            stack.callback(self._links.discard, link)
            yield link

    async def _establish(
        self, link: Link, known: _Known, adapter: Adapter, stack: AsyncExitStack
    ) -> None:
        """Connect, and read what discovery found until it is what the device advertises."""
        for attempt in range(1, DISCOVERIES_MAX + 1):
            # Another client on a device that is connected only reads the results again.
            client = BleakClient(
                known.device,
                lambda _client: link.end(),
                timeout=self._settings.connect_s_max,
                bluez={"adapter": adapter.name},
            )
            stack.push_async_callback(_disconnect, client)
            began_s = _now_s()
            try:
                with _translated():
                    await client.connect()
                    link.discovered(client)
            except LinkError as error:
                if isinstance(error.__cause__, TimeoutError) and known.heard_s > began_s:
                    await self._doubt_bond(known, adapter)
                raise
            known.timeouts = 0
            if has_what_it_advertises(known.services, link.characteristics):
                return
            if attempt == DISCOVERIES_MAX:
                return
            self._counts.discoveries_repeated += 1
            await asyncio.sleep(DISCOVERY_PAUSE_S)

    async def _doubt_bond(self, known: _Known, adapter: Adapter) -> None:
        """Remove a bond that the device has lost, so that the next session pairs anew.

        Raises:
            BondLostError: it is removed.
        """
        if not known.is_paired:
            return
        known.timeouts += 1
        if known.timeouts < BOND_TIMEOUTS_MAX:
            return
        _log.warning("bond_lost", device=known.device.address)
        client = BleakClient(known.device, bluez={"adapter": adapter.name})
        with suppress(LinkError), _translated():
            await client.unpair()
            self._counts.bonds_renewed += 1
        self._known.pop(known.device.address, None)
        raise BondLostError(f"bluetooth: {known.device.address} has lost its bond")

    async def _note_failure(self, adapter: Adapter) -> None:
        self._failed_connects += 1
        if self._failed_connects >= CONNECTS_BEFORE_RESET and not self._links:
            self._failed_connects = 0
            await self._reset(adapter)

    async def _reset(self, adapter: Adapter) -> None:
        _log.warning("adapter_reset", adapter=adapter.name)
        with suppress(UnavailableError):
            await self._bluez.power_cycle(adapter)

    @asynccontextmanager
    async def _scan(self, adapter: Adapter) -> AsyncIterator[None]:
        """Scan for the block; afterwards no link over this adapter is alive."""
        arguments = BlueZScannerArgs(adapter=adapter.name)
        if self._settings.is_passive:
            arguments["or_patterns"] = list(_patterns())
        else:
            arguments["filters"] = BlueZDiscoveryFilters(DuplicateData=True, RSSI=RSSI_MIN_DBM)
        scanner = BleakScanner(
            self._on_advertisement,
            scanning_mode="passive" if self._settings.is_passive else "active",
            bluez=arguments,
        )
        with _translated():
            await scanner.start()
        _log.info("scanning", adapter=adapter.name)
        self._adapter = adapter
        try:
            yield
        finally:
            self._adapter = None
            for link in self._links:
                link.end()
            with suppress(LinkError), _translated():
                await scanner.stop()

    def _on_advertisement(self, device: BLEDevice, data: AdvertisementData) -> None:
        services = frozenset(filter(None, map(uuid16, data.service_uuids)))
        known = self._known.get(device.address)
        if known is None:
            known = _Known(device=device, services=services)
            self._known[device.address] = known
            if len(self._known) > DEVICES_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(device.address)
        known.device = device
        known.services = services
        known.heard_s = _now_s()
        _path, properties = data.platform_data  # of BlueZ's Device1, as they are now
        known.is_paired = bool(properties.get("Paired"))
        service_data = {
            uuid: value
            for uuid, value in ((uuid16(name), value) for name, value in data.service_data.items())
            if uuid is not None
        }
        self._hear(
            Heard(
                address=device.address,
                services=services,
                service_data=service_data,
                heard_at=datetime.now(UTC),
            )
        )


def _patterns() -> Iterator[OrPattern]:
    """Return the advertisements a passive scan asks for: a known UUID at the beginning of a field.

    16-bit service UUIDs, incomplete and complete list, and service data (Core Supplement 11, A).
    """
    for service in SERVICES:
        uuid = service.to_bytes(2, "little")
        yield OrPattern(0, AdvertisementDataType.INCOMPLETE_LIST_SERVICE_UUID16, uuid)
        yield OrPattern(0, AdvertisementDataType.COMPLETE_LIST_SERVICE_UUID16, uuid)
    for source in {source.service_data for sign in SIGNS for source in sign.advertised}:
        yield OrPattern(0, AdvertisementDataType.SERVICE_DATA_UUID16, source.to_bytes(2, "little"))


async def _disconnect(client: BleakClient) -> None:
    with suppress(LinkError), _translated():
        await client.disconnect()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what bleak and D-Bus raise into ours."""
    try:
        yield
    except BleakGATTProtocolError as error:
        kind = SecurityError if error.code in _SECURITY_CODES else LinkError
        raise kind(f"bluetooth: {error}") from error
    except BleakDBusError as error:
        kind = SecurityError if error.dbus_error in _SECURITY_ERRORS else LinkError
        raise kind(f"bluetooth: {error}") from error
    except (BleakError, DBusError, TimeoutError, OSError, EOFError) as error:
        raise LinkError(f"bluetooth: {type(error).__name__}: {error}") from error
    except (AssertionError, AttributeError, LookupError) as error:
        # A link or an object that goes away in the middle of a call meets bleak's own assertions
        # and tables half cleared (bleak 3.1: `assert self._bus`).
        raise LinkError(f"bluetooth: lost within bleak: {error!r}") from error


def _now_s() -> float:
    return asyncio.get_running_loop().time()
