"""hub.toml: what a person sets on a hub. An annotated example is deploy/hub.toml.

A mistake stops the start, with the key's name and what to do. Secrets stand in files of their own,
never in this one.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from edge.hub_clock import Trust, is_synchronised
from edge.identity import FOLDER, broker_of, read_identity
from edge.outbox import CAPACITY_DEFAULT, CAPACITY_MIN, KEPT_DAYS_DEFAULT, Order, Policy
from gateway.errors import UsageError
from gateway.measurement import device_id
from gateway.platform.broker_address import BrokerAddress
from gateway.wire import BATCH_RECORDS_MAX, hub_id


def _hub(name: str) -> str:
    hub_id(name)
    return name


def _device(address: str) -> str:
    device_id(address)
    return address


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone, such as Asia/Shanghai") from error
    return name


def _broker_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "mqtts" or not parts.hostname or parts.username or parts.password:
        raise ValueError(
            "must be mqtts://host[:port]; a hub is known by its certificate, not by a password"
        )
    return url


def _api_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be http://host[:port] or https://host[:port]")
    return url.rstrip("/")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSection(_Section):
    """[hub]: which hub this is and where it stands."""

    id: Annotated[str, AfterValidator(_hub)]
    timezone: Annotated[str, AfterValidator(_zone)] = "Asia/Shanghai"
    data_dir: Path
    adapters: tuple[str, ...] = ()
    scan: Literal["active", "passive"] = "active"
    accept: Literal["listed", "any"] | None = None
    clock: Trust = Trust.NTP
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None


class MqttSection(_Section):
    """[mqtt]: the broker."""

    url: Annotated[str, AfterValidator(_broker_url)]


class EnrolmentSection(_Section):
    """[enrolment]: where the hub's certificate is renewed."""

    url: Annotated[str, AfterValidator(_api_url)]


class OutboxSection(_Section):
    """[outbox]: how much is kept, and when a batch is made."""

    capacity: Annotated[int, Field(ge=CAPACITY_MIN)] = CAPACITY_DEFAULT
    at_capacity: Policy = Policy.KEEP_OLDEST
    batch_records: Annotated[int, Field(ge=1, le=BATCH_RECORDS_MAX)] = 500
    batch_age_ms: Annotated[int, Field(ge=0, le=60_000)] = 200
    send_first: Order = Order.OLDEST
    keep_receipted_days: Annotated[int, Field(ge=0, le=366)] = KEPT_DAYS_DEFAULT


class DeviceSection(_Section):
    """[[device]]: one of the home's devices."""

    address: Annotated[str, AfterValidator(_device)]
    name: str = ""


class HubConfig(_Section):
    """A whole hub.toml."""

    hub: HubSection
    mqtt: MqttSection
    enrolment: EnrolmentSection
    outbox: OutboxSection = OutboxSection()
    device: tuple[DeviceSection, ...] = ()

    @model_validator(mode="after")
    def _check_together(self) -> HubConfig:
        if self.hub.accept == "listed" and not self.device:
            raise ValueError('[hub] accept = "listed" needs at least one [[device]]')
        return self

    @property
    def hub_id(self) -> int:
        """The hub's id as a number."""
        return hub_id(self.hub.id)

    @property
    def zone(self) -> ZoneInfo:
        """The home's time zone."""
        return ZoneInfo(self.hub.timezone)

    @property
    def outbox_path(self) -> Path:
        """The hub's one file."""
        return self.hub.data_dir / "outbox.sqlite"

    @property
    def listed(self) -> frozenset[int]:
        """The listed devices."""
        return frozenset(device_id(device.address) for device in self.device)

    @property
    def accepts_any(self) -> bool:
        """Whether devices that are not listed are read too: if said so, or if none is listed."""
        return self.hub.accept == "any" or not self.device

    @property
    def identity(self) -> Path:
        """The folder of the hub's key and certificates."""
        return self.hub.data_dir / FOLDER

    def broker(self) -> BrokerAddress:
        """Return the broker with the certificates as their files have them now.

        Raises:
            UsageError: the hub is not enrolled, or a file cannot be read.
        """
        clock_is_set = self.hub.clock is Trust.SYSTEM or is_synchronised()
        return broker_of(self.identity, self.mqtt.url, clock_is_set=clock_is_set)


def load_config(path: Path) -> HubConfig:
    """Read a hub.toml, of a hub that is enrolled.

    Raises:
        UsageError: it cannot be read or something in it is wrong; the text names it.
    """
    config = _read_config(path)
    _check_identity(config)
    return config


