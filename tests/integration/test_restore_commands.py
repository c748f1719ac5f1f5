"""A store is backed up, restored and asked back from its hubs by the commands, as an operator would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from gateway.cli.admin import app as admin
from gateway.cli.db import app as db
from gateway.errors import UsageError
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.database import SUPERUSER, Database
from gateway.platform.postgres import connect_blocking, sql
from gateway.resend import decode_resend
from gateway.wire import Channel, hub_name, topic
from tests.fixtures.mqtt_client import connected
from tests.worlds import HUB, enter_registry, query

pytestmark = pytest.mark.integration

NAME = hub_name(HUB)
SINCE = datetime(2026, 11, 20, 2, tzinfo=UTC)


@pytest.fixture
def store(
    database: str, database_server: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A store with a small registry and its broker, as the settings of whoever runs the commands."""
    enter_registry(database)
    name = database.rpartition("/")[2]
    monkeypatch.setenv("HEARTH_DATABASE_URL", database_server.url(SUPERUSER, name))
    for variable, value in broker.access().environment().items():
        monkeypatch.setenv(variable, value)
    yield database
    with connect_blocking(
        database_server.url(SUPERUSER, SUPERUSER), application="hearth-tests", autocommit=True
    ) as server:
        kept = server.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{name}\\_before\\_%"]
        ).fetchall()
        for (former,) in kept:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(former)))


def run(app: Typer, *words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_a_hub_is_asked_to_send_again_by_a_retained_request_that_is_audited(
    store: str, broker: Broker
) -> None:
    done = run(admin, "hub", "resend", NAME, "--since", SINCE.isoformat(), "--why", "a test")
    assert done.exit_code == 0, done.output
    broker.admit(NAME)
    with connected(broker, NAME) as hub:  # it was away, and is asked when it comes
        hub.subscribe(topic(HUB, Channel.CONFIG))
        assert decode_resend(bytes(hub.next_message().payload)).since == SINCE
    ((reason, detail),) = query(
        store, "SELECT reason, detail FROM audit WHERE action = 'hub.resend'"
    )
    assert reason == "a test"
    assert detail["hubs"] == [NAME]
    assert datetime.fromisoformat(detail["since"]) == SINCE


def test_every_hub_can_be_asked_at_once(store: str, broker: Broker) -> None:
    hubs = [name for (name,) in query(store, "SELECT name FROM hub")]
    assert run(admin, "hub", "resend", "--all", "--since", SINCE.isoformat()).exit_code == 0
    broker.admit(*hubs)
    for name in hubs:
        with connected(broker, name) as hub:
            hub.subscribe(topic(int(name, 16), Channel.CONFIG))
            assert decode_resend(bytes(hub.next_message().payload)).since == SINCE


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", SINCE.isoformat()), "name one hub, or --all"),
        ((NAME, "--all", "--since", SINCE.isoformat()), "name one hub, or --all"),
        (("fedcba9876543210", "--since", SINCE.isoformat()), "there is no hub"),
    ],
)
def test_whom_to_ask_has_to_be_clear(words: tuple[str, ...], says: str) -> None:
    done = run(admin, "hub", "resend", *words)
    assert isinstance(done.exception, UsageError)
    assert says in str(done.exception)


def test_a_store_is_backed_up_and_restored_by_its_commands(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    assert (done := run(db, "backup", str(folder))).exit_code == 0, done.output
    assert folder.stat().st_mode & 0o077 == 0, "it holds residents' data"
    facts = json.loads((folder / "backup.json").read_text(encoding="utf-8"))
    assert datetime.now(UTC) - datetime.fromisoformat(facts["taken_at"]) < timedelta(minutes=10)
    devices = query(store, "SELECT count(*) FROM device")
    query(store, "DELETE FROM link")
    query(store, "DELETE FROM device")
    done = run(db, "restore", str(folder), "--yes")
    assert done.exit_code == 0, done.output
    assert f"hearth admin hub resend --all --since {facts['taken_at']}" in done.stderr
    assert query(store, "SELECT count(*) FROM device") == devices


def test_a_restore_that_is_not_confirmed_changes_nothing(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    run(db, "backup", str(folder))
    query(store, "DELETE FROM link")
    done = CliRunner().invoke(db, ["restore", str(folder)], input="n\n")
    assert done.exit_code == 1
    assert query(store, "SELECT count(*) FROM link") == [(0,)]


def test_secrets_are_sealed_and_put_back_by_their_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTH_HOME", str(tmp_path / "home"))
    secrets = tmp_path / "home" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "archive_key_1").write_text("of the archive\n")
    sealed, passphrase = tmp_path / "sealed", "correct horse battery staple"
    typed = CliRunner().invoke(
        db, ["backup-secrets", str(sealed)], input=f"{passphrase}\n{passphrase}\n"
    )
    assert typed.exit_code == 0, typed.output
    assert passphrase not in typed.output
    monkeypatch.setenv("HEARTH_HOME", str(tmp_path / "other"))
    (tmp_path / "passphrase").write_text(f"{passphrase}\n")
    words = ["restore-secrets", str(sealed), "--passphrase-file", str(tmp_path / "passphrase")]
    assert (done := CliRunner().invoke(db, words)).exit_code == 0, done.output
    restored = tmp_path / "other" / "secrets" / "archive_key_1"
    assert restored.read_text() == "of the archive\n"
