"""What a product is like, as data: `DeviceModel`, read from models.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cache

from firmware_sim.clock import ClockModel
from firmware_sim.data import FOLDER, exact, load
from gateway.errors import UsageError
from gateway.vital_sign import VitalSign


class Garble(Enum):
    """How a device breaks its payloads."""

    NONE = "none"
    PADDED = "padded"
    """Zero bytes up to 20 follow the payload, as some devices send."""
    CUT = "cut"
    """The last byte is missing."""


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceModel:
    """One product. Everything it does is here; a device adds its address, people and clock."""

    name: str
    """What it advertises as its name; at most 12 characters fit beside its services."""
    sign: str
    """The vital sign's name in the registry."""
    share: float = 1.0
    """How common it is among the models of its sign."""

    unit_set: int = 0
    """Which of the sign's unit sets it uses."""
    omits: frozenset[str] = frozenset()
    """Quantities that it never sends."""
    slots: int = 0
    """How many users it tells apart; 0: it does not."""
    shared: bool = False
    """Everyone in the home uses it, although it tells nobody apart."""
    per_day: float = 2.0
    """How many readings it takes a day, of all its users together."""
    hours: tuple[int, int] = (6, 22)
    """It is used from the first to the second hour of the day, local time."""
    status: int = 0
    """What its status field always says (where a thermometer measures)."""
    failed_every: int = 0
    """Each so many-th reading has failed and says so with special values; 0: none."""
    artefact_every: int = 0
    """Each so many-th reading carries a status that marks an artefact; 0: none."""
    garble: Garble = Garble.NONE
    garbled_every: int = 1
    """Each so many-th payload is broken as `garble` says."""

    clock: ClockModel = field(default_factory=ClockModel)

    memory: int = 60
    """So many readings are kept until the hub has them; then the oldest is overwritten."""
    keeps: bool = False
    """It keeps readings that the hub has, to send them all again when told to (`resend`)."""
    public_address: bool = False
    bonds: bool = False
    """Its readings need an encrypted connection, so it has to be paired (Just Works)."""
    asks_for_security: bool = False
    """It sends a Security Request as soon as it is connected."""
    eager: bool = False
    """Bonded, it sends as soon as the connection is encrypted: it remembers the subscription."""
    battery_percent: int | None = None
    battery_lasts: int = 0
    """So many readings; then a new battery takes the clock back to its start. 0: for ever."""

    advertises_s: float = 30.0
    """How long it advertises after a reading while the hub does not come."""
    advertising_interval_ms: float = 250.0
    patience_s: float = 15.0
    """It disconnects when the hub has not subscribed by then."""
    idle_s: float = 1.0
    """It disconnects this long after it has sent the last reading."""
    repeats_s: float = 3.0
    """Where it only advertises: how long it repeats each reading."""


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class _Catalogue:
    """The whole of data/models.toml."""

    model: tuple[DeviceModel, ...]


@cache
def catalogue() -> dict[str, DeviceModel]:
    """Return the products by name, read once."""
    models = load(FOLDER / "models.toml", _Catalogue).model
    return {model.name: model for model in models}


def model_named(name: str) -> DeviceModel:
    """Return a product.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return catalogue()[name]
    except KeyError:
        known = ", ".join(catalogue())
        raise UsageError(f"没有此型号 / no model {name!r}: {known}") from None


def models_of(sign: VitalSign) -> tuple[DeviceModel, ...]:
    """Return the products of a sign; where the catalogue has none, a plain one."""
    models = tuple(model for model in catalogue().values() if model.sign == sign.name)
    return models or (DeviceModel(name=sign.name[:12], sign=sign.name),)
