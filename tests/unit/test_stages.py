"""What `hearth test` runs one after the other, and what stops it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway.cli.stages import TESTS, Stage, run_stages
from gateway.cli.test import TEST_HOME, environment_for

GOOD, BAD, WORSE = (("-c", f"raise SystemExit({status})") for status in (0, 1, 2))


@pytest.mark.parametrize(
    ("stage", "status"),
    [
        (Stage(title="passes", arguments=GOOD, again=BAD), 0),
        (Stage(title="fails", arguments=BAD), 1),
        (Stage(title="fails twice", arguments=BAD, again=BAD), 1),
        (Stage(title="passes alone", arguments=BAD, again=GOOD), 0),
        (Stage(title="could not run", arguments=WORSE, again=GOOD), 2),
    ],
    ids=lambda value: value.title if isinstance(value, Stage) else str(value),
)
def test_a_stage_that_fails_is_tried_again_by_itself_and_then_decides(
    stage: Stage, status: int
) -> None:
    assert run_stages([stage], os.environ) == status


def test_a_failure_stops_what_comes_behind_it() -> None:
    behind = Stage(title="never", arguments=WORSE)
    assert run_stages([Stage(title="fails", arguments=BAD), behind], os.environ) == 1


def test_only_tests_are_tried_again_and_only_those_that_failed() -> None:
    assert [stage.again[2:4] for stage in TESTS] == [
        ("--last-failed", "--last-failed-no-failures")
    ] * len(TESTS)


def test_what_python_compiles_for_the_tests_is_kept_for_as_long_as_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    code = f"import os, fractions; assert os.environ[{TEST_HOME!r}] == {str(tmp_path)!r}"
    stage = Stage(title="compiles", arguments=("-c", code))
    assert run_stages([stage], environment_for(tmp_path)) == 0
    assert list((tmp_path / "compiled").rglob("fractions.*.pyc"))
