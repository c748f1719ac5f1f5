"""What a scan hears of a device, and what a hub may talk to. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from edge.outbox import Packet
from edge.payloads import Payload
from gateway.vitals import SERVICES, advertised_sources, gatt_sources

DEVICES_MAX = 512
"""Devices whose packets are remembered here; at the bound those heard longest ago are forgotten,
and a repeat of their last packet would count as new."""
PACKETS_PER_SOURCE = 8
"""Packets remembered of one device. More than one, since a device may send its last few in turns;
far fewer than 256, after which BTHome's packet ids come round again."""
DIGEST_BYTES = 8
"""Two different packets of one device with the same digest: once in 2**64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One advertisement. `services`: 16-bit UUIDs, with those known from earlier connections."""

    address: str
    services: frozenset[int]
    service_data: Mapping[int, bytes]
    heard_at: datetime


class Packets:
    """Tells the repeats of advertised packets.

    Each is sent for seconds, and BlueZ shows it again whenever anything else of the device changes,
    also after a restart of the hub.
    """

    def __init__(self, remembered: Sequence[Packet]) -> None:
        self._seen: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        for packet in remembered:
            self.remember(packet)

    def is_repeat(self, packet: Packet) -> bool:
        """Tell whether this packet was taken before."""
        return packet.digest in self._seen.get((packet.device, packet.source), ())

    def remember(self, packet: Packet) -> None:
        """Note that this packet was taken."""
        key = (packet.device, packet.source)
        digests = self._seen.setdefault(key, [])
        digests.append(packet.digest)
        del digests[:-PACKETS_PER_SOURCE]
        self._seen.move_to_end(key)
        if len(self._seen) > DEVICES_MAX:
            self._seen.popitem(last=False)


def packet_of(payload: Payload) -> Packet:
    """Return what tells the repeats of an advertised payload."""
    digest = blake2b(payload.data, digest_size=DIGEST_BYTES).digest()
    return Packet(device=payload.device, source=payload.source, digest=digest)


def is_talkative(heard: Heard, *, is_listed: bool) -> bool:
    """Tell whether there is something to connect to.

    A listed device that advertises no known service may have one all the same; unless what it has
    to say it says in its advertisements.
    """
    if heard.services & SERVICES:
        return True
    return is_listed and not any(advertised_sources(uuid) for uuid in heard.service_data)


def has_what_it_advertises(services: frozenset[int], characteristics: frozenset[int]) -> bool:
    """Tell whether discovery found a readable characteristic for each known service advertised.

    BlueZ may announce that discovery is done before its results are there (bleak#1806).
    """
    found = {source.service for uuid in characteristics for _sign, source in gatt_sources(uuid)}
    wanted = services & SERVICES
    return wanted <= found if wanted else bool(found)
