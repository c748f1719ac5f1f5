"""`hearth admin attribution`: whose the readings of shared devices are, looked at anew."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer

from api.registry import canonical_address
from gateway.cli.admin.options import AsJson
from gateway.cli.database import database_url
from gateway.platform.postgres import connect
from gateway.platform.settings import load_settings
from ingest.attribution.settle import SettledSlots, settle_shared
from ingest.baselines.evaluate import evaluate_due

app = typer.Typer(
    help="共用设备的归属 / whose the readings of shared devices are.",
    no_args_is_help=True,
    epilog="例 / examples:\n\nhearth admin attribution settle\n\n"
    "hearth admin attribution settle --device C0:26:DA:04:05:06",
)


@app.callback()
def _group() -> None:
    """共用设备的归属 / whose the readings of shared devices are."""


@app.command("settle")
def settle(
    *,
    device: Annotated[str | None, typer.Option(help="只看此设备 / only this device.")] = None,
    as_json: AsJson = False,
) -> None:
    """按全部历史重新判断; 结果与到达次序无关 / look at it anew; the result knows no order of arrival."""
    address = None if device is None else canonical_address(device)
    done = asyncio.run(_settle(address))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    typer.echo(
        f"槽位 / slots {done.slots}, 测量 / readings {done.readings}, "
        f"改变 / changed {done.changed}, 待认领 / unassigned {done.unassigned}"
    )


async def _settle(device: str | None) -> SettledSlots:
    dsn = database_url(load_settings())
    async with await connect(dsn, application="hearth-admin", autocommit=True) as connection:
        done = await settle_shared(connection, device)
        while (await evaluate_due(connection))[0]:
            pass
        return done
