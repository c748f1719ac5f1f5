"""Records on standard output: a table for a person, one JSON object a line for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HEADINGS = {
    "address": "地址\naddress",
    "created_at": "登记时间\ncreated_at",
    "device": "设备\ndevice",
    "devices": "设备数\ndevices",
    "ends_at": "结束\nends_at",
    "enrolled_at": "登记时间\nenrolled_at",
    "home": "家庭\nhome",
    "hubs": "网关数\nhubs",
    "id": "编号\nid",
    "model": "型号\nmodel",
    "name": "编号\nname",
    "resident": "居民\nresident",
    "revoked_at": "注销时间\nrevoked_at",
    "starts_at": "开始\nstarts_at",
    "user_slot": "用户槽位\nuser_slot",
}
"""What stands above a field, in its own language first."""


def show(records: Sequence[DataclassInstance], *, as_json: bool) -> None:
    """Print records of one type."""
    if as_json:
        for record in records:
            typer.echo(json.dumps(asdict(record), default=_exactly))
        return
    if not records:
        typer.echo("没有 / none", err=True)
        return
    table = Table()
    for field in fields(records[0]):
        table.add_column(HEADINGS[field.name], overflow="fold")
    for record in records:
        values = (getattr(record, field.name) for field in fields(record))
        table.add_row(*map(_briefly, values))
    Console().print(table)


def _exactly(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _briefly(value: object) -> str:
    if value is None:
        return "-"
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
