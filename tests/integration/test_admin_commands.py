"""`hearth admin` as a person or a program calls it, over the real database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.admin import app
from gateway.cli.database import database_url
from gateway.errors import UsageError
from gateway.platform.postgres import dsn_with
from gateway.platform.settings import Settings
from tests.worlds import query

pytestmark = pytest.mark.integration

HUB, CUFF = "00c0ffee00c0ffee", "C0:26:DA:01:02:03"
GATEWAY = "00000000000000f1"


@pytest.fixture(autouse=True)
def _configured(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_DATABASE_URL", database)


def said(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def records(*words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(*words, "--json").splitlines()]


def test_a_household_is_entered_and_listed() -> None:
    ((home,),) = [record.values() for record in records("home", "add")]
    ((resident,),) = [record.values() for record in records("resident", "add")]
    said("hub", "add", HUB, "--home", home)
    said("device", "add", CUFF, "--home", home, "--model", "Cuff 3")
    link = ("--device", CUFF, "--slot", "1", "--resident", resident)
    said("link", "add", *link, "--from", "2026-05-01T08:00+08:00")
    assert [record["id"] for record in records("home", "list")] == [home]
    assert [record["id"] for record in records("resident", "list")] == [resident]
    assert [record["name"] for record in records("hub", "list", "--home", home)] == [HUB]
    assert [record["model"] for record in records("device", "list")] == ["Cuff 3"]
    assert records("link", "list", "--resident", resident) == [
        {
            "device": CUFF,
            "user_slot": 1,
            "resident": resident,
            "starts_at": "2026-05-01T00:00:00+00:00",
            "ends_at": None,
        }
    ]


def test_repeating_a_command_is_no_error() -> None:
    home = "7369797e-104c-427e-8f6a-7ed0f4a858e9"
    resident = "00177908-b24b-455b-a35a-d7e197746439"
    commands = (
        ("home", "add", "--id", home),
        ("resident", "add", "--id", resident),
        ("hub", "add", HUB, "--home", home),
        ("device", "add", CUFF, "--home", home),
        ("link", "add", "--device", CUFF, "--resident", resident),
    )
    first = [records(*words) for words in commands]
    assert [records(*words) for words in commands] == first
    ended = records("link", "end", "--device", CUFF)
    assert records("link", "end", "--device", CUFF) == ended
    said("device", "move", CUFF, "--home", home)


def test_a_hub_is_made_to_stand_for_a_service_once_and_audited(database: str) -> None:
    ((home,),) = [record.values() for record in records("home", "add")]
    said("hub", "add", GATEWAY, "--home", home)
    query(
        database,
        "INSERT INTO account (login, role) VALUES ('hospital', 'service'), ('li', 'clinician')",
    )
    for nobody in ("li", "nobody"):
        with pytest.raises(UsageError, match="no such service"):
            said("hub", "stand-in", GATEWAY, "--for", nobody)
    said("hub", "stand-in", GATEWAY, "--for", "hospital")
    stands = "SELECT login, name FROM fhir_gateway JOIN account USING (account_id) JOIN hub USING (hub_id)"
    assert query(database, stands) == [("hospital", GATEWAY)]
    with pytest.raises(UsageError, match="in use"):
        said("hub", "stand-in", GATEWAY, "--for", "hospital")
    audited = query(database, "SELECT detail FROM audit WHERE action = 'hub.stand_in'")
    assert audited == [({"hub": GATEWAY, "service": "hospital"},)]


def test_standing_in_needs_to_be_told_for_whom() -> None:
    done = CliRunner().invoke(app, ["hub", "stand-in", GATEWAY])
    assert done.exit_code == 2
    assert "--for" in done.output


def test_a_person_reads_chinese_first() -> None:
    said("home", "add")
    text = said("home", "list")
    assert text.index("家庭") < text.index("home") if "家庭" in text else "编号" in text


def test_a_time_without_its_offset_is_refused() -> None:
    words = ("link", "end", "--device", CUFF, "--at", "2026-05-01T08:00")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "2026-05-01T08:00+08:00" in done.output


def test_a_database_without_a_schema_says_what_to_do(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTH_DATABASE_URL", dsn_with(database, dbname="postgres"))
    with pytest.raises(UsageError, match="hearth db migrate"):
        CliRunner().invoke(app, ["home", "list"], catch_exceptions=False)


def test_without_a_database_it_is_said_how_to_have_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="HEARTH_DATABASE_URL"):
        database_url(Settings(home=tmp_path, database_url=None))
