"""The embedded broker: Mosquitto 2 on loopback, its sessions under HEARTH_HOME.

When the process that owns it dies, even by kill -9, the broker saves its sessions and ends. Who may
connect can be changed at any time, from any process, and cuts off nobody but the revoked.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from gateway.errors import UnavailableError
from gateway.platform.embedded.authentication import Passwords
from gateway.platform.embedded.broker_config import INGEST, Files, access_rules, configuration
from gateway.platform.embedded.mqtt_probe import lets_in
from gateway.platform.embedded.packages import Packages
from gateway.platform.embedded.server import Server
from gateway.platform.embedded.unprivileged import own_all, run_as_for, write_for
from gateway.platform.process import READY_POLL_S, Program, RunAs
from gateway.platform.settings import LOOPBACK

RELOAD_S_MAX = 10.0
"""A broker that has not taken changed passwords within this is stuck."""


class Broker(Server):
    """The embedded broker of one home."""

    name = "broker"
    title = "消息代理 / the broker"
    ready_s_max = 30.0
    """A start includes reading the sessions back."""

    def __init__(self, home: Path, packages: Packages) -> None:
        super().__init__(home, packages)
        self._files = Files(
            access=self.folder / "access",
            passwords=self.folder / "passwords",
            data=self.folder / "data",
        )
        self._passwords = Passwords(self.home, self._files.passwords)

    def url(self, user: str = INGEST) -> str:
        """Return the address for a user; it holds the password."""
        return f"mqtt://{user}:{self._passwords.of(user)}@{LOOPBACK}:{self.port}"

    def password_file(self, user: str) -> Path:
        """Return the file that holds the password of an admitted user."""
        return self._passwords.path_of(user)

    def users(self) -> set[str]:
        """Return who may connect."""
        return self._passwords.users()

    def admit(self, *users: str) -> None:
        """Let users in from now on: a hub by its id. Done when a running broker lets them in.

        Raises:
            UnavailableError: the broker does not take the change.
        """
        self._change(admit=users)

    def revoke(self, *users: str) -> None:
        """Keep users out from now on and cut off their connections.

        Raises:
            UnavailableError: the broker does not take the change.
        """
        self._change(revoke=users)

    def prepare(self, run_as: RunAs | None) -> None:
        """Make the folder of the sessions and let ingest in."""
        self._files.data.mkdir(mode=0o700, exist_ok=True)
        own_all(run_as, self._files.data)
        self._passwords.change(admit=[INGEST], revoke=[], run_as=run_as)

    def program(self, port: int, run_as: RunAs | None) -> Program:
        """Write mosquitto.conf and return the command."""
        file = self.folder / "mosquitto.conf"
        file.write_text(configuration(port, self._files), encoding="utf-8")
        write_for(run_as, self._files.access, access_rules())
        return Program(
            name="mosquitto",
            argv=(str(self.packages.program("mosquitto")), "-c", str(file)),
            log=self.home / "log" / "broker.log",
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            run_as=run_as,
        )

    def is_ready(self) -> bool:
        """Tell whether it lets ingest in."""
        return self._lets_in(INGEST)

    def complete(self) -> None:
        """Nothing is lacking once it lets users in."""

    def _change(self, admit: Iterable[str] = (), revoke: Iterable[str] = ()) -> None:
        admit, revoke = tuple(admit), tuple(revoke)
        self.folder.mkdir(parents=True, exist_ok=True)
        run_as = run_as_for(self.folder, self.packages.root)
        former = {user: self._passwords.of(user) for user in revoke}
        self._passwords.change(admit, revoke, run_as)
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_S_MAX
        # It reads the whole file at once, so one user of the change speaks for all.
        while (admit and not self._lets_in(admit[-1])) or (
            revoke and lets_in(self.port, revoke[-1], former[revoke[-1]])
        ):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.title}: 未采用新密码 / did not take changed passwords in "
                    f"{RELOAD_S_MAX:.0f} s"
                )
            time.sleep(READY_POLL_S)

    def _lets_in(self, user: str) -> bool:
        return lets_in(self.port, user, self._passwords.of(user))
