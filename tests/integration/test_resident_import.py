"""Residents by the file: what is entered, what is rejected and why, and that again changes nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from api.resident_import import CHUNK_LINES, Counts, Rejected, import_residents
from api.resident_keys import rewrap_keys
from api.vault import Identity, IdentityVault, Sealed, add_master_key, open_vault
from gateway.cli.admin import app
from gateway.errors import UsageError
from gateway.identity_number import check_character
from gateway.platform.postgres import Connection, connect_blocking
from tests.worlds import query

pytestmark = pytest.mark.integration

TODAY = date(2026, 11, 25)
HEADING = "姓名,身份证号,健康卡号,出生日期,性别,机构,身高,目标:systolic_mmhg"
SAMPLE = "11010519491231002X"


@pytest.fixture
def vault(tmp_path: Path) -> IdentityVault:
    return open_vault(tmp_path)


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with connect_blocking(database, application="hearth-tests", autocommit=True) as session:
        yield session


def a_number(place: int) -> str:
    born = date(1940, 1, 1) + timedelta(days=place % 20_000)
    digits = f"{110101 + place // 20_000:06d}{born:%Y%m%d}{place % 997:03d}"
    return digits + check_character(digits)


def entered(
    connection: Connection, vault: IdentityVault, *lines: str, encoding: str = "utf-8"
) -> tuple[Counts, list[Rejected]]:
    rejected: list[Rejected] = []
    file = io.BytesIO("\n".join([HEADING, *lines]).encode(encoding))
    connection.execute("DISCARD TEMP")
    counts = import_residents(connection, vault, file, TODAY, rejected.append, lambda *_at: None)
    return counts, rejected


def identity_of(connection: Connection, vault: IdentityVault, national_id: str) -> Identity:
    mark = vault.marks(Identity(national_id=national_id)).national_id
    row = connection.execute(
        "SELECT r.public_id, k.key_id, k.wrapped, p.sealed FROM resident_profile p"
        " JOIN resident r USING (resident_id) JOIN resident_key k USING (resident_id)"
        " WHERE p.national_id_mark = %s",
        [mark],
    ).fetchone()
    assert row is not None
    resident, key_id, wrapped, content = row
    return vault.unseal(resident, Sealed(key_id=key_id, wrapped=wrapped, content=content))


def test_a_line_becomes_a_resident_whose_name_is_sealed(
    connection: Connection, vault: IdentityVault, database: str
) -> None:
    counts, rejected = entered(connection, vault, f"王秀英,{SAMPLE},A1234567,,,C7,158.5,..130")
    assert (counts.entered, rejected) == (1, [])
    assert identity_of(connection, vault, SAMPLE) == Identity(
        name="王秀英",
        national_id=SAMPLE,
        health_card="A1234567",
        birth_date=date(1949, 12, 31),
    )
    ((year, sex, height, clinic, targets),) = query(
        database, "SELECT birth_year, sex, height_cm, clinic, targets FROM resident_profile"
    )
    assert (year, sex, height, clinic) == (1949, 2, 158.5, "C7")
    assert targets == {"systolic_mmhg": {"high": 130}}
    everything = str(query(database, "SELECT p::text FROM resident_profile p")).encode()
    for said in ("王秀英", SAMPLE, "A1234567"):
        assert said.encode() not in everything
        assert said.encode().hex().encode() not in everything


def test_the_same_file_again_changes_nothing(
    connection: Connection, vault: IdentityVault, database: str
) -> None:
    lines = [f"居民{i},{a_number(i)},,,,C1,," for i in range(50)]
    assert entered(connection, vault, *lines)[0].entered == 50
    before = query(database, "SELECT p::text FROM resident_profile p ORDER BY resident_id")
    again = entered(connection, vault, *lines)[0]
    assert (again.entered, again.changed, again.unchanged, again.rejected) == (0, 0, 50, 0)
    assert query(database, "SELECT p::text FROM resident_profile p ORDER BY resident_id") == before


def test_a_changed_line_changes_its_resident_and_keeps_what_it_does_not_say(
    connection: Connection, vault: IdentityVault, database: str
) -> None:
    entered(connection, vault, f"王秀英,{SAMPLE},A1234567,,,C7,158,..130")
    counts, _ = entered(connection, vault, f"王秀瑛,{SAMPLE},,,,C8,,")
    assert (counts.entered, counts.changed) == (0, 1)
    identity = identity_of(connection, vault, SAMPLE)
    assert (identity.name, identity.health_card) == ("王秀瑛", "A1234567")
    assert query(database, "SELECT height_cm, clinic FROM resident_profile") == [(158, "C8")]


def test_what_is_wrong_is_told_by_line_and_reason_and_never_repeated(
    connection: Connection, vault: IdentityVault
) -> None:
    counts, rejected = entered(
        connection,
        vault,
        f"甲,{SAMPLE},,,,,,",
        "乙,110105194912310020,,,,,,",
        f",{a_number(1)},,,,,,",
        f"丙,{a_number(2)},,1999-01-01,,,,",
        f"丁,{a_number(3)},,,人,,,",
        f"戊,{a_number(4)},,,,,15,",
        f"己,{a_number(5)},,,,,,130..110",
        f"庚,{a_number(6)}",
        "辛,,,,,,,",
        f"壬,{SAMPLE},,,,,,",
        f'"癸"x,{a_number(7)},,,,,,',
    )
    assert [(fault.line, fault.column, fault.why) for fault in rejected] == [
        (3, "national_id", "check"),
        (4, "name", "missing"),
        (5, "birth_date", "differs_from_national_id"),
        (6, "sex", "unknown_word"),
        (7, "height_cm", "not_plausible"),
        (8, "targets", "low_above_high"),
        (9, "line", "not_as_many_cells_as_the_heading"),
        (10, "national_id", "nothing_identifies_the_resident"),
        (11, "national_id", "same_number_as_line_2"),
        (12, "line", "not_as_many_cells_as_the_heading"),
    ]
    assert (counts.lines, counts.entered, counts.rejected) == (11, 1, 10)


def test_a_number_of_one_and_a_card_of_another_is_refused(
    connection: Connection, vault: IdentityVault
) -> None:
    entered(connection, vault, f"甲,{a_number(1)},CARD0001,,,,,", f"乙,{a_number(2)},CARD0002,,,,,")
    _, rejected = entered(connection, vault, f"甲,{a_number(1)},CARD0002,,,,,")
    assert [fault.why for fault in rejected] == ["numbers_of_two_residents"]


def test_a_file_of_excels_own_encoding_is_read(
    connection: Connection, vault: IdentityVault
) -> None:
    for encoding, place in (("gb18030", 1), ("utf-8-sig", 2)):
        entered(connection, vault, f"诸葛亮,{a_number(place)},,,,,,", encoding=encoding)
        assert identity_of(connection, vault, a_number(place)).name == "诸葛亮"


def test_a_heading_that_is_not_understood_says_what_it_should_be(
    connection: Connection, vault: IdentityVault
) -> None:
    connection.execute("DISCARD TEMP")
    with pytest.raises(UsageError, match="姓名,身份证号"):
        import_residents(
            connection, vault, io.BytesIO(b"a,b\n"), TODAY, lambda _: None, lambda *_at: None
        )


def test_another_archives_key_is_refused_before_anything_is_sealed(
    connection: Connection, vault: IdentityVault, tmp_path: Path
) -> None:
    entered(connection, vault, f"甲,{SAMPLE},,,,,,")
    with pytest.raises(UsageError, match="archive_key_1"):
        entered(connection, open_vault(tmp_path / "other"), f"乙,{a_number(1)},,,,,,")


def test_after_a_new_master_key_everything_opens_and_the_old_one_is_needed_no_more(
    connection: Connection, vault: IdentityVault, tmp_path: Path
) -> None:
    lines = [f"居民{i},{a_number(i)},,,,C1,," for i in range(20)]
    entered(connection, vault, *lines)
    renewed = add_master_key(tmp_path)
    assert renewed.key_id == 2
    assert rewrap_keys(connection, renewed, lambda _done: None) == 20
    assert rewrap_keys(connection, renewed, lambda _done: None) == 0
    only_new = IdentityVault({2: _key_of(tmp_path, 2)}, _search_key(tmp_path))
    assert identity_of(connection, only_new, a_number(7)).name == "居民7"


def test_a_sealed_identity_opens_nowhere_else(vault: IdentityVault) -> None:
    mine, yours = UUID(int=1), UUID(int=2)
    sealed = vault.seal(mine, Identity(name="王秀英"))
    assert vault.unseal(mine, sealed).name == "王秀英"
    with pytest.raises(UsageError):
        vault.unseal(yours, sealed)


def test_the_command_reports_rejected_lines_in_a_file_and_by_its_exit_status(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTH_DATABASE_URL", database)
    monkeypatch.setenv("HEARTH_HOME", str(tmp_path))
    file = tmp_path / "residents.csv"
    file.write_text(f"{HEADING}\n甲,{SAMPLE},,,,,,\n乙,110105194912310020,,,,,,\n")
    words = ["residents", "import", str(file), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "lines": 2,
        "entered": 1,
        "changed": 0,
        "unchanged": 0,
        "rejected": 1,
    }
    report = (tmp_path / "residents.csv.rejected.csv").read_text()
    assert report.splitlines() == ["line,column,why", "3,national_id,check"]
    file.write_text(f"{HEADING}\n甲,{SAMPLE},,,,,,\n")
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert not (tmp_path / "residents.csv.rejected.csv").exists()


def test_whoever_is_entered_or_changed_by_a_file_is_audited(
    connection: Connection, vault: IdentityVault, database: str
) -> None:
    entered(connection, vault, f"甲,{a_number(1)},,,,,,", f"乙,{a_number(2)},,,,,,")
    entered(connection, vault, f"甲甲,{a_number(1)},,,,,,", f"乙,{a_number(2)},,,,,,")
    rows = query(
        database,
        "SELECT action, count(*), count(DISTINCT resident_id) FROM audit"
        " WHERE actor LIKE 'cli:%' GROUP BY action ORDER BY action",
    )
    assert rows == [("profile.import", 1, 1), ("resident.import", 2, 2)]


def test_an_import_that_was_killed_goes_on_when_it_is_run_again(
    database: str, tmp_path: Path
) -> None:
    count = 3 * CHUNK_LINES
    file = tmp_path / "residents.csv"
    lines = (f"居民{i},{a_number(i)},,,,C1,," for i in range(count))
    file.write_text("\n".join([HEADING, *lines]))
    command = [sys.executable, "-m", "gateway.cli.main", "admin", "residents", "import", str(file)]
    environment = os.environ | {"HEARTH_DATABASE_URL": database, "HEARTH_HOME": str(tmp_path)}
    how_many = "SELECT count(*) FROM resident_profile"
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=nothing, stderr=nothing) as killed:
        while killed.poll() is None and query(database, how_many) == [(0,)]:
            time.sleep(0.01)
        killed.kill()
    ((before,),) = query(database, how_many)
    assert 0 < before < count
    again = subprocess.run(
        [*command, "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert (said["entered"], said["unchanged"]) == (count - before, before)
    assert (said["changed"], said["rejected"]) == (0, 0)
    assert query(database, how_many) == [(count,)]


def _key_of(home: Path, key_id: int) -> bytes:
    return urlsafe_b64decode((home / "secrets" / f"archive_key_{key_id}").read_text().strip() + "=")


def _search_key(home: Path) -> bytes:
    return urlsafe_b64decode((home / "secrets" / "archive_search_key").read_text().strip() + "=")


def test_a_care_team_that_is_entered_looks_after_its_residents_from_now_on(
    connection: Connection, vault: IdentityVault, database: str
) -> None:
    query(database, "INSERT INTO care_team (name) VALUES ('clinic')")
    lines = (f"甲,{a_number(1)},clinic", f"乙,{a_number(2)},elsewhere", f"丙,{a_number(3)},")
    for changed in ("", "甲"):
        file = io.BytesIO(
            "\n".join(["姓名,身份证号,团队", changed + lines[0], *lines[1:]]).encode()
        )
        connection.execute("DISCARD TEMP")
        rejected: list[Rejected] = []
        import_residents(connection, vault, file, TODAY, rejected.append, lambda *_at: None)
        assert [(fault.line, fault.column, fault.why) for fault in rejected] == [
            (3, "care_team", "unknown")
        ]
    found = query(database, "SELECT count(*), bool_and(during @> now()) FROM care_team_resident")
    assert found == [(1, True)]
