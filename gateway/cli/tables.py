"""Records on standard output: a table for a person, one JSON object a line for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HEADINGS = {
    "action": "行为\naction",
    "actor": "操作者\nactor",
    "address": "地址\naddress",
    "anchored": "锚定\nanchored",
    "anchors": "锚数\nanchors",
    "at": "时间\nat",
    "believed_from": "认定自\nbelieved_from",
    "believed_until": "认定至\nbelieved_until",
    "candidates": "可能\ncandidates",
    "chains": "链数\nchains",
    "changed_by": "变更者\nchanged_by",
    "cleared_at": "解除\ncleared_at",
    "client": "应用\nclient",
    "corrected_by": "更正\ncorrected_by",
    "correction_id": "更正\ncorrection_id",
    "created_at": "登记时间\ncreated_at",
    "dead": "死信\ndead",
    "delivered": "已送达\ndelivered",
    "detail": "详情\ndetail",
    "device": "设备\ndevice",
    "devices": "设备数\ndevices",
    "disabled_at": "停用\ndisabled_at",
    "enabled": "启用\nenabled",
    "ended_at": "停用\nended_at",
    "ends_at": "结束\nends_at",
    "enrolled_at": "登记时间\nenrolled_at",
    "expires_at": "到期\nexpires_at",
    "from_at": "起\nfrom_at",
    "has_totp": "双因素\nhas_totp",
    "hash": "散列\nhash",
    "home": "家庭\nhome",
    "hubs": "网关数\nhubs",
    "id": "编号\nid",
    "is_note": "仅记录\nis_note",
    "key_file": "密钥文件\nkey_file",
    "kind": "种类\nkind",
    "last_at": "最近\nlast_at",
    "locked_until": "锁定至\nlocked_until",
    "login": "用户名\nlogin",
    "made_at": "更正时间\nmade_at",
    "measured_at": "测量时间\nmeasured_at",
    "members": "成员数\nmembers",
    "model": "型号\nmodel",
    "name": "编号\nname",
    "origin": "来自\norigin",
    "parameters": "阈值\nparameters",
    "password": "密码\npassword",
    "public_id": "编号\npublic_id",
    "raised_at": "发现\nraised_at",
    "reading": "测量\nreading",
    "readings": "读数\nreadings",
    "reason": "理由\nreason",
    "redirect_uris": "返回地址\nredirect_uris",
    "resident": "居民\nresident",
    "residents": "居民数\nresidents",
    "revoked_at": "注销时间\nrevoked_at",
    "role": "角色\nrole",
    "rows": "行数\nrows",
    "rule": "规则\nrule",
    "scopes": "范围\nscopes",
    "sign": "体征\nsign",
    "source": "来源\nsource",
    "stage": "级别\nstage",
    "started_at": "开始\nstarted_at",
    "starts_at": "开始\nstarts_at",
    "state": "状态\nstate",
    "totp": "动态码\ntotp",
    "undone_by": "被撤销\nundone_by",
    "until_at": "止\nuntil_at",
    "url": "网址\nurl",
    "user_slot": "用户槽位\nuser_slot",
    "usual": "通常\nusual",
    "values": "数值\nvalues",
    "version": "版本\nversion",
    "waiting": "等待\nwaiting",
    "webhook_id": "编号\nwebhook_id",
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
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_briefly(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return "; ".join(map(_briefly, value))
    if is_dataclass(value):
        return " ".join(_briefly(getattr(value, field.name)) for field in fields(value))
    return str(value)
