"""The embedded broker: Mosquitto 2, its sessions under HEARTH_HOME, certificates for everybody.

Hubs come to it through a gate, HAProxy, which bounds what each brings (gate_config). When the
process that owns it dies, even by kill -9, the broker saves its sessions and ends. Hubs can be revoked
at any time, from any process, and that cuts off nobody but the revoked.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.errors import UnavailableError
from gateway.platform import ca
from gateway.platform.broker_address import BrokerAccess
from gateway.platform.embedded.broker_config import (
    INGEST,
    Files,
    Listeners,
    access_rules,
    configuration,
)
from gateway.platform.embedded.gate_config import Gate, gate_configuration
from gateway.platform.embedded.mqtt_probe import lets_in
from gateway.platform.embedded.packages import Packages
from gateway.platform.embedded.server import Server, log, start_on_port
from gateway.platform.embedded.unprivileged import own_all, run_as_for, write_for
from gateway.platform.ports import remembered_port, require_free
from gateway.platform.process import READY_POLL_S, Child, Program, RunAs
from gateway.platform.secret_files import secret_folder, write_private
from gateway.platform.settings import HUB_BYTES_PER_S, LOOPBACK

RELOAD_S_MAX = 8.0
"""A broker that has not taken a new list of revoked certificates within this is stuck."""
GATE_S_MAX = 10.0
"""A gate that lets no hub in so long after its start is given up."""

_CLIENT = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""No character that means something in a topic filter or in a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForHubs:
    """Where the broker listens for hubs, and the host names and addresses that they know it by."""

    host: str = LOOPBACK
    port: int = 0
    """0: any free one, the same at every start."""
    names: tuple[str, ...] = ()
    bytes_per_s: int = HUB_BYTES_PER_S
    """What each connection may bring for ever; what is beyond waits in the hub's socket."""

    @property
    def all_names(self) -> tuple[str, ...]:
        """What the broker's certificate names: these, and this machine's own."""
        return tuple(dict.fromkeys((LOOPBACK, "localhost", socket.gethostname(), *self.names)))


