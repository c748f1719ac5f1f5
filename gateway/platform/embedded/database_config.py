"""The embedded database's configuration files. PostgreSQL 17, chapters 19 and 20."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.platform.settings import LOOPBACK

SHARED_BUFFERS_BYTES_MIN, SHARED_BUFFERS_BYTES_MAX = 128 << 20, 1 << 30
"""An eighth of the memory within these bounds: the machine is also the broker's and ingest's."""
CONNECTIONS_MAX = 100
"""One more is refused with SQLSTATE 53300, which our services take as the world being down."""
WORKERS_MAX = 16
"""Background processes, TimescaleDB's among them; what finds no slot waits."""
WAL_BYTES_MAX = 2 << 30
"""A checkpoint begins at the latest when the log has grown by about this much."""

HOST_ACCESS = f"host all all {LOOPBACK}/32 scram-sha-256\n"
"""The whole of pg_hba.conf: by password, from this machine; there is no socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What differs between one embedded database, or machine, and another."""

    host_access: Path
    """The file that holds `HOST_ACCESS`."""
    port: int
    memory_bytes: int
    durable: bool
    """False: a power cut may lose or damage the data; a crash of the server alone does not."""


def settings_for(tuning: Tuning) -> Mapping[str, str]:
    """Return the server's settings by name."""
    shared_buffers = min(
        max(tuning.memory_bytes // 8, SHARED_BUFFERS_BYTES_MIN), SHARED_BUFFERS_BYTES_MAX
    )
    settings = {
        "hba_file": str(tuning.host_access),
        "listen_addresses": LOOPBACK,
        "port": str(tuning.port),
        "unix_socket_directories": "",  # a socket's path is bounded to 107 bytes, a home's is not
        "max_connections": str(CONNECTIONS_MAX),
        "password_encryption": "scram-sha-256",
        "shared_buffers": f"{shared_buffers >> 20}MB",
        "maintenance_work_mem": "128MB",
        "huge_pages": "off",
        "dynamic_shared_memory_type": "sysv",  # in containers /dev/shm is small, or closed to us
        "max_worker_processes": str(WORKERS_MAX + 8),
        "jit": "off",  # its library is left out of the packages
        "wal_compression": "lz4",
        "max_wal_size": f"{WAL_BYTES_MAX >> 20}MB",
        "checkpoint_timeout": "15min",
        "shared_preload_libraries": "timescaledb",
        "timescaledb.license": "apache",
        "timescaledb.telemetry_level": "off",
        "timescaledb.max_background_workers": str(WORKERS_MAX),
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        # No value of a resident may reach the log, and errors of statements quote values. LOG is
        # above ERROR here: starts, crashes and checkpoints are told; a client knows its errors.
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_line_prefix": "%m [%p] %a ",
    }
    if not tuning.durable:
        # Not synchronous_commit: what a client was told is committed survives the server's crash.
        settings |= {"fsync": "off", "full_page_writes": "off"}
    return settings


def configuration(tuning: Tuning) -> str:
    """Return postgresql.conf."""
    lines = [f"{name} = '{_escaped(value)}'" for name, value in settings_for(tuning).items()]
    return "\n".join(["# Made by Hearth at each start; changes are lost.", *lines, ""])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
