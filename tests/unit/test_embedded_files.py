"""What is written for the embedded servers, and read from apt: pure text, checked as text."""

from __future__ import annotations

import base64
import tarfile
from pathlib import Path

import pytest

from gateway.platform.embedded.apt import mirrors_in
from gateway.platform.embedded.authentication import password_line
from gateway.platform.embedded.broker_config import (
    PACKET_BYTES_MAX,
    Files,
    access_rules,
    configuration,
)
from gateway.platform.embedded.database_config import Tuning, settings_for
from gateway.platform.embedded.database_config import configuration as postgresql_conf
from gateway.platform.embedded.packages import kept_members

GIB = 1 << 30


def test_a_password_line_is_what_mosquitto_itself_writes() -> None:
    """Made by `mosquitto_passwd -c -b FILE alice 'correct horse'` of Mosquitto 2.0.21."""
    made = (
        "alice:$7$101$EkdOGXFGUEJ5gTP3$gwxgEEZQQOV3angNvV4bZ3/saIaOrz8PeC08PCsnAOQRFjhDeB+pXklP"
        "gWWzr67B6ll2qA2Yc34gjTbjorfyQg=="
    )
    salt = base64.b64decode("EkdOGXFGUEJ5gTP3")
    assert password_line("alice", "correct horse", salt) == made


def test_the_same_password_is_salted_anew_each_time() -> None:
    assert password_line("alice", "correct horse") != password_line("alice", "correct horse")


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


def test_the_broker_listens_on_loopback_only_and_knows_everyone() -> None:
    files = Files(access=Path("/a"), passwords=Path("/p"), data=Path("/d"))
    lines = configuration(1883, files).splitlines()
    assert [line for line in lines if line.startswith("listener")] == ["listener 1883 127.0.0.1"]
    assert "allow_anonymous false" in lines
    assert f"max_packet_size {PACKET_BYTES_MAX}" in lines
    assert "persistence_location /d/" in lines


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