class Broker(Server):
    """The embedded broker of one home."""

    name = "broker"
    title = "消息代理 / the broker"
    ready_s_max = 30.0
    """A start includes reading the sessions back."""

    def __init__(self, home: Path, packages: Packages, for_hubs: ForHubs | None = None) -> None:
        super().__init__(home, packages)
        self._for_hubs = for_hubs or ForHubs()
        self._gate: Child | None = None
        server = self.folder / "server.pem"
        self._files = Files(
            access=self.folder / "access",
            data=self.folder / "data",
            certificate=server,
            key=server,
            hubs=self.folder / "hubs.pem",
            services=self.folder / "services.pem",
            revoked=self.folder / "revoked.pem",
        )

    @property
    def services_port(self) -> int:
        """The port on loopback for services.

        Raises:
            UnavailableError: it never ran.
        """
        return self._remembered("services_port")

    @property
    def hubs_url(self) -> str:
        """Where hubs on this machine reach it.

        Raises:
            UnavailableError: it never ran.
        """
        return f"mqtts://{LOOPBACK}:{self.port}"

    def access(self, client: str = INGEST) -> BrokerAccess:
        """Return how ingest, or a hub that was admitted, connects from this machine."""
        port = self.services_port if client == INGEST else self.port
        return BrokerAccess(
            url=f"mqtts://{LOOPBACK}:{port}",
            ca_file=self._files.services,
            cert_file=self._client_file(client),
        )

    def admit(self, *hubs: str) -> None:
        """Give hubs of this machine, simulated ones, keys and certificates without enrolment.

        The broker need not run, nor be told: who has a certificate is let in. A hub that was revoked
        is given a new one.
        """
        authority = ca.authority(self.home, ca.Role.HUBS)
        for hub in hubs:
            path = self._client_file(hub)
            if not _is_good(path, authority):
                key = ca.new_key()
                certificate = authority.issue_for_hub(key.public_key(), hub)
                write_private(path, ca.Bundle(certificate=certificate, key=key).pem())

    def revoke(self, *hubs: str, serials: Iterable[int] = ()) -> None:
        """Keep hubs out from now on and cut off their connections; done when both is so.

        Their certificates count no more: those with these serial numbers, and those of `admit`.

        Raises:
            UnavailableError: the broker does not take the change.
        """
        revoked = set(serials)
        for hub in hubs:
            path = self._client_file(hub)
            if path.exists():
                revoked.add(ca.Bundle.from_pem(path.read_bytes()).certificate.serial_number)
                path.unlink()
        # Made to be refused: when it is, the broker has taken the new list.
        canary, canary_file = self._canary()
        try:
            revoked_list = ca.revoke(self.home, {*revoked, canary})
            if self.pid is not None:
                self._write(self._files.revoked, revoked_list)
                self._reload(until=lambda: not self._is_let_in(self.port, canary_file))
                for hub in hubs:
                    self._cut_off(hub)
        finally:
            canary_file.unlink()

    def renew(self) -> None:
        """Make the certificates anew that are due, and let a running broker take them."""
        if self._certify(self._run_as()) and self.pid is not None:
            self._reload(until=self.is_ready)

    def prepare(self, run_as: RunAs | None) -> None:
        """Make the folder of the sessions and the certificates."""
        self._close_gate()
        self._files.data.mkdir(mode=0o700, exist_ok=True)
        own_all(run_as, self._files.data)
        self._certify(run_as)
        if wanted := self._for_hubs.port:
            require_free(wanted, "HEARTH_MQTT_PORT")
            self._gate_port_file.write_text(f"{wanted}\n", encoding="ascii")

    def program(self, port: int, run_as: RunAs | None) -> Program:
        """Write mosquitto.conf and return the command."""
        listeners = Listeners(
            host=LOOPBACK,
            port=port,
            services_port=remembered_port(
                self.folder / "services_port", other_than=(port, *self.other_ports())
            ),
        )
        file = self.folder / "mosquitto.conf"
        file.write_text(configuration(listeners, self._files), encoding="utf-8")
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
        return self._is_let_in(self.services_port, self._client_file(INGEST))

    def other_ports(self) -> Collection[int]:
        """Return the gate's: it is not open while the broker starts, and keeps its port."""
        with suppress(UnavailableError):
            return (self.port,)
        return ()

    def complete(self) -> None:
        """Open the gate."""
        _serial, canary_file = self._canary()
        try:
            self._gate, port = start_on_port(
                self._gate_port_file,
                self._gate_program,
                lambda: self._is_let_in(self.port, canary_file),
                GATE_S_MAX,
            )
        finally:
            canary_file.unlink()
        log.info("gate_opened", port=port, pid=self._gate.pid)

    def stop(self) -> None:
        """End both in good order and let others own them."""
        self._close_gate()
        super().stop()

    def kill(self) -> None:
        """Kill both (kill -9)."""
        if self._gate is not None:
            self._gate.kill()
        super().kill()

    def needs_restart(self) -> bool:
        """Tell whether the broker or its gate has ended although nobody stopped it."""
        return super().needs_restart() or (self._gate is not None and not self._gate.is_alive())

    def start_again(self) -> None:
        """Start what has ended; where it is the gate alone, ingest's sessions go on."""
        if super().needs_restart():
            super().start_again()
        else:
            self.complete()

    @property
    def _port_file(self) -> Path:
        return self.folder / "hubs_port"

    @property
    def _gate_port_file(self) -> Path:
        return self.folder / "port"

    def _gate_program(self, port: int) -> Program:
        run_as = self._run_as()
        gate = Gate(
            host=self._for_hubs.host,
            port=port,
            broker_port=self._remembered("hubs_port"),
            bytes_per_s=self._for_hubs.bytes_per_s,
        )
        file = self.folder / "haproxy.cfg"
        write_for(run_as, file, gate_configuration(gate))
        return Program(
            name="haproxy",
            argv=(str(self.packages.program("haproxy")), "-db", "-f", str(file)),
            log=self.home / "log" / "gate.log",
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            run_as=run_as,
        )

    def _close_gate(self) -> None:
        if self._gate is not None:
            self._gate.stop()
            self._gate = None

    def _certify(self, run_as: RunAs | None) -> bool:
        """Make what is lacking or due of certificates and lists; tell whether anything changed."""
        hubs = ca.authority(self.home, ca.Role.HUBS)
        services = ca.authority(self.home, ca.Role.SERVICES)
        write_for(run_as, self._files.hubs, hubs.pem().decode())
        write_for(run_as, self._files.services, services.pem().decode())
        write_for(run_as, self._files.revoked, ca.revoke(self.home, ()).decode())
        server, ingest = self._files.certificate, self._client_file(INGEST)
        names = self._for_hubs.all_names
        lacking = [path for path in (server, ingest) if not _is_good(path, services, names)]
        if server in lacking:
            key = ca.new_key()
            certificate = services.issue_for_server(key.public_key(), "broker", names)
            write_for(run_as, server, ca.Bundle(certificate=certificate, key=key).pem().decode())
        if ingest in lacking:
            key = ca.new_key()
            certificate = services.issue_for_service(key.public_key(), INGEST)
            write_private(ingest, ca.Bundle(certificate=certificate, key=key).pem())
        return bool(lacking)

    def _canary(self) -> tuple[int, Path]:
        key = ca.new_key()
        authority = ca.authority(self.home, ca.Role.HUBS)
        certificate = authority.issue_for_hub(key.public_key(), "canary")
        path = secret_folder(self.home, "clients") / f"canary-{certificate.serial_number:x}.pem"
        write_private(path, ca.Bundle(certificate=certificate, key=key).pem())
        return certificate.serial_number, path

    def _reload(self, until: Callable[[], bool]) -> None:
        """Let the broker read its lists and certificates anew: all of them, but no other setting."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_S_MAX
        while not until():
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.title}: 未采用新的证书列表 / did not take changed certificates in "
                    f"{RELOAD_S_MAX:.0f} s"
                )
            time.sleep(READY_POLL_S)

    def _cut_off(self, hub: str) -> None:
        """End a hub's connection and forget its session, by taking over its client id.

        Mosquitto looks at certificates in the handshake only, so a connection that stands would
        stand on; on the listener for services a client id is the client's to choose.
        """
        if not self._is_let_in(self.services_port, self._client_file(INGEST), hub):
            raise UnavailableError(f"{self.title}: 无法断开网关 / cannot cut off hub {hub}")

    def _is_let_in(self, port: int, file: Path, client_id: str = "") -> bool:
        access = BrokerAccess(
            url=f"mqtts://{LOOPBACK}:{port}", ca_file=self._files.services, cert_file=file
        )
        tls = access.address().tls
        assert tls is not None  # noqa: S101 - the URL says so
        return lets_in(port, tls, client_id)

    def _client_file(self, client: str) -> Path:
        if not _CLIENT.fullmatch(client):
            raise ValueError(f"{client!r} is no client name: letters, digits, - and _, at most 64")
        return secret_folder(self.home, "clients") / f"{client}.pem"

    def _write(self, path: Path, content: bytes) -> None:
        write_for(self._run_as(), path, content.decode())

    def _run_as(self) -> RunAs | None:
        return run_as_for(self.folder, self.packages.root)


def _is_good(path: Path, authority: ca.Authority, names: Iterable[str] = ()) -> bool:
    """Tell whether a certificate of ours needs not be made anew."""
    try:
        certificate = ca.Bundle.from_pem(path.read_bytes()).certificate
    except (OSError, ValueError):
        return False
    named = ca.hosts_of(certificate)
    return (
        authority.has_issued(certificate)
        and not ca.is_due(certificate, datetime.now(UTC))
        and (not named or set(names) <= named)
    )
