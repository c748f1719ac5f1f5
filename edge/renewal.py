"""A hub renews its certificate by itself, well before its end; a failure is retried and shown.

By HTTP to the API, signed with the key of the certificate that is renewed: that works with a
certificate that has ended, and without a broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge.counts import Counts
from edge.enrolment import EnrolmentRefusedError, Post, renew
from edge.identity import Identity, is_possible, keep_failure, read_identity
from gateway.errors import UnavailableError, UsageError
from gateway.platform.backoff import Backoff
from gateway.platform.ca import due_at
from gateway.platform.logs import get_logger

RETRY = Backoff(first_s=60.0, longest_s=6 * 3600.0)
"""After a failed renewal: ten days are left, some forty tries at least."""
LOOK_S_MAX = 3600.0
"""The clock is looked at so often at least: it may be set meanwhile."""
DISAGREEMENT_MAX = timedelta(days=1)
"""A clock that is further from what the authority told is wrong."""
REST_S_MIN = 600.0
"""Two renewals are so far apart at least, whatever the clock says."""

_log = get_logger(__name__)


class AuthorityTime:
    """What time it is by the authority, as far as this hub can know.

    The own clock counts unless it is certainly wrong: before the certificate was issued, or far from
    what the authority told. Then it is what was told, or the issue, and what has passed since.
    """

    def __init__(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._began_s = monotonic_s()
        self._told: tuple[datetime, float] | None = None

    def told(self, at: datetime) -> None:
        """Note what the authority said it was."""
        self._told = at, self._monotonic_s()

    def now(self, identity: Identity) -> datetime:
        """Return the time."""
        own = self._clock()
        if self._told is None:
            if is_possible(own, identity.hub.certificate):
                return own
            return identity.issued_at + self._since(self._began_s)
        at, at_s = self._told
        believed = at + self._since(at_s)
        return own if abs(own - believed) < DISAGREEMENT_MAX else believed

    def _since(self, at_s: float) -> timedelta:
        return timedelta(seconds=self._monotonic_s() - at_s)


class Renewer:
    """Keeps the certificate of one hub good."""

    def __init__(
        self,
        hub: str,
        folder: Path,
        post: Post,
        counts: Counts,
        *,
        authority_time: AuthorityTime | None = None,
        retry: Backoff = RETRY,
    ) -> None:
        self._folder = folder
        self._post = post
        self._counts = counts
        self._time = authority_time or AuthorityTime()
        self._retry = retry
        self._log = _log.bind(hub=hub)
        self._identity = read_identity(folder)
        """As it was read last: files that cannot be read for a while end nothing."""

    @property
    def left_s(self) -> float:
        """How long the certificate is still good."""
        return self._until(self._identity.hub.certificate.not_valid_after_utc)

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        failures = 0
        while True:
            try:
                wait_s = await self._look()
            except (UnavailableError, UsageError, EnrolmentRefusedError) as error:
                failures += 1
                wait_s = self._retry.wait_s(failures)
                self._fail(error, wait_s)
            else:
                failures = 0
            await asyncio.sleep(wait_s)

    async def _look(self) -> float:
        """Renew if it is due; return in how many seconds to look again."""
        self._identity = await asyncio.to_thread(read_identity, self._folder)
        left_s = self._until(due_at(self._identity.hub.certificate))
        if left_s > 0:
            return min(left_s, LOOK_S_MAX)
        await self._renew()
        return REST_S_MIN

    async def _renew(self) -> None:
        enrolled = await asyncio.to_thread(renew, self._identity, self._folder, self._post)
        self._time.told(enrolled.at)
        self._counts.certificates_renewed += 1
        keep_failure(self._folder, None)
        self._identity = enrolled.identity
        ends_at = enrolled.identity.hub.certificate.not_valid_after_utc
        self._log.info("certificate_renewed", until=ends_at.isoformat())

    def _until(self, moment: datetime) -> float:
        return (moment - self._time.now(self._identity)).total_seconds()

    def _fail(self, error: Exception, wait_s: float) -> None:
        self._counts.certificate_failures += 1
        why = "revoked" if isinstance(error, EnrolmentRefusedError) else str(error)
        now = self._time.now(self._identity)
        keep_failure(self._folder, f"{now.isoformat(timespec='seconds')} {why}")
        left = self._identity.hub.certificate.not_valid_after_utc - now
        log = self._log.error if left < timedelta(0) else self._log.warning
        log("certificate_not_renewed", why=why, wait_s=round(wait_s), days_left=left.days)
