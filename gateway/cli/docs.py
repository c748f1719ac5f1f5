"""`hearth docs`: write the tables of the documentation from signs, settings and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import typer
from prometheus_client.metrics import MetricWrapperBase

import api.metrics
import ingest.alerts.metrics
import ingest.metrics
from edge.counts import HubMetrics
from gateway.errors import UsageError
from gateway.platform.settings import CHECKOUT, Settings
from gateway.vital_sign import VitalSign
from gateway.vitals import SIGNS

app = typer.Typer(help="文档中的表格 / the tables of the documentation.")


def devices_table() -> Iterator[str]:
    """Yield the table of supported devices: one row a source of a sign."""
    yield "| 体征 / sign | 设备接口 / how the device speaks | 量 / quantities | 单位 / units |"
    yield "|---|---|---|---|"
    for sign in SIGNS:
        for title, place in _ways(sign):
            quantities = ", ".join(quantity.title.en.lower() for quantity in sign.quantities)
            yield f"| {sign.title.zh} {sign.title.en} | {title} ({place}) | {quantities} | {_units(sign)} |"


def signs_table() -> Iterator[str]:
    """Yield the table of signs as the wire format numbers them."""
    yield "| code | sign | quantities in order | unit sets |"
    yield "|---|---|---|---|"
    for sign in SIGNS:
        quantities = ", ".join(f"`{quantity.name}`" for quantity in sign.quantities)
        unit_sets = "; ".join(
            f"{number}: {', '.join(unit.ucum for unit in unit_set.units)}"
            for number, unit_set in enumerate(sign.unit_sets)
        )
        yield f"| {sign.code} | {sign.name} | {quantities} | {unit_sets} |"


def settings_table() -> Iterator[str]:
    """Yield the table of environment variables."""
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or field.default_factory else f"`{field.default}`"
        yield f"| `HEARTH_{name.upper()}` | {default} | {field.description} |"


def metrics_table() -> Iterator[str]:
    """Yield the table of metrics of all services, by name."""
    yield "| metric | kind | counts or shows |"
    yield "|---|---|---|"
    services = (ingest.metrics, ingest.alerts.metrics, api.metrics)
    for collector in (*chain.from_iterable(map(_metrics, services)), HubMetrics([])):
        for metric in collector.collect():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            yield f"| `{name}` | {metric.type} | {metric.documentation} |"


BLOCKS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "devices": ("README.md", devices_table),
    "signs": ("docs/wire.md", signs_table),
    "settings": ("docs/settings.md", settings_table),
    "metrics": ("docs/operations.md", metrics_table),
}
"""Name of the block -> the file that holds it, and what it says."""


@app.command()
def docs() -> None:
    """更新文档中由代码生成的表格 / bring the generated tables of the documentation up to date."""
    if not (CHECKOUT / "pyproject.toml").is_file():
        raise UsageError("只能在源码目录中使用 / only in a checkout")
    for path, text in updated(CHECKOUT).items():
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            typer.echo(f"{path.relative_to(CHECKOUT)}", err=True)


def updated(root: Path) -> dict[Path, str]:
    """Return the files that have generated blocks, as they should read."""
    texts: dict[Path, str] = {}
    for name, (file, table) in BLOCKS.items():
        path = root / file
        text = texts.get(path) or path.read_text(encoding="utf-8")
        block = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        assert block.search(text), (file, name)  # noqa: S101 - the file lost its marks
        body = "".join(f"{line}\n" for line in table())
        texts[path] = block.sub(lambda marks, body=body: f"{marks[1]}{body}{marks[2]}", text)  # type: ignore[misc]
    return texts


def _metrics(module: object) -> Iterable[MetricWrapperBase]:
    return (value for value in vars(module).values() if isinstance(value, MetricWrapperBase))


def _ways(sign: VitalSign) -> Iterator[tuple[str, str]]:
    for gatt in sign.gatt:
        yield gatt.title, f"{gatt.service:#06x}/{gatt.characteristic:#06x}"
    for advertised in sign.advertised:
        yield advertised.title, f"service data {advertised.service_data:#06x}"


def _units(sign: VitalSign) -> str:
    names = dict.fromkeys(unit.name for unit_set in sign.unit_sets for unit in unit_set.units)
    return ", ".join(names)
