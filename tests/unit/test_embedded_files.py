"""What is written for the embedded servers, and read from apt: pure text, checked as text."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from gateway.gatt.payload import PAYLOAD_BYTES_MAX
from gateway.platform.embedded.apt import mirrors_in
from gateway.platform.embedded.broker_config import (
    PACKET_BYTES_MAX,
    Files,
    Listeners,
    access_rules,
    configuration,
)
from gateway.platform.embedded.database_config import Tuning, settings_for
from gateway.platform.embedded.database_config import configuration as postgresql_conf
from gateway.platform.embedded.packages import kept_members
from gateway.wire import BATCH_RECORDS_MAX, HEADER_BYTES, RECORD_BYTES, UNDECODED_ENTRY

GIB = 1 << 30


def test_a_hub_is_given_its_own_four_topics_and_ingest_the_other_ends() -> None:
    assert access_rules().splitlines() == [
        "pattern write hearth/v1/+/%u/batch",
        "pattern write hearth/v1/+/%u/state",
        "pattern read hearth/v1/+/%u/receipt",
        "pattern read hearth/v1/+/%u/config",
        "user ingest",
        "topic read hearth/v1/+/+/batch",
        "topic read hearth/v1/+/+/state",
        "topic write hearth/v1/+/+/receipt",
        "topic write hearth/v1/+/+/config",
    ]


def test_everybody_needs_a_certificate_and_a_hub_is_whom_it_names() -> None:
    files = Files(
        access=Path("/a"),
        data=Path("/d"),
        certificate=Path("/c"),
        key=Path("/k"),
        hubs=Path("/h"),
        services=Path("/s"),
        revoked=Path("/r"),
    )
    listeners = Listeners(host="192.0.2.1", port=8883, services_port=8884)
    head, hubs, services = configuration(listeners, files).split("\nlistener ")
    assert "allow_anonymous false" in head.splitlines()
    for part, root in ((hubs, "/h"), (services, "/s")):
        lines = part.splitlines()
        assert f"cafile {root}" in lines
        assert {"require_certificate true", "use_identity_as_username true"} <= {*lines}
        assert "tls_version tlsv1.3" in lines
    assert hubs.startswith("8883 192.0.2.1\n")
    assert {"use_username_as_clientid true", "crlfile /r"} <= {*hubs.splitlines()}
    assert services.startswith("8884 127.0.0.1\n")
    assert "use_username_as_clientid true" not in services
    assert f"max_packet_size {PACKET_BYTES_MAX}" in services.splitlines()
    assert "persistence_location /d/" in services.splitlines()


def test_the_longest_batch_fits_into_a_packet() -> None:
    entry = UNDECODED_ENTRY.size + PAYLOAD_BYTES_MAX
    assert HEADER_BYTES + BATCH_RECORDS_MAX * max(entry, RECORD_BYTES) < PACKET_BYTES_MAX


@pytest.mark.parametrize(
    ("memory_bytes", "shared_buffers"),
    [(GIB // 2, "128MB"), (2 * GIB, "256MB"), (4 * GIB, "512MB"), (64 * GIB, "1024MB")],
)
def test_the_database_takes_an_eighth_of_the_memory_within_bounds(
    memory_bytes: int, shared_buffers: str
) -> None:
    assert settings_for(tuning(memory_bytes=memory_bytes))["shared_buffers"] == shared_buffers


def test_a_commit_is_on_disk_unless_tests_ask_otherwise() -> None:
    assert "fsync" not in settings_for(tuning(durable=True))
    assert settings_for(tuning(durable=False))["fsync"] == "off"
    assert "synchronous_commit" not in settings_for(tuning(durable=False))


def test_no_setting_lets_a_statement_into_the_log() -> None:
    settings = settings_for(tuning())
    assert settings["log_min_messages"] == "log"
    assert settings["log_min_error_statement"] == "panic"
    assert "log_statement" not in settings
    assert "log_min_duration_statement" not in settings


def test_a_path_with_quotes_stays_one_value() -> None:
    text = postgresql_conf(tuning(host_access=Path("/o'brien\\s/pg_hba.conf")))
    assert r"hba_file = '/o''brien\\s/pg_hba.conf'" in text.splitlines()


@pytest.mark.parametrize(
    ("targets", "mirrors"),
    [
        ([], []),
        ([("http://m.example/debian/", "main")] * 2, ["http://m.example/debian/"]),
        ([("http://m.example/debian", "contrib")], []),
        (
            [("http://m.example/ubuntu/", "main"), ("http://m.example/ubuntu/", "universe")],
            ["http://m.example/debian/"],
        ),
        ([("http://m.example/ubuntu-ports", "main")], ["http://m.example/debian/"]),
        (
            [("https://vendor.example/apt/", "main"), ("http://m.example/debian/", "main")],
            ["http://m.example/debian/", "https://vendor.example/apt/"],
        ),
        ([("malformed",), ()], []),
    ],
    ids=["none", "once", "other component", "ubuntu", "ports", "likeliest first", "malformed"],
)
def test_where_debian_may_be(targets: list[tuple[str, ...]], mirrors: list[str]) -> None:
    assert mirrors_in(targets) == mirrors


def test_of_a_package_only_what_is_needed_is_kept() -> None:
    kept = [
        "./usr/lib/x86_64-linux-gnu/libpq.so.5",
        "./usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
        "./usr/lib/postgresql/17/bin/postgres",
        "./usr/lib/postgresql/17/lib/timescaledb-2.19.3.so",
        "./usr/share/postgresql/17/extension/timescaledb.control",
        "./usr/sbin/mosquitto",
    ]
    left_out = [
        "./usr/lib/postgresql/17/lib/llvmjit.so",
        "./usr/lib/postgresql/17/lib/bitcode/postgres/access/x.bc",
        "./usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
        "./usr/share/gdb/auto-load/usr/lib/x86_64-linux-gnu/libstdc++.so.6-gdb.py",
        "./usr/share/postgresql/17/man/man1/psql.1.gz",
        "./usr/share/doc/libpq5/copyright",
        "./etc/mosquitto/mosquitto.conf",
        "./usr/bin/dbus-run-session",
    ]
    members = [tarfile.TarInfo(name) for name in (*kept, *left_out)]
    assert [member.name for member in kept_members(members)] == kept


def tuning(
    *,
    memory_bytes: int = GIB,
    durable: bool = True,
    host_access: Path = Path("/home/pg_hba.conf"),
) -> Tuning:
    return Tuning(host_access=host_access, port=5432, memory_bytes=memory_bytes, durable=durable)
