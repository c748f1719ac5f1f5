"""`hearth simulate homes`: homes in a process of their own, read by bleak, gone on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from bleak import BleakScanner

from firmware_sim.homes import generate_homes
from gateway.platform.settings import CHECKOUT
from tests.simulated import WITHIN_S

pytestmark = pytest.mark.integration

HOMES, SEED = 2, 5


@dataclass(frozen=True, slots=True)
class Street:
    """A running command and what it said when it was ready."""

    process: asyncio.subprocess.Process
    bus: str
    adapters: dict[str, list[str]]
    """Adapter -> addresses of its home's devices."""


@asynccontextmanager
async def street(folder: Path, *arguments: str) -> AsyncIterator[Street]:
    command = ("-m", "gateway.cli.main", "simulate", "homes", "--json", *arguments)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=CHECKOUT,
        env={**os.environ, "HEARTH_HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            said = json.loads(await process.stdout.readline())
        adapters = {home["adapter"]: home["devices"] for home in said["homes"]}
        yield Street(process=process, bus=said["bus"], adapters=adapters)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(WITHIN_S):
            await process.wait()


async def test_each_home_is_heard_by_its_own_adapter_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--homes", str(HOMES), "--seed", str(SEED), "--readings-per-s", "50")
    async with street(tmp_path, *arguments) as running:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", running.bus)
        assert list(running.adapters) == ["hci0", "hci1"]
        for adapter, addresses in running.adapters.items():
            assert await all_heard_by(adapter, len(addresses)) == set(addresses)


async def test_the_journal_holds_every_reading_and_who_took_it(tmp_path: Path) -> None:
    journal, bus = tmp_path / "truth.jsonl", tmp_path / "bus"
    arguments = ("--seed", str(SEED), "--readings-per-s", "50")
    files = ("--journal", str(journal), "--bus-file", str(bus))
    async with street(tmp_path, *arguments, *files) as running:
        assert bus.read_text().strip() == running.bus
        async with asyncio.timeout(WITHIN_S):
            while journal.read_text().count('"advertised"') < 1:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
    assert running.process.returncode == 0
    (home,) = generate_homes(1, SEED)
    people = {resident.person for resident in home.residents}
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    taken = [line for line in lines if line["event"] == "taken"]
    assert {line["person"] for line in taken} <= people
    numbers = Counter((line["device"], line["record"]) for line in taken)
    assert set(numbers.values()) == {1}


async def test_nothing_is_left_when_it_is_told_to_end(tmp_path: Path) -> None:
    async with street(tmp_path) as running:
        socket = running.bus.removeprefix("unix:path=")
        assert is_there(socket)
    assert running.process.returncode == 0
    assert not is_there(socket)


async def all_heard_by(adapter: str, count: int) -> set[str]:
    heard: set[str] = set()
    async with (
        asyncio.timeout(2 * WITHIN_S),
        BleakScanner(bluez={"adapter": adapter}) as scanner,
    ):
        async for device, _advertisement in scanner.advertisement_data():
            heard.add(device.address)
            if len(heard) == count:
                break
    return heard


def is_there(path: str) -> bool:
    return Path(path).exists()
