"""What an administrator enters: homes, hubs, devices, residents, and who is measured by what.

Everything is entered by `register`, one or thousands in one transaction, and may be entered again:
what stands already stays. What becomes of a resident is audited with it. What contradicts it is refused with what to do. Public ids outside, the
store's integer keys inside (api/sql/registry.sql).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from api.records import (
    Device,
    Home,
    Hub,
    Link,
    NewDevice,
    NewHub,
    Registration,
    Resident,
    SharedLink,
)
from gateway.errors import DataError, UsageError
from gateway.measurement import device_address, device_id
from gateway.platform.audit import audit_command
from gateway.platform.postgres import Connection, class_row, load_queries, translated
from gateway.vital_sign import NO_USER_SLOT
from gateway.wire import hub_id, hub_name

QUERIES = load_queries(Path(__file__).parent / "sql" / "registry.sql")

_Row = TypeVar("_Row")


def register(connection: Connection, new: Registration) -> None:
    """Enter all of it or nothing.

    Raises:
        UsageError: something is not as needed or contradicts what is there.
        UnavailableError: the database is down.
    """
    with translated(), connection.transaction():
        if new.homes:
            connection.execute(QUERIES["add_homes"], {"homes": list(new.homes)})
        if new.residents:
            _audited(connection, "resident.add", "add_residents", residents=list(new.residents))
        if new.hubs:
            _add_hubs(connection, new.hubs)
        if new.devices:
            _add_devices(connection, new.devices)
        if new.links:
            _add_links(connection, new.links)
        if new.shared_links:
            _add_shared_links(connection, new.shared_links)


def end_link(connection: Connection, device: str, user_slot: int, at: datetime) -> Link:
    """End the link of a slot at a moment and return it; one that ended before stays as it is.

    Raises:
        UsageError: the slot was never linked, or its link begins just then.
    """
    address = canonical_address(device)
    with translated(), connection.transaction():
        connection.execute(QUERIES["lock_links"])
        place = {"device": address, "user_slot": user_slot, "at": at}
        row = connection.execute(QUERIES["link_to_end"], place).fetchone()
        if row is None:
            raise UsageError(
                f"没有可结束的关联 / nobody was linked to slot {user_slot} of {address} then: "
                f"请查看 / see `hearth admin link list --device {address}`"
            )
        link_id, _address, _slot, resident, starts_at, ends_at = row
        if ends_at is None or ends_at > at:
            link = Link(
                device=address,
                user_slot=user_slot,
                resident=resident,
                starts_at=starts_at,
                ends_at=at,
            )
            connection.execute(QUERIES["supersede_link"], {"link_id": link_id})
            _audited(connection, "link.end", "add_links", **_link_columns([link]))
            return link
    return Link(
        device=address,
        user_slot=user_slot,
        resident=resident,
        starts_at=starts_at,
        ends_at=ends_at,
    )


def end_shared_link(
    connection: Connection, device: str, user_slot: int, resident: UUID, at: datetime
) -> list[SharedLink]:
    """End a resident's share in a slot at a moment; return who shares the device, past ones too.

    Raises:
        UsageError: the device or the resident is not entered.
    """
    address = canonical_address(device)
    with translated(), connection.transaction():
        connection.execute(QUERIES["lock_links"])
        _require_devices(connection, [address])
        _require_residents(connection, [resident])
        place = {"device": address, "user_slot": user_slot, "resident": resident, "at": at}
        _audited(connection, "link.unshare", "end_shared_link", **place)
    return list_shared_links(connection, device=address)


def move_device(connection: Connection, device: str, home: UUID, now: datetime) -> None:
    """Put a device that nobody is linked to any more into another home.

    Raises:
        UsageError: the device or the home is not entered, or a link reaches beyond `now`.
    """
    address = canonical_address(device)
    with translated(), connection.transaction():
        connection.execute(QUERIES["lock_links"])
        _require_devices(connection, [address])
        _require_homes(connection, [home])
        moved = connection.execute(QUERIES["move_device"], {"address": address, "home": home})
        if moved.rowcount and _count(connection, "count_open_links", address=address, at=now):
            raise UsageError(
                f"设备仍有关联 / somebody is still linked to {address}: 请先结束关联 / end that "
                f"first: `hearth admin link list --device {address}`, `hearth admin link end`"
            )


def list_homes(
    connection: Connection, *, after: UUID | None = None, limit: int | None = None
) -> list[Home]:
    """Return homes in the order of their ids, from the one behind `after`; None: no limit."""
    return _list(connection, Home, "list_homes", after=after, limit=limit)


def list_residents(
    connection: Connection, *, after: UUID | None = None, limit: int | None = None
) -> list[Resident]:
    """Return residents in the order of their ids, from the one behind `after`."""
    return _list(connection, Resident, "list_residents", after=after, limit=limit)


def list_hubs(
    connection: Connection,
    *,
    home: UUID | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> list[Hub]:
    """Return hubs, all or one home's, in the order of their names."""
    return _list(connection, Hub, "list_hubs", home=home, after=after, limit=limit)


