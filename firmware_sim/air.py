"""The virtual air of one home: who hears whom. Bluetooth Core 5.4, Vol 6 Part B (link layer).

bumble's link layer, with four of its gaps closed (bumble 0.0.236): packets carry the address that
the connection really uses, public or random; only listening radios hear advertisements; a pending
connection can be cancelled; and what is advertised as not connectable is not connected to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from bumble import hci, link, ll
from bumble.controller import Controller
from bumble.core import PhysicalTransport
from bumble.host import Host
from bumble.transport.common import AsyncPipeSink

RSSI_DBM_NEAR, RSSI_DBM_FAR = -45, -80
"""A device's mean signal strength at the hub is drawn between these."""
RSSI_DBM_NOISE = 4.0
"""Standard deviation from one advertisement to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """What a radio hears of an advertising event."""

    address: hci.Address
    data: bytes
    connectable: bool
    rssi_dbm: int


class Air(link.LocalLink):
    """Joins the radios of one home; each home has an air of its own.

    What an address sends while it is in `silent` reaches nobody: out of range, or its battery is
    out. Signal strengths come from `seed`.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # bumble's own
        self.silent: set[hci.Address] = set()
        self._listeners: list[ScanningRadio] = []
        self._random = Random(seed)  # noqa: S311 - noise, no secret
        self._mean_rssi_dbm: dict[hci.Address, float] = {}

    def listen(self, radio: ScanningRadio) -> None:
        """Let `radio` hear advertisements from now on."""
        self._listeners.append(radio)

    def leave(self, radio: Radio) -> None:
        """Take a radio off the air; its links are lost on both sides, its host hears no more."""
        for connection in list(radio.le_connections.values()):
            self.break_links(connection.self_address)
        self.remove_controller(radio)
        radio.set_packet_sink(None)
        if radio in self._listeners:
            self._listeners.remove(radio)

    def advertise(self, address: hci.Address, data: bytes, *, connectable: bool) -> None:
        """Send one advertising event to every radio that listens."""
        if address in self.silent:
            return
        advertisement = Advertisement(
            address=address, data=data, connectable=connectable, rssi_dbm=self._rssi_dbm(address)
        )
        for radio in self._listeners:
            radio.on_advertisement(advertisement)

    def break_links(self, address: hci.Address) -> None:
        """Lose the links of an address, as when one walks away: both sides time out."""
        for radio in list(self.controllers):
            for connection in list(radio.le_connections.values()):
                if address in (connection.self_address, connection.peer_address):
                    radio.on_le_disconnected(connection, hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)

    def send_advertising_pdu(
        self, sender_controller: Controller, packet: ll.AdvertisingPdu
    ) -> None:
        """Carry one advertising channel packet, as bumble's controllers hand it over."""
        match packet:
            case ll.AdvInd(advertiser_address, data):
                self.advertise(advertiser_address, data, connectable=True)
            case ll.ConnectInd(advertiser_address=advertiser_address):
                asyncio.get_running_loop().call_soon(self._connect, sender_controller, packet)

    def send_acl_data(
        self,
        sender_controller: Controller,
        destination_address: hci.Address,
        transport: PhysicalTransport,
        data: bytes,
    ) -> None:
        """Carry data between two connected radios; what goes to a lost link is lost."""
        receiver = self.find_le_controller(destination_address)
        connection = sender_controller.le_connections.get(destination_address)
        if receiver is None or connection is None:
            return
        if connection.self_address in self.silent:
            return
        asyncio.get_running_loop().call_soon(
            receiver.on_link_acl_data, connection.self_address, transport, data
        )

    def _connect(self, central: Controller, packet: ll.ConnectInd) -> None:
        peripheral = self.find_le_controller(packet.advertiser_address)
        unheard = packet.initiator_address in self.silent
        if peripheral is not None and peripheral.is_advertising and not unheard:
            peripheral.on_ll_advertising_pdu(packet)
        elif connection := central.le_connections.get(packet.advertiser_address):
            # It has just stopped advertising and listening (Core 5.4, Vol 6 Part B, 4.5.2).
            central.on_le_disconnected(
                connection, hci.HCI_ErrorCode.CONNECTION_FAILED_TO_BE_ESTABLISHED_ERROR
            )

    def _rssi_dbm(self, address: hci.Address) -> int:
        mean = self._mean_rssi_dbm.get(address)
        if mean is None:
            mean = self._random.uniform(RSSI_DBM_FAR, RSSI_DBM_NEAR)
            self._mean_rssi_dbm[address] = mean
        return round(self._random.gauss(mean, RSSI_DBM_NOISE))


class Radio(Controller):
    """A controller as simple peripherals and older adapters have it: legacy advertising only."""

    le_features = Controller.le_features & ~(
        hci.LeFeatureMask.LE_EXTENDED_ADVERTISING | hci.LeFeatureMask.LL_PRIVACY
    )

    def __init__(self, name: str, air: Air, address: str) -> None:
        super().__init__(
            name, link=air, public_address=hci.Address(address, hci.Address.PUBLIC_DEVICE_ADDRESS)
        )

    def new_host(self) -> Host:
        """Return a host that drives this controller."""
        return _Host(self, AsyncPipeSink(self))

    def send_hci_packet(self, packet: hci.HCI_Packet) -> None:
        """Hand a packet to the host, if there still is one when its turn comes."""
        asyncio.get_running_loop().call_soon(self._deliver, bytes(packet))

    def _deliver(self, packet: bytes) -> None:
        if self.hci_sink is not None:
            self.hci_sink.on_packet(packet)


class ScanningRadio(Radio):
    """The hub's controller: hands every advertisement to `heard` and can be told to connect."""

    def __init__(self, name: str, air: Air, address: str) -> None:
        super().__init__(name, air, address)
        self.heard: Callable[[Advertisement], None] = lambda _advertisement: None
        air.listen(self)

    def on_advertisement(self, advertisement: Advertisement) -> None:
        """Connect where this advertiser is awaited; tell of the advertisement in any case."""
        pending = self.pending_le_connection
        if (
            pending is not None
            and advertisement.connectable
            and pending.peer_address == advertisement.address
        ):
            self.create_le_connection(advertisement.address)
        self.heard(advertisement)

    def on_hci_le_create_connection_cancel_command(
        self, _command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Core 5.4, Vol 4 Part E, 7.8.13: the pending connection completes as not made."""
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self.send_hci_packet(
            hci.HCI_LE_Connection_Complete_Event(
                status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
                connection_handle=0,
                role=hci.Role.CENTRAL,
                peer_address_type=pending.peer_address.address_type,
                peer_address=pending.peer_address,
                connection_interval=0,
                peripheral_latency=0,
                supervision_timeout=0,
                central_clock_accuracy=0,
            )
        )
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)


class _Host(Host):
    """Takes an answer for which nobody waits any more: whoever did was cancelled."""

    def on_command_processed(
        self, event: hci.HCI_Command_Complete_Event[Any] | hci.HCI_Command_Status_Event
    ) -> None:
        if self.pending_response is None or not self.pending_response.done():
            super().on_command_processed(event)
