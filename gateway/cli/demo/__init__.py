"""`hearth demo`: the whole system on real parts, with simulated homes whose devices speak GATT."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, TypeVar

import numpy as np
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from api.access import Role
from edge.config import load_config
from edge.status import read_status
from firmware_sim.homes import generate_homes
from gateway.cli.database import api_database_url
from gateway.cli.demo.people import Person, enter_people, watcher_token
from gateway.cli.demo.processes import Plan, running
from gateway.cli.demo.town import Town, settle
from gateway.cli.demo.watch import Watch
from gateway.cli.ledger import table_of
from gateway.errors import UnavailableError, UsageError
from gateway.platform.embedded.services import Services, running_services
from gateway.platform.logs import get_logger
from gateway.platform.ports import free_port, require_free
from gateway.platform.settings import CHECKOUT, LOOPBACK, Settings, load_settings
from gateway.platform.supervisor import Supervisor, keep
from ingest.ledger import Ledger, read_ledger, stored_signs
from ingest.migrations import migrate

HOMES_MAX = 200
"""More devices than one machine can play beside everything else."""
READINGS_PER_S = 6.0
"""What all devices together take: lively, and far from what the parts could carry."""
DRAIN_S_MAX = 60.0
"""What the hubs still hold at the end, and a database that is being started again, is waited for so
long."""
WATCH_S = 1.0
"""How often the live counts are read."""
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?P<count>\d+)(?P<unit>[smh]?)")

Found = TypeVar("Found")

_log = get_logger(__name__)
app = typer.Typer(help="整个系统, 模拟的家庭 / the whole system with simulated homes.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What --json prints. The counts are this run's; `balanced` is of the whole ledger."""

    homes: int
    seconds: float
    delivered: int
    """Indications that devices had confirmed, and drinks advertised."""
    published: int
    stored: int
    duplicates: int
    quarantined: int
    balanced: bool
    signs_stored: list[str]
    restarts: int
    """How many times a part that had died was started again."""
    visible: int
    latency_p50_s: float | None
    latency_p99_s: float | None


@app.command(
    epilog="例 / examples:\n\nhearth demo\n\nhearth demo --homes 20 --for 90s --json",
)
def demo(
    *,
    homes: Annotated[int, typer.Option(min=1, max=HOMES_MAX, help="几户 / how many homes.")] = 3,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="运行多久后自行结束 / how long: 60s, 5m; else until Ctrl-C."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="同样的种子, 同样的家庭 / same seed, same homes.")
    ] = 1,
    readings_per_s: Annotated[
        float,
        typer.Option(min=0.1, max=200, help="全部设备每秒读数 / readings a second, all devices."),
    ] = READINGS_PER_S,
    as_json: Annotated[
        bool, typer.Option("--json", help="机器可读: 结束时一个对象 / one object at the end.")
    ] = False,
) -> None:
    """启动整个系统和模拟的家庭; 账目平衡时退出码为 0.

    Bring up broker, TimescaleDB, ingest, API and simulated homes, show a live count, and at the end the
    ledger. Exit status 0 only if it balances. Ctrl-C stops cleanly.
    """
    settings = load_settings()
    if settings.database_url or settings.mqtt_url:
        raise UsageError(
            "演示只用自带的数据库和消息代理 / the demo uses the embedded database and broker only: unset "
            "HEARTH_DATABASE_URL and HEARTH_MQTT_URL"
        )
    summary = asyncio.run(
        _Demo(settings, homes, seed, readings_per_s, _seconds(for_), quiet=as_json).run()
    )
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    raise typer.Exit(0 if summary.balanced else 1)