def list_devices(
    connection: Connection,
    *,
    home: UUID | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> list[Device]:
    """Return devices, all or one home's, in the order of their addresses."""
    return _list(connection, Device, "list_devices", home=home, after=after, limit=limit)


def list_links(
    connection: Connection,
    *,
    device: str | None = None,
    resident: UUID | None = None,
    limit: int | None = None,
) -> list[Link]:
    """Return links in force, past ones too, of one device or one resident where given."""
    address = None if device is None else canonical_address(device)
    return _list(connection, Link, "list_links", device=address, resident=resident, limit=limit)


def list_shared_links(
    connection: Connection,
    *,
    device: str | None = None,
    resident: UUID | None = None,
    limit: int | None = None,
) -> list[SharedLink]:
    """Return who shares which slot, past ones too, of one device or one resident where given."""
    address = None if device is None else canonical_address(device)
    return _list(
        connection, SharedLink, "list_shared_links", device=address, resident=resident, limit=limit
    )


def canonical_address(text: str) -> str:
    """Return a Bluetooth address as the store has it: capital pairs between colons.

    Raises:
        UsageError: `text` is none.
    """
    try:
        return device_address(device_id(text))
    except ValueError as error:
        raise UsageError(
            "设备地址有误 / a device's address is 12 (or 16) hexadecimal digits, such as "
            f"C0:26:DA:01:02:03: {text!r}"
        ) from error


def canonical_hub(text: str) -> str:
    """Return a hub's name as the store has it.

    Raises:
        UsageError: `text` is none.
    """
    try:
        return hub_name(hub_id(text.lower()))
    except ValueError as error:
        raise UsageError(
            f"网关编号有误 / a hub's name is 16 hexadecimal digits, such as 00c0ffee00c0ffee: {text!r}"
        ) from error


def _add_hubs(connection: Connection, hubs: Sequence[NewHub]) -> None:
    homes = [hub.home for hub in hubs]
    columns = {"names": [canonical_hub(hub.name) for hub in hubs], "homes": homes}
    _require_homes(connection, homes)
    connection.execute(QUERIES["add_hubs"], columns)
    elsewhere = connection.execute(QUERIES["hub_elsewhere"], columns).fetchone()
    if elsewhere:
        raise UsageError(
            f"网关属于其他家庭 / hub {elsewhere[0]} is in home {elsewhere[1]}: 请核对编号; "
            "迁居的网关需以新编号登记 / check the name; a hub that moves house gets a new one"
        )


def _add_devices(connection: Connection, devices: Sequence[NewDevice]) -> None:
    homes = [device.home for device in devices]
    columns = {
        "addresses": [canonical_address(device.address) for device in devices],
        "homes": homes,
        "models": [device.model for device in devices],
    }
    _require_homes(connection, homes)
    connection.execute(QUERIES["add_devices"], columns)
    elsewhere = connection.execute(QUERIES["device_elsewhere"], columns).fetchone()
    if elsewhere:
        address, home = elsewhere
        raise UsageError(
            f"设备属于其他家庭 / device {address} is in home {home}: 请核对地址, 或用以下命令迁移 / "
            f"check the address, or move it: `hearth admin device move {address} --home HOME`"
        )
    connection.execute(QUERIES["set_models"], columns)


def _add_links(connection: Connection, links: Sequence[Link]) -> None:
    columns = _link_columns(links)
    _require_devices(connection, columns["devices"])
    _require_residents(connection, columns["residents"])
    connection.execute(QUERIES["lock_links"])
    in_the_way = _list(connection, Link, "link_in_the_way", **columns)
    if in_the_way:
        raise UsageError(_in_the_way(in_the_way[0]))
    try:
        with translated():
            _audited(connection, "link.add", "add_links", **columns)
    except DataError as error:
        raise UsageError(
            "关联互相重叠 / two of the given links overlap: 同一用户槽位同一时间只能对应一位居民 / "
            "a slot is one resident's at a time"
        ) from error


def _add_shared_links(connection: Connection, links: Sequence[SharedLink]) -> None:
    columns = _link_columns(links) | {"usual": [link.usual for link in links]}
    _require_devices(connection, columns["devices"])
    _require_residents(connection, columns["residents"])
    connection.execute(QUERIES["lock_links"])
    _audited(connection, "link.share", "restate_shared_links", **columns)
    try:
        with translated():
            _audited(connection, "link.share", "add_shared_links", **columns)
    except DataError as error:
        raise UsageError(
            "共用关系互相重叠 / a resident would share a slot twice at a time: 请查看 / see "
            "`hearth admin link shared`, 请先结束 / end that first: `hearth admin link unshare`"
        ) from error


def _link_columns(links: Sequence[Link] | Sequence[SharedLink]) -> dict[str, list[Any]]:
    for link in links:
        if not 0 <= link.user_slot <= NO_USER_SLOT:
            raise UsageError(
                f"用户槽位有误 / slot {link.user_slot}: 应为 0 至 255 (255: 不区分用户) / 0 to 255, "
                "255 for readings that name no slot"
            )
        if link.starts_at and link.ends_at and link.starts_at >= link.ends_at:
            raise UsageError(
                f"起止时间有误 / the link of slot {link.user_slot} of {link.device} would end "
                f"({link.ends_at.isoformat()}) before it began ({link.starts_at.isoformat()})"
            )
    return {
        "devices": [canonical_address(link.device) for link in links],
        "user_slots": [link.user_slot for link in links],
        "residents": [link.resident for link in links],
        "starts": [link.starts_at for link in links],
        "ends": [link.ends_at for link in links],
    }


def _in_the_way(link: Link) -> str:
    starts = link.starts_at.isoformat() if link.starts_at else "-"
    ends = link.ends_at.isoformat() if link.ends_at else "-"
    return (
        f"时间重叠 / slot {link.user_slot} of {link.device} is linked to resident {link.resident} "
        f"from {starts} to {ends}: 请先结束该关联 / end that first: `hearth admin link end "
        f"--device {link.device} --slot {link.user_slot} --at TIME`"
    )


def _require_homes(connection: Connection, homes: Sequence[UUID]) -> None:
    unknown = connection.execute(QUERIES["unknown_home"], {"homes": list(homes)}).fetchone()
    if unknown:
        raise UsageError(
            f"家庭未登记 / home {unknown[0]} is not entered: 请先登记 / enter it first: "
            "`hearth admin home add`"
        )


def _require_residents(connection: Connection, residents: Sequence[UUID]) -> None:
    given = {"residents": list(residents)}
    unknown = connection.execute(QUERIES["unknown_resident"], given).fetchone()
    if unknown:
        raise UsageError(
            f"居民未登记 / resident {unknown[0]} is not entered: 请先登记 / enter it first: "
            "`hearth admin resident add`"
        )


def _require_devices(connection: Connection, addresses: Sequence[str]) -> None:
    devices = {"devices": list(addresses)}
    unknown = connection.execute(QUERIES["unknown_device"], devices).fetchone()
    if unknown:
        raise UsageError(
            f"设备未登记 / device {unknown[0]} is not entered: 请先登记 / enter it first: "
            f"`hearth admin device add {unknown[0]} --home HOME`"
        )


def _audited(connection: Connection, action: str, query: str, **parameters: object) -> None:
    """Run a statement that returns whom it changed, and audit each."""
    changed = connection.execute(QUERIES[query], parameters).fetchall()
    audit_command(connection, action, (resident_id for (resident_id,) in changed))


def _list(connection: Connection, row: type[_Row], query: str, **parameters: object) -> list[_Row]:
    with translated(), connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(QUERIES[query], parameters).fetchall()


def _count(connection: Connection, query: str, **parameters: object) -> int:
    row = connection.execute(QUERIES[query], parameters).fetchone()
    assert row is not None  # noqa: S101 - count(*) always gives a row
    count: int = row[0]
    return count
