"""`hearth hub run` as a person runs it: its own process, real broker, simulated devices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway import wire
from gateway.cli.hub import app
from gateway.measurement import Measurement, device_id
from gateway.platform import mqtt
from gateway.platform.embedded.broker import Broker
from gateway.platform.settings import CHECKOUT, LOOPBACK
from gateway.vitals import BY_NAME
from tests.fixtures.identities import enrol_at
from tests.hub_agent import until
from tests.simulated import ADDRESS, model_of, simulated_home, typical

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]
HUB, OTHER_HUB = 0x00C0FFEE00C0FFEE, 0x0000000000000001
OTHER_ADAPTER, OTHER_ADDRESS = "00:00:5E:00:53:02", "C0:26:DA:01:02:99"
WITHIN_S = 60.0
"""A process that imports everything on a busy machine."""


@dataclass(slots=True)
class HubProcess:
    """A running `hearth hub run`; `told` is what it told systemd, `said` its log."""

    process: asyncio.subprocess.Process
    told: asyncio.Queue[str]
    said: list[dict[str, object]]

    @property
    def metrics_url(self) -> str:
        (port,) = [e["metrics_port"] for e in self.said if e["event"] == "hubs_running"]
        return f"http://{LOOPBACK}:{port}"

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(WITHIN_S):
            return await self.process.wait()


def configuration(folder: Path, broker: Broker, hub: int, adapter: str) -> Path:
    name = wire.hub_name(hub)
    enrol_at(broker, name, folder / name)
    path = folder / f"{name}.toml"
    path.write_text(
        f"""