class _Demo:
    """One run of the demo."""

    def __init__(
        self,
        settings: Settings,
        homes: int,
        seed: int,
        readings_per_s: float,
        seconds: float | None,
        *,
        quiet: bool,
    ) -> None:
        self._settings = settings
        self._homes = generate_homes(homes, seed)
        self._seed = seed
        self._readings_per_s = readings_per_s
        self._seconds = seconds
        self._quiet = quiet
        self._people: list[Person] = []
        self._console = Console(stderr=True)
        self._stopped = asyncio.Event()

    async def run(self) -> Summary:
        """Run it and return what happened."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopped.set)
        require_free(self._settings.api_port, "HEARTH_API_PORT")
        port = self._settings.api_port or free_port()
        settings = self._settings.model_copy(
            update={"api_url": self._settings.api_url or f"http://{LOOPBACK}:{port}"}
        )
        async with running_services(self._settings, self._say) as services:
            migrate(services.database_url)
            before = read_ledger(services.database_url, prove=False)
            hubs = self._settings.home / "demo" / "hubs"
            if (
                not before.hubs
            ):  # a new database: outboxes of an older one would have to explain gaps
                shutil.rmtree(hubs, ignore_errors=True)
            town = settle(self._homes, services, hubs, f"http://{LOOPBACK}:{port}")
            self._people = enter_people(services.database_url, self._settings, town.residents)
            plan = Plan(
                settings=settings,
                services=services,
                configs=town.configs,
                folder=self._settings.home / "demo",
                homes=len(self._homes),
                seed=self._seed,
                readings_per_s=self._readings_per_s,
                api_port=port,
                api_database_url=api_database_url(self._settings),
            )
            return await self._run_parts(plan, town, services, before)

    async def _run_parts(
        self, plan: Plan, town: Town, services: Services, before: Ledger
    ) -> Summary:
        self._say("启动各部分 / starting the parts")
        context = running(plan)
        parts = await asyncio.to_thread(context.__enter__)
        try:
            watch = Watch(
                journal=plan.journal,
                url=f"http://{LOOPBACK}:{plan.api_port}",
                token=lambda: watcher_token(services.database_url, plan.settings),
                residents_of=town.residents_of,
            )
            servers = [server for server in (services.database, services.broker) if server]
            supervisor = Supervisor([*servers, *parts.supervised])
            self._tell_where(plan, town)
            started = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                running_on = [
                    tasks.create_task(watch.run()),
                    tasks.create_task(keep(supervisor)),
                ]
                await self._show(watch, services, before)
                seconds = time.monotonic() - started
                await asyncio.to_thread(parts.homes.stop)
                await _drain(town)
                await asyncio.sleep(WATCH_S)  # the last readings become visible
                ledger = await _patiently(lambda: read_ledger(services.database_url))
                signs = await _patiently(lambda: stored_signs(services.database_url))
                for task in running_on:
                    task.cancel()
        finally:
            await asyncio.to_thread(context.__exit__, *sys.exc_info())
        if not self._quiet:
            Console().print(table_of(ledger))
        return _summary(
            len(self._homes), seconds, watch, supervisor.restarts, before, ledger, signs
        )

    async def _show(self, watch: Watch, services: Services, before: Ledger) -> None:
        """Show the live count until the time is over or a person has had enough."""
        deadline = None if self._seconds is None else time.monotonic() + self._seconds
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not self._stopped.is_set():
                if deadline is not None and time.monotonic() > deadline:
                    return
                if self._console.is_terminal:
                    with suppress(UnavailableError):  # it is being started again: the last count
                        ledger = await asyncio.to_thread(
                            read_ledger, services.database_url, prove=False
                        )
                        live.update(_counts(watch, before, ledger), refresh=True)
                try:
                    async with asyncio.timeout(WATCH_S):
                        await self._stopped.wait()
                except TimeoutError:
                    pass  # look again

    def _tell_where(self, plan: Plan, town: Town) -> None:
        url = f"http://{LOOPBACK}:{plan.api_port}"
        clinician = next(one for one in self._people if one.role is Role.CLINICIAN)
        resident = town.residents[0]
        self._say(f"运行中 / running: {url}  (Ctrl-C 结束 / stops it)")
        self._say("可登录的账户, 密码本次有效 / accounts, their passwords made at this start:")
        for person in self._people:
            self._say(person.said)
        hearth = "./hearth" if (CHECKOUT / "hearth").is_file() else "hearth"
        where = (
            ""
            if plan.settings.issuer_url == self._settings.issuer_url
            else f"HEARTH_API_URL={url} "
        )
        self._say(
            f'试一试 / try: curl -H "Authorization: Bearer $({where}{hearth} admin user token '
            f'{clinician.credentials.login})" {url}/api/v1/residents/{resident}/latest'
        )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


async def _drain(town: Town) -> None:
    """Wait until no hub holds anything without a receipt."""
    configs = [load_config(path) for path in town.configs]
    deadline = time.monotonic() + DRAIN_S_MAX
    while True:
        held = 0
        for config in configs:
            status = await asyncio.to_thread(
                read_status, config.hub_id, config.outbox_path, config.identity
            )
            depth = status.depth
            held += depth.entries + depth.records
        if not held:
            return
        if time.monotonic() > deadline:
            _log.warning("hubs_not_drained", measurements=held)
            return
        await asyncio.sleep(WATCH_S / 5)


async def _patiently(read: Callable[[], Found]) -> Found:
    """Read from a database that may just be starting again.

    Raises:
        UnavailableError: it does not answer within `DRAIN_S_MAX`.
    """
    deadline = time.monotonic() + DRAIN_S_MAX
    while True:
        try:
            return await asyncio.to_thread(read)
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(WATCH_S)


def _counts(watch: Watch, before: Ledger, now: Ledger) -> Table:
    table = Table.grid(padding=(0, 2))
    for zh, en, count in (
        ("设备送出", "delivered by devices", watch.delivered),
        ("已入库", "stored", now.total("stored") - before.total("stored")),
        ("重复", "duplicate", now.total("duplicate") - before.total("duplicate")),
        ("隔离", "quarantined", now.total("quarantined") - before.total("quarantined")),
    ):
        table.add_row(f"{zh} / {en}", f"{count:,}")
    latency = _percentile(watch.latencies_s, 50)
    table.add_row("延迟 / latency p50", "" if latency is None else f"{latency:.2f} s")
    return table


def _summary(
    homes: int,
    seconds: float,
    watch: Watch,
    restarts: int,
    before: Ledger,
    after: Ledger,
    signs: list[str],
) -> Summary:
    def more(term: str) -> int:
        return after.total(term) - before.total(term)

    return Summary(
        homes=homes,
        seconds=round(seconds, 1),
        delivered=watch.delivered,
        published=more("published"),
        stored=more("stored"),
        duplicates=more("duplicate"),
        quarantined=more("quarantined"),
        balanced=after.balanced,
        signs_stored=signs,
        restarts=restarts,
        visible=len(watch.latencies_s),
        latency_p50_s=_percentile(watch.latencies_s, 50),
        latency_p99_s=_percentile(watch.latencies_s, 99),
    )


def _percentile(values: list[float], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if values else None


def _seconds(duration: str | None) -> float | None:
    if duration is None:
        return None
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise UsageError(
            f"时长有误 / --for takes a number and s, m or h, such as 60s: {duration!r}"
        )
    return float(match["count"]) * _SECONDS[match["unit"] or "s"]
