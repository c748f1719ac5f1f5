"""A hub of the month: the agent's own session, adverts, clock rules and sealing; memory for a disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from edge.adverts import Adverts
from edge.central import LinkError
from edge.clock import TimeLine
from edge.counts import Counts
from edge.heard import Heard
from edge.hub_clock import HubClock
from edge.memory import DEVICES_MAX
from edge.outbox import Limits, Packet
from edge.payloads import Item, Payload
from edge.sealing import Entry, batches_of, entry_of, message_of
from edge.session import Pace, Session
from firmware_sim.device import SimulatedDevice
from firmware_sim.memory import Record
from gateway.cli.month.radio import SimulatedLink
from gateway.cli.month.world import World
from gateway.gatt import bthome
from gateway.measurement import device_id
from gateway.wire import hub_id, lane_of
from ingest.batches import Message

_PACE = Pace()
_LIMITS = Limits()


class Shelf:
    """What `edge.storage` keeps on the disk, in memory: entries, time lines."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._lines: OrderedDict[int, tuple[TimeLine, ...]] = OrderedDict()
        self.refusal: str | None = None

    async def append(self, items: Sequence[Item | Payload], _packets: Sequence[Packet] = ()) -> int:
        """Keep items; return how many."""
        self.hand_over(items)
        return len(items)

    def hand_over(self, items: Sequence[Item | Payload]) -> None:
        """Keep items. None is a payload: these hubs know the time."""
        self.entries += [entry_of(item) for item in items if not isinstance(item, Payload)]

    async def lines(self, device: int) -> tuple[TimeLine, ...]:
        """Return what is remembered of the device's clock."""
        return self._lines.get(device, ())

    async def remember_lines(self, device: int, lines: Sequence[TimeLine]) -> None:
        """Remember it, of a bounded number of devices."""
        self._lines[device] = tuple(lines)
        self._lines.move_to_end(device)
        if len(self._lines) > DEVICES_MAX:
            self._lines.popitem(last=False)

    async def packets(self) -> list[Packet]:
        """Return none: the hub is new."""
        return []


class MonthHub:
    """One hub. `send` gives what ingest would have of it."""

    def __init__(self, name: str, epoch: int, world: World, zone: ZoneInfo) -> None:
        self.name = name
        self.zone = zone
        self._epoch = epoch
        self._world = world
        self._shelf = Shelf()
        self._counts = Counts()
        self._clock = HubClock(lambda: True, wall=world.now, boot="month")
        self._adverts: Adverts | None = None
        self._sequence = 0

    async def talk(self, device: SimulatedDevice, *, breaks: bool) -> None:
        """Have a session with a device."""
        session = Session(
            SimulatedLink(device, self._world, breaks=breaks),
            device_id(device.address),
            self._shelf,
            self._counts,
            zone=self.zone,
            pace=_PACE,
            hub_clock=self._clock,
        )
        try:
            await session.run()
        except LinkError:
            pass  # it broke before anything came, or the device had nothing to say
        finally:
            session.close()

    async def hear(self, device: SimulatedDevice, record: Record, payload: bytes) -> None:
        """Hear a reading that is advertised."""
        (source,) = device.sign.advertised
        if self._adverts is None:
            self._adverts = Adverts(self._shelf, self._counts, self.zone, self._clock)
            await self._adverts.recall()
        numbered = {key: value for key, (value, _at) in bthome.decode_objects(payload).items()}
        numbered[bthome.PACKET_ID] = record.number & 0xFF
        heard = Heard(
            address=device.address,
            services=frozenset(),
            service_data={source.service_data: bthome.encode_objects(numbered)},
            heard_at=self._world.now(),
        )
        self._adverts.hear(device_id(device.address), heard)
        await self._adverts.keep_next()

    def send(self, now: datetime) -> list[Message]:
        """Seal all that waits, and return it as it reaches ingest."""
        messages = []
        hub = hub_id(self.name)
        for group in batches_of(self._shelf.entries, _LIMITS.batch_records):
            self._sequence += 1
            payload = message_of(group, hub=hub, epoch=self._epoch, sequence=self._sequence)
            messages.append(
                Message(lane=lane_of(hub), token=0, hub=hub, payload=payload, received_at=now)
            )
        self._shelf.entries.clear()
        return messages
