"""An example for every command: its author's, else one made from what the command cannot do without."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import typer
from typer.models import ArgumentInfo, CommandInfo, OptionInfo, ParamMeta
from typer.utils import get_params_from_function

MARK = "例 / example"
"""Help that has this has its author's own example."""
BY_NAME = {
    "hub": "00c0ffee00c0ffee",
    "device": "C0:26:DA:01:02:03",
    "address": "C0:26:DA:01:02:03",
    "slot": "1",
    "reason": "'new household'",
    "why": "'test device'",
}
BY_TYPE: dict[Any, str] = {
    UUID: "8c6f2a4e-3b1d-4f7a-9d55-0e6b7a1c2d3e",
    int: "1",
    float: "1.5",
    datetime: "2026-11-23T08:00:00+08:00",
    Path: "hub.toml",
    list[Path]: "hub.toml",
    list[int]: "1",
}


def give_examples(app: typer.Typer, *words: str) -> None:
    """Give each command of `app`, called as `hearth` with `words` before it, an example in its help."""
    for info in app.registered_commands:
        if info.callback is not None and MARK not in f"{info.epilog} {info.callback.__doc__}":
            info.epilog = f"{MARK}:\n\n{' '.join(_call(info, words))}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            give_examples(group.typer_instance, *words, str(group.name))


def _call(info: CommandInfo, words: tuple[str, ...]) -> Iterator[str]:
    assert info.callback is not None  # noqa: S101 - see give_examples
    name = info.name or info.callback.__name__.replace("_", "-")
    yield from ("hearth", *words)
    if not words or words[-1] != name:
        yield name
    parameters = get_params_from_function(info.callback).values()
    for parameter in filter(_is_required, parameters):
        if isinstance(parameter.default, OptionInfo):
            yield _option(parameter, parameter.default)
        yield BY_NAME.get(parameter.name) or BY_TYPE.get(
            parameter.annotation, parameter.name.upper()
        )


def _is_required(parameter: ParamMeta) -> bool:
    described = parameter.default
    if isinstance(described, OptionInfo | ArgumentInfo):
        return described.default is ...
    return described is parameter.empty


def _option(parameter: ParamMeta, described: OptionInfo) -> str:
    named = [name for name in described.param_decls or () if name.startswith("--")]
    return named[0].partition("/")[0] if named else f"--{parameter.name.replace('_', '-')}"
