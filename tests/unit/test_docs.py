"""What the documentation says of the code is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.docs import BLOCKS, updated
from gateway.cli.main import COMMANDS
from gateway.platform.settings import CHECKOUT

PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")])
_LINK = re.compile(r"\]\((?!https?://)(?P<target>[^)#\s]+)")
_TEST = re.compile(r"\btest_[a-z0-9_]+\b(?!\.py)")
_TEST_FILE = re.compile(r"\btests/[a-z_/]+\.py\b")
_COMMAND = re.compile(r"\bhearth (?P<name>[a-z]+)\b")
_INVARIANT = re.compile(r"^(?P<number>[1-9])\. \*\*", re.MULTILINE)


def page_named(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def defined_tests() -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in (CHECKOUT / "tests").rglob("*.py")]
    return {name for text in texts for name in re.findall(r"def (test_[a-z0-9_]+)\(", text)}


def code_of(text: str) -> Iterator[str]:
    """Yield what stands as code: between fences, and between single backquotes outside them."""
    for place, part in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        if place % 2:
            yield part
        else:
            yield from re.findall(r"`([^`\n]+)`", part)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_tables_made_from_the_code_are_up_to_date(block: str) -> None:
    path = CHECKOUT / BLOCKS[block][0]
    assert updated(CHECKOUT)[path] == path.read_text(encoding="utf-8"), "run `./hearth docs`"


@pytest.mark.parametrize("page", PAGES, ids=page_named)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for link in _LINK.finditer(page.read_text(encoding="utf-8")):
        assert (page.parent / link["target"]).exists(), link["target"]


@pytest.mark.parametrize("page", PAGES, ids=page_named)
def test_every_test_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = {path.stem for path in (CHECKOUT / "tests").rglob("test_*.py")}
    assert set(_TEST.findall(text)) <= defined_tests() | modules
    assert all((CHECKOUT / file).exists() for file in _TEST_FILE.findall(text))


@pytest.mark.parametrize("page", PAGES, ids=page_named)
def test_every_command_that_is_named_exists(page: Path) -> None:
    code = "\n".join(code_of(page.read_text(encoding="utf-8")))
    named = {match["name"] for match in _COMMAND.finditer(code)}
    assert named <= {command.name for command in COMMANDS}


def test_every_invariant_names_what_holds_it() -> None:
    text = (CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    _, *invariants = _INVARIANT.split(text)
    numbers, bodies = invariants[::2], invariants[1::2]
    assert numbers == [str(number) for number in range(1, 10)]
    assert all(_TEST.search(body) or "import-linter" in body for body in bodies)
