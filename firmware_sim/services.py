"""The GATT database of a simulated device, from its sign's sources and its model.

Device Information 1.1, Battery 1.0, Current Time 1.1, Elapsed Time 1.0 and, where a source is
sent on request, the control points of Generic Health Sensor 1.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bumble import att
from bumble.core import UUID
from bumble.device import Connection, Device
from bumble.gatt import (
    GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
    Characteristic,
    CharacteristicValue,
    Descriptor,
    Service,
)

from firmware_sim.clock_service import clock_characteristic, read_clock, write_clock
from firmware_sim.device import SimulatedDevice
from gateway.gatt import health_observation as ghs
from gateway.gatt import record_access as record_access_point
from gateway.gatt import uuids
from gateway.vital_sign import GattSource, VitalSign

_READ = Characteristic.Properties.READ
_WRITE = Characteristic.Properties.WRITE
_NOTIFY = Characteristic.Properties.NOTIFY
_INDICATE = Characteristic.Properties.INDICATE
_ENCRYPTED_WRITE = (
    att.Attribute.READABLE | att.Attribute.WRITEABLE | att.Attribute.WRITE_REQUIRES_ENCRYPTION
)
_OUT_OF_RANGE = 0xFF
"""ATT: "Out of Range", the answer of a clock that refuses (Core Specification Supplement, Part B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A characteristic that sends readings, with the source whose payloads it sends."""

    source: GattSource
    characteristic: Characteristic[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The parts of a device's GATT database that a session works with."""

    live: tuple[Sending, ...]
    """Sent as soon as there is something, in the first that is subscribed."""
    stored: Sending | None
    """Sent on request."""
    record_access: Characteristic[bytes] | None


OnWrite = Callable[[Connection, bytes], None]


def build_database(
    radio: Device, device: SimulatedDevice, *, on_record_access: OnWrite, on_control: OnWrite
) -> Database:
    """Give `radio` the services of `device`."""
    model, sign = device.model, device.sign
    sendings = [
        Sending(source=source, characteristic=_measurement(radio, source, encrypted=model.bonds))
        for source in sign.gatt
    ]
    live = tuple(s for s in sendings if not s.source.framing.is_stored)
    stored = next((s for s in sendings if s.source.framing.is_stored), None)
    record_access = (
        _written(record_access_point.CHARACTERISTIC, on_record_access) if stored else None
    )
    for service in dict.fromkeys(source.service for source in sign.gatt):
        characteristics = [s.characteristic for s in sendings if s.source.service == service]
        if service == ghs.SERVICE:
            characteristics += [_features(sign), _written(ghs.CONTROL_POINT, on_control)]
        if record_access is not None and stored and stored.source.service == service:
            characteristics.append(record_access)
        radio.add_service(Service(_uuid(service), characteristics))
    radio.add_service(_device_information(device))
    clock = clock_characteristic(device)
    if clock is not None:
        radio.add_service(_clock_service(device, clock))
    if model.battery_percent is not None:
        radio.add_service(_battery(model.battery_percent))
    return Database(live=live, stored=stored, record_access=record_access)


def _measurement(radio: Device, source: GattSource, *, encrypted: bool) -> Characteristic[bytes]:
    # Stored records are notified, live ones indicated: Philips' BLE-GHS-Server-Simulator 271f2aa.
    stored = source.framing.is_stored
    characteristic: Characteristic[bytes] = Characteristic(
        _uuid(source.characteristic),
        _NOTIFY if stored else _INDICATE,
        att.Attribute.Permissions(0),
        b"",
    )
    if encrypted:
        characteristic.descriptors = [
            Descriptor(
                GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
                _ENCRYPTED_WRITE,
                radio.gatt_server.make_descriptor_value(characteristic),
            )
        ]
    return characteristic


def _features(sign: VitalSign) -> Characteristic[bytes]:
    """Return Health Sensor Features: flags, how many observation types, the types."""
    types = [sign.mdc] if sign.mdc is not None else []
    listed = b"".join(mdc.to_bytes(4, "little") for mdc in types)
    return _read(ghs.FEATURES, bytes((0, len(types))) + listed)


def _device_information(device: SimulatedDevice) -> Service:
    texts = {
        uuids.MANUFACTURER_NAME: "Hearth simulation",
        uuids.MODEL_NUMBER: device.model.name,
        uuids.SERIAL_NUMBER: device.address.replace(":", ""),
        uuids.FIRMWARE_REVISION: "1.0",
    }
    return Service(
        _uuid(uuids.DEVICE_INFORMATION_SERVICE),
        [_read(uuid, text.encode()) for uuid, text in texts.items()],
    )


def _battery(percent: int) -> Service:
    level = _read(uuids.BATTERY_LEVEL, bytes((percent,)))
    return Service(_uuid(uuids.BATTERY_SERVICE), [level])


def _clock_service(device: SimulatedDevice, characteristic: int) -> Service:
    def read(_connection: Connection) -> bytes:
        return read_clock(device)

    def write(_connection: Connection, value: bytes) -> None:
        if not write_clock(device, value):
            raise att.ATT_Error(_OUT_OF_RANGE)

    is_elapsed = characteristic == ghs.ELAPSED_TIME
    service = ghs.ELAPSED_TIME_SERVICE if is_elapsed else uuids.CURRENT_TIME_SERVICE
    value: CharacteristicValue[bytes] = CharacteristicValue(read=read, write=write)
    permissions = att.Attribute.READABLE | att.Attribute.WRITEABLE
    clock: Characteristic[bytes] = Characteristic(
        _uuid(characteristic), _READ | _WRITE, permissions, value
    )
    return Service(_uuid(service), [clock])


def _written(uuid: int, on_write: OnWrite) -> Characteristic[bytes]:
    value: CharacteristicValue[bytes] = CharacteristicValue(write=on_write)
    return Characteristic(_uuid(uuid), _WRITE | _INDICATE, att.Attribute.WRITEABLE, value)


def _read(uuid: int, value: bytes) -> Characteristic[bytes]:
    return Characteristic(_uuid(uuid), _READ, att.Attribute.READABLE, value)


def _uuid(short: int) -> UUID:
    return UUID.from_16_bits(short)
