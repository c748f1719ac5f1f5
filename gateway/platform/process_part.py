"""A program that a `gateway.platform.supervisor` keeps running."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.platform.process import Child, Program

READY_S_MAX = 60.0
"""A program that does not answer by then does not start."""


class Process:
    """A `Part` of its own process. It can be started again, the same way, until it is stopped for good."""

    def __init__(
        self, program: Callable[[], Program], is_ready: Callable[[], bool] | None = None
    ) -> None:
        """Start it and wait for nothing; `program` is asked at each start.

        `is_ready`: what `wait_ready` waits for; None: that it runs.

        Raises:
            UnavailableError: no process can be made.
        """
        self._program = program
        self._is_ready = is_ready or (lambda: True)
        self._turn = threading.Lock()
        """A restart and the end exclude each other."""
        self._is_wanted = True
        self._child = Child(program())

    @property
    def name(self) -> str:
        """Of the part and of its log."""
        return self._child.program.name

    def wait_ready(self) -> None:
        """Wait until it answers.

        Raises:
            UnavailableError: it ended, or does not answer in time; the text quotes its log.
        """
        self._child.wait_ready(self._is_ready, READY_S_MAX)

    def needs_restart(self) -> bool:
        """Tell whether it has ended although nobody stopped it."""
        return self._is_wanted and not self._child.is_alive()

    def restart(self) -> None:
        """End it, should it still run, and start it again; one that was stopped stays so.

        It is not waited for: what it needs to be ready may have died too, and be next in turn.

        Raises:
            UnavailableError: no process can be made.
        """
        with self._turn:
            if self._is_wanted:
                self._child.stop()
                self._child = Child(self._program())

    def stop(self) -> None:
        """End it for good."""
        with self._turn:
            self._is_wanted = False
            self._child.stop()
