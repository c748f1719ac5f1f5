"""An ingest worker that sends receipts and acknowledges before COMMIT."""

from __future__ import annotations

import asyncio

from bench.chaos.ingest import main
from ingest.pipeline import Pipeline
from ingest.store import Outcome, Prepared

COMMIT_S = 0.3
"""A commit on a slow disk: a worker that is killed is likely to be within one."""
_commit = Pipeline._commit


async def answer_and_commit(self: Pipeline, prepared: Prepared) -> None:
    answer = self._answer
    answer(
        prepared.flush,
        [
            Outcome(
                batch=batch,
                stored=batch.header.count,
                duplicate=0,
                quarantined=0,
                again=False,
            )
            for batch in prepared.flush.batches
        ],
    )
    await asyncio.sleep(COMMIT_S)
    self._answer = lambda _flush, _outcomes: None
    try:
        await _commit(self, prepared)
    finally:
        self._answer = answer


Pipeline._commit = answer_and_commit  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
