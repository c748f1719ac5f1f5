"""What other gateways hand over through FHIR: batches that the API left in a table, as messages.

One more source beside the lanes, with the same way behind it: verdicts, ledger, quarantine. What the
PUBACK is to a lane, removing the row is here; it happens after the COMMIT, so a worker that dies in
between leaves the batch to be read again, and the ledger knows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from gateway import wire
from gateway.errors import UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger
from gateway.platform.postgres import AsyncConnection, connect, load_queries, translated
from ingest import metrics
from ingest.batches import Message

INBOX = wire.LANES
"""Stands for a lane's number in messages of the inbox; no lane has it."""
TAKEN_MAX = 256
"""So many of its batches are on their way at once; the others wait in the table, which is bounded too
(api.fhir.creation)."""
LOOK_S = 0.1
"""How often the table is looked at."""
COUNT_S = 5.0
"""How often it is counted what waits."""
TURN_S = 2.0
"""How often a worker that does not read it asks whether it is its turn."""
BACKOFF = Backoff(first_s=0.2, longest_s=5.0)

_QUERIES = load_queries(Path(__file__).parent / "sql" / "inbox.sql")
_log = get_logger(__name__)


class Inbox:
    """Reads the table while this worker has the turn; `took_turn` is called when it gets it."""

    def __init__(
        self, dsn: str, deliver: Callable[[Message], None], took_turn: Callable[[], None]
    ) -> None:
        self._dsn = dsn
        self._deliver = deliver
        self._took_turn = took_turn
        self._taken: set[int] = set()
        self._committed: list[int] = []

    def acknowledge(self, token: int) -> None:
        """Let a message's row be removed: it is committed."""
        self._committed.append(token)

    async def read_forever(self) -> None:
        """Deliver what is in the table, and remove what was committed."""
        failures = 0
        while True:
            try:
                async with await connect(
                    self._dsn, application="hearth-ingest-inbox", autocommit=True
                ) as connection:
                    with translated():
                        failures = 0
                        await self._read(connection)
            except UnavailableError as error:
                failures += 1
                metrics.INBOX_WAITING.set(0)  # another worker has the turn, and counts
                _log.warning("inbox_lost", why=str(error))
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _read(self, connection: AsyncConnection) -> None:
        while not await _has_turn(connection):  # noqa: ASYNC110 - another process gives it up
            await asyncio.sleep(TURN_S)
        self._took_turn()
        count_at_s = 0.0
        while True:
            await self._remove(connection)
            if time.monotonic() >= count_at_s:
                count_at_s = time.monotonic() + COUNT_S
                metrics.INBOX_WAITING.set(await _waiting(connection))
            cursor = await connection.execute(
                _QUERIES["waiting"],
                {"taken": list(self._taken), "limit": TAKEN_MAX - len(self._taken)},
            )
            for inbox_id, hub, received_at, payload in await cursor.fetchall():
                self._taken.add(inbox_id)
                self._deliver(
                    Message(
                        lane=INBOX,
                        token=inbox_id,
                        hub=wire.hub_id(hub),
                        payload=bytes(payload),
                        received_at=received_at,
                    )
                )
            await asyncio.sleep(LOOK_S)

    async def _remove(self, connection: AsyncConnection) -> None:
        committed = self._committed.copy()
        if committed:
            await connection.execute(_QUERIES["remove"], {"committed": committed})
            metrics.INBOX_TAKEN.inc(len(committed))
            del self._committed[: len(committed)]
            self._taken.difference_update(committed)


async def _waiting(connection: AsyncConnection) -> int:
    cursor = await connection.execute(_QUERIES["count"])
    ((waiting,),) = await cursor.fetchall()
    return int(waiting)


async def _has_turn(connection: AsyncConnection) -> bool:
    cursor = await connection.execute(_QUERIES["take_turn"])
    ((has_turn,),) = await cursor.fetchall()
    return bool(has_turn)
