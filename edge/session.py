"""One connection with one device: take all it has to say, and set its clock if it is wrong.

Subscribing comes first: an indication that arrives between encryption and subscription is confirmed
by BlueZ, never reaches us, and the device deletes it. Readings wait in here until the device's
clock has been read, which says when they were taken; from then on they are handed over to be kept
as they come. Stored records are deleted on the device only once they are durable here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from typing import Protocol

from edge.central import LinkError, SecurityError
from edge.clock import CLOCK_ERROR_MAX, Pair, TimeLine, clock_error, pair_of, with_pair
from edge.counts import Counts
from edge.device_clock import DeviceClock, clock_of, needs_setting
from edge.hub_clock import HubClock
from edge.intake import Intake, framing_of
from edge.payloads import Item, Payload
from edge.roster import AFTER_TAKEN_S, Outcome
from gateway.errors import DecodeError
from gateway.gatt import health_observation as ghs
from gateway.gatt import record_access
from gateway.gatt.record_access import RecordAccessResponse
from gateway.gatt.times import DeviceTime
from gateway.measurement import device_address
from gateway.platform.logs import get_logger
from gateway.vital_sign import Framing
from gateway.vitals import gatt_sources

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a session waits for what."""

    quiet_s: float = 10.0
    """Without a value for this long, the device has said all; the link is dropped."""
    procedure_s: float = 10.0
    """A record access procedure that shows no sign of life for this long has failed."""
    session_s_max: float = 600.0
    """A device that always has more to say is interrupted, so that others have their turn."""
    rest_s: float = AFTER_TAKEN_S
    """Before the next session with a device that had something to say."""


class Link(Protocol):
    """The connection, as `edge.central.Link` is one."""

    news: asyncio.Event
    is_ended: bool

    @property
    def characteristics(self) -> frozenset[int]:
        """16-bit UUIDs."""

    def can_write(self, uuid: int) -> bool:
        """Tell whether the device lets us write."""

    async def subscribe(self, uuid: int, callback: Callable[[bytes], None]) -> None:
        """Hand every value that comes to `callback`."""

    async def read(self, uuid: int) -> bytes:
        """Read a value."""

    async def write(self, uuid: int, value: bytes) -> None:
        """Write a value."""

    async def pair(self) -> None:
        """Make a bond."""


class Keeper(Protocol):
    """Where readings are kept, as `edge.storage.Storage` is one."""

    @property
    def refusal(self) -> str | None:
        """Why nothing should be taken now."""

    async def append(self, items: Sequence[Item | Payload]) -> int:
        """Keep items durably; return how many."""

    def hand_over(self, items: Sequence[Item | Payload]) -> None:
        """Keep items without waiting."""

    async def lines(self, device: int) -> tuple[TimeLine, ...]:
        """Return what is remembered of the device's clock."""

    async def remember_lines(self, device: int, lines: Sequence[TimeLine]) -> None:
        """Remember it."""


