"""The radio of a simulated device that is connected to: advertises while it holds readings."""

from __future__ import annotations

import asyncio

from bumble import hci
from bumble.device import Connection, Device, DeviceConfiguration
from bumble.keys import MemoryKeyStore

from firmware_sim.advertising import connectable_data
from firmware_sim.air import Air, Radio
from firmware_sim.device import SimulatedDevice
from firmware_sim.lost_link import heed_cancellation
from firmware_sim.pairing import JustWorks
from firmware_sim.services import build_database
from firmware_sim.session import Session

ATTEMPTS_MAX = 4
"""So many connections in a row may leave readings unsent; then it sleeps until the next reading."""

_SUBSCRIBED = b"\x02\x00"
_NO_ADDRESS = "00:00:00:00:00:00"


class Peripheral:
    """A device that the hub connects to. `run` it; it costs nothing while it has nothing to send."""

    def __init__(self, device: SimulatedDevice, air: Air) -> None:
        model = device.model
        self.device = device
        self._air = air
        self._wanted = asyncio.Event()
        self._session: Session | None = None
        self._connected: asyncio.Future[Connection] | None = None
        public = device.address if model.public_address else _NO_ADDRESS
        static = _NO_ADDRESS if model.public_address else device.address
        self._own_address = (
            hci.OwnAddressType.PUBLIC if model.public_address else hci.OwnAddressType.RANDOM
        )
        self._controller = Radio(model.name, air, public)
        self._radio = Device(
            config=DeviceConfiguration(
                name=model.name, address=hci.Address(static), gatt_service_enabled=False
            ),
            host=self._controller.new_host(),
        )
        self.pairs = True
        """Whether it is in the mode in which it makes new bonds."""
        self._radio.pairing_config_factory = lambda _connection: JustWorks(
            accepts=self.pairs
        ).config()
        self._bonds = MemoryKeyStore()
        self._radio.keystore = self._bonds
        self._database = build_database(
            self._radio,
            device,
            on_record_access=self._on_record_access,
            on_control=self._on_control,
        )
        self._radio.on(self._radio.EVENT_CONNECTION, self._on_connection)
        server = self._radio.gatt_server
        server.on(server.EVENT_CHARACTERISTIC_SUBSCRIPTION, lambda *_subscription: self.wake())
        device.wake = self.wake

    @property
    def connected(self) -> bool:
        """Whether the hub is connected to it."""
        return self._session is not None

    @property
    def bonded(self) -> bool:
        """Whether it remembers a hub."""
        return bool(self._bonds.all_keys)

    def wake(self) -> None:
        """Look at what there is to send: now, if connected, else by advertising."""
        if self._session is not None:
            self._session.change()
        else:
            self._wanted.set()

    def forget_bonds(self) -> None:
        """Lose every bond, as after a reset."""
        self._bonds.all_keys.clear()

    async def run(self) -> None:
        """Live until cancelled."""
        try:
            await self._wanted.wait()
            await self._radio.power_on()
            heed_cancellation()
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._try_to_deliver()
        finally:
            self._air.leave(self._controller)

    async def _try_to_deliver(self) -> None:
        for _attempt in range(ATTEMPTS_MAX):
            connection = await self._advertise()
            if connection is None:
                return
            self._session = Session(self._radio, connection, self.device, self._database)
            try:
                await self._session.run()
            finally:
                self._session = None
            if not len(self.device.memory):
                return

    async def _advertise(self) -> Connection | None:
        """Return the connection that the hub makes; None when it does not come in time."""
        model = self.device.model
        self._connected = asyncio.get_running_loop().create_future()
        # bumble 0.0.236 takes the interval, which counts 0.625 ms, for milliseconds.
        interval = model.advertising_interval_ms * 0.625
        await self._radio.start_advertising(
            own_address_type=self._own_address,
            advertising_data=connectable_data(self.device),
            scan_response_data=b"",
            advertising_interval_min=interval,
            advertising_interval_max=interval,
        )
        heed_cancellation()
        try:
            async with asyncio.timeout(model.advertises_s):
                await asyncio.wait({self._connected})
        except TimeoutError:
            await self._radio.stop_advertising()
            heed_cancellation()
        return self._connected.result() if self._connected.done() else None

    def _on_connection(self, connection: Connection) -> None:
        model = self.device.model
        if model.eager:
            event = connection.EVENT_CONNECTION_ENCRYPTION_CHANGE
            connection.on(event, lambda: self._remember_subscription(connection))
        if model.asks_for_security:
            connection.request_pairing()
        if self._connected is not None and not self._connected.done():
            self._connected.set_result(connection)

    def _remember_subscription(self, connection: Connection) -> None:
        """Take up the subscription of an earlier connection, if there was a bond then."""
        if str(connection.peer_address) in self._bonds.all_keys:
            subscribed = self._radio.gatt_server.subscribers.setdefault(connection, {})
            for sending in self._database.live:
                subscribed[sending.characteristic.handle] = _SUBSCRIBED
            self.wake()

    def _on_record_access(self, _connection: Connection, request: bytes) -> None:
        if self._session is not None:
            self._session.request_records(request)

    def _on_control(self, _connection: Connection, command: bytes) -> None:
        if self._session is not None:
            self._session.control(command)
