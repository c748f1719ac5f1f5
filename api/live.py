"""Live events: new readings and alerts of those whom a client may see, as they are stored.

Server-sent events (WHATWG HTML, 9.2). One reader a process follows the feed of changes; each client
has a bounded queue. Every event is decided and audited by the database for the one who gets it. An
event's id is a place in the feed, given with the last event of a change: whoever resumes behind it
(Last-Event-ID) gets all that came since, some of it perhaps again. Late and re-attributed readings
come too, with their own times.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

import orjson

from api import metrics
from api.access import ForbiddenError, Principal, Role, SignedOutError
from api.archive import Archive
from api.json_rows import measurement_document
from api.live_reads import (
    Given,
    News,
    Wanted,
    end_of_feed,
    is_kept,
    read_feed,
    read_news,
    residents_of,
    watched,
)
from gateway.errors import UnavailableError
from gateway.platform.changes import CHANGES_A_READ, START, Place
from gateway.platform.logs import get_logger

FOLLOWERS_MAX = 1000
"""More clients of one process are refused (503)."""
FOLLOWERS_OF_A_PERSON_MAX = 20
"""More streams of one person's account are refused (429), so that none keeps the others out."""
QUEUE_EVENTS_MAX = 1000
"""A client that has so many events unread is dropped, by an event that says so; it can resume."""
POLL_S = 0.05
"""How often the feed is looked at while somebody follows."""
RETRY_S = 1.0
"""When the database is down, it is tried again after this."""
KEEP_ALIVE_S = 15.0
"""A comment is sent when nothing else was for so long, so that no proxy takes it for dead."""
REFRESH_S = 300.0
"""How often it is asked anew whom a client may see, and whether it is still signed in."""
FOLLOW_S_MAX = 3600.0
"""A stream ends after this, and the client comes again with a fresh token."""
RESUME_CHANGES_MAX = 20_000
"""Whoever resumes further back than so many changes is told to begin anew."""

_PLACE = re.compile(r"(?P<transaction>[0-9]{1,19})-(?P<change>[0-9]{1,19})")
_log = get_logger(__name__)


class Told(Enum):
    """What a stream says beside measurements: the names of its events."""

    READY = "ready"
    """From here on, nothing is missed."""
    RESET = "reset"
    """What lies between is not kept any more: read the measurements anew, then go on."""
    DROPPED = "dropped"
    """The client read too slowly: connect again with the last id."""
    SIGNED_OUT = "signed_out"
    """The account or session is not good any more."""
    RECONNECT = "reconnect"
    """The stream ends by itself: connect again with the last id."""


class TooManyFollowersError(Exception):
    """There are as many clients as there may be: `of_one`, this account's, else the process's."""

    def __init__(self, *, of_one: bool) -> None:
        super().__init__(of_one)
        self.of_one = of_one


