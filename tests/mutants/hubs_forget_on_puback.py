"""Hubs that take the broker's PUBACK for a receipt."""

from __future__ import annotations

import asyncio

from bench.chaos.hubs import main
from edge.uplink import Uplink
from edge.window import Window
from gateway import wire
from gateway.platform import mqtt

_take = Uplink._take


async def take_and_forget(self: Uplink, event: mqtt.Event | None) -> None:
    window: Window = self._window
    accepted = [
        flight.batch
        for flight in window._flights
        if isinstance(event, mqtt.Published) and flight.mid == event.mid
    ]
    await _take(self, event)
    receipts = [
        wire.Receipt(
            epoch=batch.epoch,
            sequence=batch.sequence,
            stored=batch.count,
            duplicate=0,
            quarantined=0,
        )
        for batch in accepted
    ]
    if receipts:
        await self._storage.receipted(receipts)
        window.receipted(
            [(r.epoch, r.sequence) for r in receipts], asyncio.get_running_loop().time()
        )
        self._is_behind = True


Uplink._take = take_and_forget  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