class Session:
    """What is known during one connection with `device`; `zone` is the home's time zone.

    A session that began before the hub knew the time does not learn it: all its instants count from
    the machine's start (edge.undated).
    """

    def __init__(
        self,
        link: Link,
        device: int,
        keeper: Keeper,
        counts: Counts,
        *,
        zone: tzinfo,
        pace: Pace,
        hub_clock: HubClock,
    ) -> None:
        self._link = link
        self._device = device
        self._keeper = keeper
        self._counts = counts
        self._zone = zone
        self._pace = pace
        self._clock = clock_of(link.characteristics)
        self._shown: DeviceTime | None = None
        self._pair: Pair | None = None
        self._has_recalled = False
        self._is_dated = hub_clock.is_known
        self._now = hub_clock.wall if self._is_dated else hub_clock.counted
        self._intake = Intake(
            device,
            counts,
            zone=zone,
            has_clock=self._clock is not None,
            is_dated=self._is_dated,
        )
        self._log = _log.bind(device=device_address(device))

    async def run(self) -> Outcome:
        """Talk with the device until it has nothing more to say or is gone; tell how it went.

        Raises:
            PairingError: the device wants a bond, and none can be made.
            LinkError: the link broke before anything came over it.
            UnavailableError: the disk is failing.
        """
        readable = {uuid for uuid in self._link.characteristics if gatt_sources(uuid)}
        if not readable:
            return Outcome.FOREIGN
        try:
            async with asyncio.timeout(self._pace.session_s_max):
                await self._subscribe(sorted(readable))
                await self._recall_lines()
                await self._learn_time()
                await self._fetch_stored(readable)
                await self._correct_time()
                await self._listen()
        except LinkError:
            await self._recall_lines()  # it may have broken before
            self._take()
            if not self._intake.taken:
                raise
        except TimeoutError:
            self._log.warning("session_interrupted", taken=self._intake.taken)
        if self._is_dated and self._has_recalled:
            await self._keeper.remember_lines(self._device, self._intake.lines)
        return Outcome.TAKEN if self._intake.taken else Outcome.EMPTY

    def close(self) -> None:
        """Hand over what came last; to be called once the link is down.

        A device goes on indicating while the link is being dropped, which takes BlueZ two seconds,
        and BlueZ goes on confirming: what comes then is in no other place any more.
        """
        self._take()
        last = [*self._intake.take_unfinished(), *self._intake.end_report().items]
        if last:
            self._keeper.hand_over(last)

    async def _subscribe(self, readable: Sequence[int]) -> None:
        """Subscribe to all that a sign reads, and to answers about stored records."""
        asked = [*readable, record_access.CHARACTERISTIC]
        for uuid in (uuid for uuid in asked if uuid in self._link.characteristics):
            on_value = partial(self._on_value, uuid)
            try:
                await self._link.subscribe(uuid, on_value)
            except SecurityError:
                await self._link.pair()
                await self._link.subscribe(uuid, on_value)

    async def _recall_lines(self) -> None:
        """Let what waits be placed by what is remembered of the device's clock."""
        if not self._has_recalled:
            self._intake.lines = await self._keeper.lines(self._device)
            self._has_recalled = True

    async def _learn_time(self) -> None:
        """Read the device's clock, where it shows one."""
        if self._clock is None:
            return
        try:
            if not self._is_dated:
                await self._keep_clock(self._clock)
                return
            self._shown, at = await self._read_clock(self._clock)
        except LinkError as error:
            self._check_link(error)
            self._clock = None
            return
        pair = pair_of(self._shown, at)
        if pair:
            self._note_pair(pair)

    async def _read_clock(self, clock: DeviceClock) -> tuple[DeviceTime | None, datetime]:
        """Return what the clock shows and when; None where it shows no date."""
        data, at = await self._read_clock_bytes(clock)
        try:
            shown = clock.decode(data)
        except DecodeError as error:
            raise LinkError(f"the device's clock: {error}") from error
        return shown, at

    async def _read_clock_bytes(self, clock: DeviceClock) -> tuple[bytes, datetime]:
        asked_at = self._now()
        data = await self._link.read(clock.characteristic)
        return data, asked_at + (self._now() - asked_at) / 2

    async def _keep_clock(self, clock: DeviceClock) -> None:
        """Keep what the device's clock shows until the hub knows the time."""
        data, at = await self._read_clock_bytes(clock)
        seen = Payload(device=self._device, source=clock.characteristic, data=data, received_at=at)
        await self._keeper.append([seen])

    async def _correct_time(self) -> None:
        """Set a clock that is wrong; believed only if it shows the right time afterwards."""
        clock = self._clock
        if clock is None or not self._is_dated or not needs_setting(self._pair, self._zone):
            return
        if not self._link.can_write(clock.characteristic):
            return
        set_at = self._now()
        try:
            setting = clock.encode(set_at.astimezone(self._zone), self._shown)
            await self._link.write(clock.characteristic, setting)
            pair = pair_of(*await self._read_clock(clock))
        except LinkError as error:
            self._check_link(error)
            pair = None
        is_right = pair is not None and abs(clock_error(pair, self._zone)) <= CLOCK_ERROR_MAX
        self._counts.clocks_set += is_right
        self._counts.clocks_refused += not is_right
        self._log.info("clock_set" if is_right else "clock_refused")
        if pair:
            self._note_pair(pair, set_at=set_at if is_right else None)

    def _note_pair(self, pair: Pair, set_at: datetime | None = None) -> None:
        self._pair = pair
        self._intake.pair = pair
        self._intake.lines = with_pair(self._intake.lines, pair, set_at=set_at)

    async def _fetch_stored(self, readable: AbstractSet[int]) -> None:
        """Have the stored records reported; delete those on the device that are durable here."""
        framings = {framing_of(uuid) for uuid in readable}
        if record_access.CHARACTERISTIC not in self._link.characteristics:
            return
        try:
            if Framing.STORED in framings:
                await self._fetch_whole()
            if Framing.STORED_SEGMENTS in framings:
                await self._fetch_numbered()
        except LinkError as error:
            self._check_link(error)

    async def _fetch_whole(self) -> None:
        """Have records reported that stay on the device: a meter's memory is its user's.

        They come again the next time, and are the same rows.
        """
        answer = await self._procedure(record_access.report_request())
        report = self._intake.end_report()
        await self._keeper.append(report.items)
        if not answer.succeeded:
            self._log.warning("report_refused", code=answer.code, came=len(report.items))

    async def _fetch_numbered(self) -> None:
        """Have records reported whose number is told; delete those that are durable here."""
        answer = await self._procedure(record_access.combined_report_request())
        report = self._intake.end_report()
        kept = await self._keeper.append(report.items)
        if (
            not answer.succeeded
            or not report.is_whole
            or (answer.records or 0) != len(report.items)
        ):
            # What came is kept here; the device keeps it all and sends it again.
            self._log.warning("report_incomplete", told=answer.records, came=len(report.items))
        elif report.items and kept == len(report.items):
            await self._procedure(record_access.delete_up_to_request(report.last_number))

    async def _procedure(self, request: bytes) -> RecordAccessResponse:
        """Run one procedure of the Record Access Control Point to its end."""
        self._intake.answers.clear()
        await self._link.write(record_access.CHARACTERISTIC, request)
        while not self._intake.answers:
            if not await self._news(self._pace.procedure_s):
                raise LinkError("record access: the device says nothing")
        return self._intake.answers.pop()

    async def _listen(self) -> None:
        """Take what comes until the device is gone or quiet, or nothing should be taken."""
        if ghs.CONTROL_POINT in self._link.characteristics:
            try:
                await self._link.write(ghs.CONTROL_POINT, ghs.CONTROL_START_LIVE)
            except LinkError as error:
                self._check_link(error)
        while not self._keeper.refusal and not self._intake.is_full:
            if not await self._news(self._pace.quiet_s):
                return

    async def _news(self, timeout_s: float) -> bool:
        """Take what has come, or wait for something to come; tell whether anything did.

        Raises:
            LinkError: the link is gone, and all that had come is taken.
        """
        if not self._intake.waiting:
            if self._link.is_ended:
                raise LinkError("the device has left")
            try:
                async with asyncio.timeout(timeout_s):
                    await self._link.news.wait()
            except TimeoutError:
                return False
        self._link.news.clear()
        self._take()
        return True

    def _on_value(self, uuid: int, data: bytes) -> None:
        self._intake.put(uuid, data, self._now())
        self._link.news.set()

    def _take(self) -> None:
        items = self._intake.take()
        if items:
            self._keeper.hand_over(items)

    def _check_link(self, error: LinkError) -> None:
        """Go on after what a device refused, unless the link is gone."""
        if self._link.is_ended:
            raise error
        self._log.warning("device_refused", why=str(error))