def _read_config(path: Path) -> HubConfig:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise UsageError(
            f"无法读取配置文件 / cannot read the configuration {path}: {error.strerror}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"配置文件不是有效的 TOML / {path} is no TOML: {error}") from error
    try:
        config = HubConfig.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            f"{_key(fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise UsageError(f"配置有误 / the configuration {path} is wrong: {faults}") from error
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a hub that is enrolled keeps its things; `is_new`: it has no hub.toml yet."""

    data_dir: Path
    is_new: bool

    @property
    def identity(self) -> Path:
        """The folder of the hub's key and certificates."""
        return self.data_dir / FOLDER


def place_of(path: Path, data_dir: Path, hub: str) -> Place:
    """Return where the hub's things are by its hub.toml, or are to be where there is none.

    Raises:
        UsageError: hub.toml is wrong, or another hub's.
    """
    if not path.exists():
        folder = path.absolute().parent
        # Before the code is used up.
        if not os.access(folder, os.W_OK):
            raise UsageError(f"无法写入目录 / cannot write a hub.toml into {folder}")
        return Place(data_dir=data_dir.absolute(), is_new=True)
    config = _read_config(path)
    if config.hub.id != hub:
        raise UsageError(
            f"登记码属于另一网关 / the code is for hub {hub}, and {path} is hub {config.hub.id}'s: "
            "请用 --config 另选文件 / choose another file with --config"
        )
    return Place(data_dir=config.hub.data_dir, is_new=False)


_NEW_FILE = """\
# 家庭网关的配置 / the configuration of a hub; deploy/hub.toml explains every key.

[hub]
id = {hub}
timezone = {timezone}
data_dir = {data_dir}

[mqtt]
url = {broker}

[enrolment]
url = {api}

# 家中的设备, 每台一段 / the home's devices, one section each. While none is listed, every device nearby is
# read, the neighbours' too.
# [[device]]
# address = "C0:26:DA:01:02:03"
# name = "血压计"
"""


def write_config(path: Path, **values: str | Path) -> None:
    """Write a first hub.toml; none that is there is overwritten.

    Raises:
        UsageError: it cannot be written.
    """
    # A JSON string is a TOML string.
    quoted = {name: json.dumps(str(value), ensure_ascii=False) for name, value in values.items()}
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_NEW_FILE.format(**quoted))
    except OSError as error:
        raise UsageError(
            f"无法写入配置文件 / cannot write the configuration {path}: {error.strerror}"
        ) from error


def check_together(configs: Sequence[HubConfig]) -> None:
    """Check hubs that are to run in one process.

    Raises:
        UsageError: two share an id, a folder or an adapter, or name different metrics ports.
    """
    for what, values in (
        ("[hub] id", [config.hub.id for config in configs]),
        ("[hub] data_dir", [str(config.hub.data_dir.absolute()) for config in configs]),
        ("[hub] adapters", [name for config in configs for name in config.hub.adapters]),
    ):
        doubled = {value for value in values if values.count(value) > 1}
        if doubled:
            raise UsageError(
                f"多个网关的配置相同 / hubs in one process must differ in {what}: "
                f"{', '.join(sorted(doubled))}"
            )
    if len(configs) > 1 and not all(config.hub.adapters for config in configs):
        raise UsageError(
            "同一进程有多个网关时须指定蓝牙适配器 / of several hubs in one process each must name its "
            "[hub] adapters"
        )
    ports = {config.hub.metrics_port for config in configs} - {None}
    if len(ports) > 1:
        raise UsageError("同一进程只有一个指标端口 / one process has one [hub] metrics_port")


def _key(location: Sequence[str | int]) -> str:
    """Return a key as it stands in the file: [hub] id, [[device]] 2 address."""
    match location:
        case ["device", int(index), *rest]:
            return " ".join(["[[device]]", str(index + 1), *map(str, rest)])
        case [str(section), *rest]:
            return " ".join([f"[{section}]", *map(str, rest)])
        case _:
            return "hub.toml"


def _check_identity(config: HubConfig) -> None:
    """Refuse to start with another hub's certificate: the broker would let nothing through."""
    config.broker()
    name = read_identity(config.identity).name
    if name != config.hub.id:
        raise UsageError(
            f"证书属于另一网关 / the certificate in {config.identity} is hub {name}'s, and [hub] id is "
            f"{config.hub.id}: 请为每个网关使用单独的 data_dir / give each hub a data_dir of its own"
        )