@dataclass(slots=True, kw_only=True, eq=False)
class Follower:
    """One client."""

    principal: Principal
    only: Sequence[UUID] | None
    """Of these residents, None: of all whom the principal may see."""
    whom: dict[int, UUID] = field(default_factory=dict)
    events: asyncio.Queue[bytes | Told] = field(
        default_factory=lambda: asyncio.Queue(QUEUE_EVENTS_MAX)
    )

    def give(self, event: bytes | Told) -> None:
        """Queue an event; when there is no room, drop what waits and say so."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            while not self.events.empty():
                self.events.get_nowait()
            self.events.put_nowait(Told.DROPPED)
            metrics.LIVE_DROPPED.inc()


class Feed:
    """The one reader of changes in a process, and its clients."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._followers: set[Follower] = set()
        self._somebody = asyncio.Event()
        self._attaching = asyncio.Lock()
        self._place: Place | None = None
        self._ended = False

    async def run(self) -> None:
        """Deliver until `end` is called."""
        while not self._ended:
            await self._somebody.wait()
            try:
                more = bool(self._followers) and await self._deliver()
            except UnavailableError as error:
                _log.warning("live_feed_waits", why=str(error), again_in_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            if not more:
                await asyncio.sleep(POLL_S)

    def end(self) -> None:
        """End all streams and the reader."""
        self._ended = True
        self._somebody.set()
        for follower in self._followers:
            follower.give(Told.RECONNECT)

    @asynccontextmanager
    async def followed(self, follower: Follower) -> AsyncIterator[Place]:
        """Have a follower's events queued for the block; yields the place behind which they are.

        Raises:
            ForbiddenError: the principal may see no one's values.
            SignedOutError: the account is disabled or the session revoked.
            TooManyFollowersError: the process, or the account, has as many as it may.
            UnavailableError: the database is down.
        """
        follower.whom = await watched(self._archive, follower.principal, follower.only)
        async with self._attaching:
            self._require_room(follower.principal)
            if not self._followers:
                self._place = await end_of_feed(self._archive)
            place = self._place or START
            self._followers.add(follower)
            metrics.LIVE_CLIENTS.set(len(self._followers))
            self._somebody.set()
        try:
            yield place
        finally:
            self._followers.discard(follower)
            metrics.LIVE_CLIENTS.set(len(self._followers))
            if not self._followers and not self._ended:
                self._somebody.clear()

    def _require_room(self, principal: Principal) -> None:
        if len(self._followers) >= FOLLOWERS_MAX:
            raise TooManyFollowersError(of_one=False)
        of_one = sum(other.principal.user == principal.user for other in self._followers)
        if principal.role is not Role.SERVICE and of_one >= FOLLOWERS_OF_A_PERSON_MAX:
            raise TooManyFollowersError(of_one=True)

    async def refresh(self, follower: Follower) -> None:
        """Ask anew whom a follower may see."""
        follower.whom = await watched(self._archive, follower.principal, follower.only)

    async def missed(
        self, follower: Follower, after: Place, until: Place
    ) -> AsyncIterator[list[bytes]]:
        """Yield the events of the changes behind `after` up to `until`, a change at a time."""
        while after < until:
            feed = await read_feed(self._archive, after)
            if not feed:
                return
            given = await self._given([follower], feed)
            for number, news in enumerate(feed):
                if news.place > until:
                    return
                events = _events(given, 0, number, news, follower.whom)
                if events:
                    yield events
            after = feed[-1].place

    async def can_resume(self, after: Place, until: Place) -> bool:
        """Tell whether all that changed behind a place is still there, and is not too much."""
        is_near = until.change - after.change <= RESUME_CHANGES_MAX
        return is_near and await is_kept(self._archive, after)

    async def _deliver(self) -> bool:
        """Deliver what changed since; returns whether there may be more at once."""
        assert self._place is not None  # noqa: S101 - set before the first follower is added
        feed = await read_feed(self._archive, self._place)
        if not feed:
            return False
        followers = list(self._followers)
        given = await self._given(followers, feed)
        for reader, follower in enumerate(followers):
            for number, news in enumerate(feed):
                for event in _events(given, reader, number, news, follower.whom):
                    follower.give(event)
        self._place = feed[-1].place
        return len(feed) == CHANGES_A_READ

    async def _given(self, followers: Sequence[Follower], feed: Sequence[News]) -> _Given:
        """Read what is of interest to anybody, each event rendered once."""
        residents = set().union(*map(residents_of, feed))
        public = {
            resident_id: follower.whom[resident_id]
            for follower in followers
            for resident_id in residents & follower.whom.keys()
        }
        if not public:
            return _Given()
        given = await read_news(
            self._archive,
            Wanted(
                readers=[follower.principal for follower in followers],
                pairs=[
                    (reader, follower.whom[resident_id])
                    for reader, follower in enumerate(followers)
                    for resident_id in residents & follower.whom.keys()
                ],
                news=list(enumerate(feed)),
                public=public,
            ),
        )
        return _rendered(given, public)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    resident_id: int
    sign: int | None
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """Events by the number of their news, and who may have whose."""

    events: dict[int, list[_Event]] = field(default_factory=dict)
    admitted: dict[tuple[int, int], frozenset[int]] = field(default_factory=dict)


async def stream(
    feed: Feed, follower: Follower, after: Place | None
) -> AsyncGenerator[bytes, None]:
    """Yield the stream of a follower, from a place on where one is given.

    Raises:
        ForbiddenError, SignedOutError, TooManyFollowersError, UnavailableError: before the first event.
    """
    async with feed.followed(follower) as here:
        yield b"retry: 1000\n\n"
        if after is not None:
            if await feed.can_resume(after, here):
                async for events in feed.missed(follower, after, here):
                    for event in events:
                        yield event
            else:
                yield _told(Told.RESET)
        yield _told(Told.READY, here)
        ends_at = asyncio.get_running_loop().time() + FOLLOW_S_MAX
        async for event in _queued(feed, follower, ends_at):
            yield event


async def _queued(feed: Feed, follower: Follower, ends_at: float) -> AsyncIterator[bytes]:
    clock = asyncio.get_running_loop().time
    refresh_at = clock() + REFRESH_S
    while clock() < ends_at:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                event = await follower.events.get()
        except TimeoutError:
            yield b": keep-alive\n\n"
        else:
            if isinstance(event, Told):
                yield _told(event)
                return
            yield event
        if clock() >= refresh_at:
            refresh_at = clock() + REFRESH_S
            try:
                await feed.refresh(follower)
            except SignedOutError:
                yield _told(Told.SIGNED_OUT)
                return
            except ForbiddenError:
                yield _told(Told.RECONNECT)
                return
            except UnavailableError:
                continue  # as before; each event is decided by itself anyway
    yield _told(Told.RECONNECT)


def read_place(text: str | None) -> Place | None:
    """Return the place that a Last-Event-ID names; None for none.

    Raises:
        ValueError: it was not given out by a stream.
    """
    if not text:
        return None
    match = _PLACE.fullmatch(text)
    if match is None:
        raise ValueError("no such id was given out")
    place = Place(int(match["transaction"]), int(match["change"]))
    if max(place) >= 1 << 63:
        raise ValueError("no such id was given out")
    return max(place, START)


def _events(
    given: _Given, reader: int, number: int, news: News, whom: dict[int, UUID]
) -> list[bytes]:
    """Return what a reader may have of one piece of news; the last event bears its id."""
    texts = [
        event.text
        for event in given.events.get(number, ())
        if event.resident_id in whom
        and (withheld := given.admitted.get((reader, event.resident_id))) is not None
        and event.sign not in withheld
    ]
    if texts:
        texts[-1] = b"id: %d-%d\n" % news.place + texts[-1]
    return texts


def _rendered(given: Given, public: Mapping[int, UUID]) -> _Given:
    events: dict[int, list[_Event]] = {}
    for measured in given.measured:
        document = {
            "resident": public[measured.resident_id],
            "measurement": measurement_document(measured.measurement),
        }
        event = _Event(
            resident_id=measured.resident_id,
            sign=measured.measurement.place.sign,
            text=b"event: measurement\ndata: %b\n\n" % orjson.dumps(document),
        )
        events.setdefault(measured.news, []).append(event)
    for alerted in given.alerted:
        document = {
            "resident": public[alerted.resident_id],
            "what": alerted.what,
            "at": alerted.at,
            "alert": alerted.alert,
        }
        event = _Event(
            resident_id=alerted.resident_id,
            sign=alerted.sign,
            text=b"event: alert\ndata: %b\n\n" % orjson.dumps(document, option=orjson.OPT_UTC_Z),
        )
        events.setdefault(alerted.news, []).append(event)
    return _Given(events=events, admitted=dict(given.admitted))


def _told(told: Told, place: Place | None = None) -> bytes:
    id_ = b"" if place is None else b"id: %d-%d\n" % place
    return b"%bevent: %b\ndata: {}\n\n" % (id_, told.value.encode())
