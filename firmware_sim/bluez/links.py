"""Making connections as Linux does: wait until the device advertises, then connect.

Several connections can be awaited at a time, each for as long as it takes; the radio makes one at
a time: the kernel scans for what is awaited, then creates the connection.
"""

from __future__ import annotations

import asyncio

from bumble import core, hci
from bumble.device import Connection, Device

from firmware_sim.lost_link import on_lost_link


class LinkCanceledError(Exception):
    """The connection was given up before it was made."""


class Links:
    """The connections that one adapter awaits."""

    def __init__(self, central: Device, attempt_s: float) -> None:
        self._central = central
        self._attempt_s = attempt_s
        self._awaited: dict[hci.Address, asyncio.Future[None]] = {}
        self._given_up: set[hci.Address] = set()
        self._initiating = asyncio.Lock()

    def heard(self, address: hci.Address) -> None:
        """Take note that a device advertises."""
        future = self._awaited.get(address)
        if future is not None and not future.done():
            future.set_result(None)

    async def connect(self, address: hci.Address) -> Connection:
        """Return the connection to a device, however long it sleeps.

        Raises:
            LinkCanceledError: `give_up` was called for it.
        """
        self._given_up.discard(address)
        while True:
            self._refuse_given_up(address)
            await self._advertising(address)
            async with self._initiating:
                self._refuse_given_up(address)
                try:
                    connection = await self._central.connect(
                        address,
                        own_address_type=hci.OwnAddressType.PUBLIC,
                        timeout=self._attempt_s,
                    )
                except (core.ConnectionError, core.TimeoutError):
                    continue
            if address in self._given_up:
                await connection.disconnect()
            self._refuse_given_up(address)
            return connection

    def give_up(self, address: hci.Address) -> None:
        """End the wait for a device."""
        self._given_up.add(address)
        future = self._awaited.get(address)
        if future is not None:
            future.cancel()

    def give_up_all(self) -> None:
        """End every wait."""
        for address in list(self._awaited):
            self.give_up(address)

    async def _advertising(self, address: hci.Address) -> None:
        future = asyncio.get_running_loop().create_future()
        self._awaited[address] = future
        try:
            with on_lost_link(LinkCanceledError()):
                await future
        finally:
            self._awaited.pop(address, None)

    def _refuse_given_up(self, address: hci.Address) -> None:
        if address in self._given_up:
            raise LinkCanceledError
