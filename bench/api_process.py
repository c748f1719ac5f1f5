"""`hearth api` as it starts by itself, in processes of its own, over a database of a measurement's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from api.access import Role
from api.issuer.keys import KeyRing
from api.issuer.tokens import AUDIENCE, Account, Signer
from api.processes import processes_for
from gateway.errors import UnavailableError
from gateway.platform.postgres import connect_blocking, dsn_with, sql

START_S_MAX = 120.0
"""An API that does not serve by then does not start."""
ROLE = "hearth_api"
SERVICE = Account(id=UUID(int=1), login="bench", role=Role.SERVICE)
"""Who asks in a measurement."""

_ISSUER = "http://bench"
_SCOPES = "system/*.rs"
_LIFE = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiProcess:
    """Where it serves, and the token that it takes."""

    port: int
    token: str


def readers_of(server: str, *dsns: str) -> list[str]:
    """Enter the service that asks, let the API's role log in; returns the DSNs as which it reads."""
    for dsn in dsns:
        with connect_blocking(dsn, application="hearth-bench") as connection:
            connection.execute(
                "INSERT INTO account (public_id, login, role, scopes)"
                " VALUES (%s, 'bench', 'service', %s)",
                [SERVICE.id, _SCOPES.split()],
            )
    password = os.urandom(16).hex()
    with connect_blocking(server, application="hearth-bench", autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(ROLE), password)
        )
    return [dsn_with(dsn, user=ROLE, password=password) for dsn in dsns]


@contextmanager
def running_api(reader: str) -> Iterator[ApiProcess]:
    """Run the API for the block, without a limit of requests; its tokens are its own issuer's."""
    with tempfile.TemporaryDirectory() as home:
        signer = Signer(key=KeyRing(Path(home)), issuer=_ISSUER, audience=AUDIENCE)
        token = signer.access_token(
            SERVICE, datetime.now(UTC), session=None, client="bench", scope=_SCOPES, lifetime=_LIFE
        )
        environment = os.environ | {
            "HEARTH_HOME": home,
            "HEARTH_API_DATABASE_URL": reader,
            "HEARTH_API_URL": _ISSUER,
            "HEARTH_API_PROCESSES": "0",
            "HEARTH_API_RATE_PER_S": "0",
            "HEARTH_LOG_FORMAT": "json",
            "HEARTH_LOG_LEVEL": "info",
        }
        command = [sys.executable, "-m", "gateway.cli.main", "api", "--port", "0"]
        log = Path(home) / "api.log"
        with (
            log.open("w") as sink,
            subprocess.Popen(command, env=environment, stderr=sink) as process,  # noqa: S603 - ours
        ):
            try:
                yield ApiProcess(port=_port(log, process), token=token)
            finally:
                process.terminate()
                process.wait(30)


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    """Return the port that each process of the API logs when it accepts connections."""
    until = time.monotonic() + START_S_MAX
    while process.poll() is None and time.monotonic() < until:
        said = [json.loads(line) for line in log.read_text().splitlines()]
        ports = [one["port"] for one in said if one.get("event") == "api_started"]
        if len(ports) == processes_for(0):
            return int(ports[0])
        time.sleep(0.05)
    raise UnavailableError(f"the API does not start: {log.read_text()}")