[hub]
id = "{name}"
data_dir = "{folder / name}"
clock = "system"
adapters = ["{adapter}"]
[mqtt]
url = "mqtts://{LOOPBACK}:{broker.port}"
[enrolment]
url = "http://{LOOPBACK}:1"
""",
        encoding="utf-8",
    )
    return path


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "gateway.cli.main", "hub", *map(str, words)]


@asynccontextmanager
async def hub_process(folder: Path, *configs: Path, usec: int = 0) -> AsyncIterator[HubProcess]:
    """Run hubs as systemd would, and wait until they say that they are ready."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[str] = asyncio.Queue()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.setblocking(False)  # noqa: FBT003 - its name
        path = folder / "notify"
        path.unlink(missing_ok=True)
        supervisor.bind(str(path))
        loop.add_reader(supervisor, lambda: told.put_nowait(supervisor.recv(4096).decode()))
        environment = os.environ | {
            "NOTIFY_SOCKET": str(path),
            "HEARTH_LOG_FORMAT": "json",
            "HEARTH_HOME": str(folder),
            **({"WATCHDOG_USEC": str(usec)} if usec else {}),
        }
        options = [word for config in configs for word in ("--config", config)]
        process = await asyncio.create_subprocess_exec(
            *command("run", *options),
            cwd=CHECKOUT,
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        hub = HubProcess(process, told, [])
        listening = asyncio.create_task(listen(hub))
        try:
            async with asyncio.timeout(WITHIN_S):
                assert await told.get() == "READY=1", hub.said
            await until(lambda: any(e["event"] == "hubs_running" for e in hub.said))
            yield hub
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await listening
            loop.remove_reader(supervisor)


async def listen(hub: HubProcess) -> None:
    assert hub.process.stderr is not None
    async for line in hub.process.stderr:
        hub.said.append(json.loads(line) if line.startswith(b"{") else {"event": line.decode()})


@asynccontextmanager
async def readings_at(broker: Broker) -> AsyncIterator[list[tuple[int, Measurement]]]:
    """Stand in for ingest: receipt every batch; yields what has come, with its hub."""
    came: list[tuple[int, Measurement]] = []
    identity = mqtt.Identity(
        client_id="test-ingest", expiry_s=3600, will=mqtt.Will(topic="unused", payload=b"")
    )

    async def run(session: mqtt.Session) -> None:
        session.subscribe([wire.topic(hub, wire.Channel.BATCH) for hub in (HUB, OTHER_HUB)])
        while True:
            event = await session.next_event(None)
            if not isinstance(event, mqtt.Arrived):
                continue
            header, body = wire.decode_batch(event.payload)
            came.extend(
                (header.hub, wire.decode_record(body[i : i + 64], header.reference_at))
                for i in range(0, len(body), wire.RECORD_BYTES)
            )
            receipt = wire.Receipt(
                epoch=header.epoch,
                sequence=header.sequence,
                stored=header.count,
                duplicate=0,
                quarantined=0,
            )
            answer = wire.encode_receipts(header.epoch, [receipt])
            session.publish(wire.topic(header.hub, wire.Channel.RECEIPT), answer)

    async with mqtt.connect(broker.access().address(), identity) as session:
        running = asyncio.create_task(run(session))
        try:
            yield came
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_two_hubs_in_one_process_each_read_their_own_home(
    bluetooth: str, broker: Broker, home: Path
) -> None:
    async with simulated_home(bluetooth) as street, readings_at(broker) as came:
        await street.bluez.add_adapter(street.air, OTHER_ADAPTER)
        configs = [
            configuration(home, broker, HUB, "hci0"),
            configuration(home, broker, OTHER_HUB, "hci1"),
        ]
        for config, listed in zip(configs, (ADDRESS, OTHER_ADDRESS), strict=True):
            with config.open("a") as file:
                file.write(f'[[device]]\naddress = "{listed}"\n')
        async with hub_process(home, *configs) as hub:
            street.add(model_of(CUFF), ADDRESS).take(typical(CUFF))
            street.add(model_of(CUFF), OTHER_ADDRESS).take(typical(CUFF))
            await until(lambda: len(came) == 2)
            assert {(number, m.device) for number, m in came} == {
                (HUB, device_id(ADDRESS)),
                (OTHER_HUB, device_id(OTHER_ADDRESS)),
            }
            async with httpx.AsyncClient(base_url=hub.metrics_url) as client:
                assert (await client.get("/readyz")).status_code == 200
                metrics = (await client.get("/metrics")).text
            assert 'hearth_hub_measurements_total{hub="00c0ffee00c0ffee"} 1.0' in metrics
            assert 'hearth_hub_measurements_total{hub="0000000000000001"} 1.0' in metrics
            assert "C0:26" not in metrics
            assert await hub.end(signal.SIGTERM) == 0
            assert "STOPPING=1" in [await hub.told.get() for _ in range(hub.told.qsize())]


async def test_a_hub_that_is_killed_goes_on_where_it_was(
    bluetooth: str, broker: Broker, home: Path
) -> None:
    async with simulated_home(bluetooth) as street:
        config = configuration(home, broker, HUB, "hci0")
        device = street.add(model_of(CUFF))
        async with hub_process(home, config) as hub:
            device.take(typical(CUFF))
            await until(lambda: not len(device.memory))
            await until(lambda: any(e["event"] == "session" for e in hub.said))
            await hub.end(signal.SIGKILL)
        device.take(typical(CUFF, more=1))
        async with readings_at(broker) as came, hub_process(home, config) as hub:
            await until(lambda: len({m.reading.values for _hub, m in came}) == 2)
            assert await hub.end(signal.SIGINT) == 0


async def test_the_watchdog_is_told_that_the_hub_is_alive(
    bluetooth: str, broker: Broker, home: Path
) -> None:
    async with simulated_home(bluetooth):
        config = configuration(home, broker, HUB, "hci0")
        async with hub_process(home, config, usec=100_000) as hub, asyncio.timeout(WITHIN_S):
            for _ in range(3):
                assert await hub.told.get() == "WATCHDOG=1"


async def test_without_bluetooth_the_hub_waits_and_says_so(
    bluetooth: str, broker: Broker, home: Path
) -> None:
    config = configuration(home, broker, HUB, "hci0")
    async with hub_process(home, config) as hub:
        async with httpx.AsyncClient(base_url=hub.metrics_url) as client:
            answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "no Bluetooth adapter" in answer.text
        async with simulated_home(bluetooth):
            await until(lambda: any(e["event"] == "scanning" for e in hub.said))
            async with httpx.AsyncClient(base_url=hub.metrics_url) as client:
                assert (await client.get("/readyz")).status_code == 200


async def test_the_status_of_a_running_hub_is_shown_to_people_and_machines(
    bluetooth: str, broker: Broker, home: Path
) -> None:
    def shown() -> dict[str, Any]:
        output = CliRunner().invoke(app, ["status", "--config", str(config), "--json"]).output
        found: dict[str, Any] = json.loads(output)["hubs"][0]
        return found

    async with simulated_home(bluetooth) as street:
        config = configuration(home, broker, HUB, "hci0")
        async with hub_process(home, config):
            street.add(model_of(CUFF)).take(typical(CUFF))
            await until(lambda: shown()["depth"]["records"] == 1)
            assert shown()["hub"] == "00c0ffee00c0ffee"
            assert shown()["tallies"]["kept"] == 1
            words = CliRunner().invoke(app, ["status", "--config", str(config)]).output
    assert "待回执测量 / measurements in them: 1" in words


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[hub]", "[hub]\ncolour = 1"), "[hub] colour"),
        (("mqtts://", "http://"), "mqtts://host"),
    ],
)
async def test_a_mistake_ends_with_one_message_and_status_2(
    broker: Broker, home: Path, change: tuple[str, str], says: str
) -> None:
    config = configuration(home, broker, HUB, "hci0")
    config.write_text(config.read_text().replace(*change))
    process = await asyncio.create_subprocess_exec(
        *command("run", "--config", config), cwd=CHECKOUT, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert says in errors.decode()
    assert "Traceback" not in errors.decode()
