"""`hearth admin device`: devices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from api import registry
from api.records import NewDevice, Registration
from gateway.cli.admin.options import Address, AsJson, OfHome, OnlyHome, open_archive, register
from gateway.cli.tables import show

app = typer.Typer(help="设备 / devices.", no_args_is_help=True)


@app.command("add")
def add_device(
    device: Address,
    *,
    home: OfHome,
    model: Annotated[str | None, typer.Option(help="型号 / the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """登记一台设备; 再次登记可更正型号 / enter a device; entering it again corrects the model."""
    new = NewDevice(address=registry.canonical_address(device), home=home, model=model)
    register(Registration(devices=[new]))
    show([new], as_json=as_json)


@app.command("list")
def list_devices(*, home: OnlyHome = None, as_json: AsJson = False) -> None:
    """列出设备 / list devices."""
    with open_archive() as connection:
        show(registry.list_devices(connection, home=home), as_json=as_json)


@app.command("move")
def move_device(device: Address, *, home: OfHome) -> None:
    """把设备迁到另一家庭, 须先结束其关联 / put a device into another home; its links end first."""
    with open_archive() as connection:
        registry.move_device(connection, device, home, datetime.now(UTC))
