"""The whole description against the running API: schemathesis with every check on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from api import live
from api.enrolment import Office
from gateway.platform import ca
from tests.archives import TOKEN, served, store
from tests.fixtures.database import as_api
from tests.worlds import a_pressure, a_weight, enter_registry

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
EXAMPLES = 6
"""Of each operation and phase."""


@pytest.fixture
async def api(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(live, "FOLLOW_S_MAX", 0.1)  # streams end by themselves
    monkeypatch.setattr(live, "KEEP_ALIVE_S", 0.05)
    enter_registry(database)
    await store(database, a_pressure(), a_weight())
    broker = "mqtts://broker.example:8883"
    office = Office(dsn=as_api(database), home=tmp_path / "home", broker_url=lambda: broker)
    ca.authority(office.home, ca.Role.HUBS)
    async with served(database, exports=tmp_path / "exports", office=office) as client:
        yield client


@pytest.mark.timeout(600)
async def test_schemathesis_finds_nothing(api: httpx.AsyncClient, tmp_path: Path) -> None:
    run = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"),
        *("--checks", "all", "--max-examples", str(EXAMPLES), "--workers", "1"),
        *("--header", f"Authorization: Bearer {TOKEN}", "--request-timeout", "20"),
        *("--seed", "1", "--no-shrink", "--continue-on-failure", "--suppress-health-check", "all"),
        str(api.base_url.join("/openapi.json")),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await run.communicate()
    assert run.returncode == 0, said.decode()
