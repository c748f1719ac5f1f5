"""What all tests share: the fixtures, and an environment without the person's own settings."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from gateway.cli.test import TEST_HOME

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.database",
    "tests.fixtures.workers",
    "tests.fixtures.bluetooth",
]

KEPT = ("HEARTH_HOME", "HEARTH_DEBIAN_MIRROR", TEST_HOME)
"""They say where the programs are; HEARTH_DATABASE_URL, say, would point at a person's own data."""


settings.register_profile("hearth", deadline=None)  # a busy machine is no failure
settings.load_profile("hearth")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that are allowed the longest: at the end they would run alone."""
    items.sort(key=_allowed_s, reverse=True)


def _allowed_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker and marker.args else 0.0


def pytest_configure() -> None:
    """Forget the settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("HEARTH_") and name not in KEPT]:
        del os.environ[name]
