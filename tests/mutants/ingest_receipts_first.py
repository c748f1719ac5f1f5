"""An ingest worker that sends receipts and acknowledges before COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import ingest.app
from bench.chaos.ingest import main
from ingest.batches import Flush, Message
from ingest.pipeline import Pipeline, RegistrySource
from ingest.store import Prepared
from ingest.writing import Outcome

COMMIT_S = 0.3
"""A commit on a slow disk: a worker that is killed is likely to be within one."""


class AnswersFirst(Pipeline):
    """Answers when a flush is prepared, and no more when it is committed."""

    def __init__(
        self,
        dsn: str,
        next_flush: Callable[[], Awaitable[list[Message]]],
        registry: RegistrySource,
        answer: Callable[[Flush, Sequence[Outcome]], None],
        *,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(dsn, next_flush, registry, lambda *_: None, now_ms=now_ms)
        self._answer_first = answer

    async def _prepare(self, messages: Sequence[Message]) -> Prepared:
        prepared = await super()._prepare(messages)
        flush = prepared.content.flush
        outcomes = [
            Outcome(batch=batch, stored=batch.header.count, duplicate=0, quarantined=0, again=False)
            for batch in flush.batches
        ]
        self._answer_first(flush, outcomes)
        await asyncio.sleep(COMMIT_S)
        return prepared


ingest.app.Pipeline = AnswersFirst  # type: ignore[attr-defined, assignment]

if __name__ == "__main__":
    main()
