"""What an administrator enters, in the real database: once, again, and in contradiction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from api.records import Link, NewDevice, NewHub, Registration, SharedLink
from api.registry import (
    end_link,
    end_shared_link,
    list_devices,
    list_homes,
    list_hubs,
    list_links,
    list_residents,
    move_device,
    register,
)
from gateway.errors import UsageError
from gateway.platform.postgres import Connection, connect_blocking
from tests.worlds import query

pytestmark = pytest.mark.integration

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
HOME, OTHER_HOME = UUID(int=0xA1), UUID(int=0xB2)
RESIDENT, OTHER_RESIDENT = UUID(int=0xC3), UUID(int=0xD4)
HUB = "00c0ffee00c0ffee"
CUFF = "C0:26:DA:01:02:03"


def a_link(
    starts_at: datetime | None = MAY,
    ends_at: datetime | None = None,
    *,
    resident: UUID = RESIDENT,
    user_slot: int = 1,
) -> Link:
    return Link(
        device=CUFF, user_slot=user_slot, resident=resident, starts_at=starts_at, ends_at=ends_at
    )


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with connect_blocking(database, application="hearth-tests", autocommit=True) as session:
        register(
            session,
            Registration(
                homes=[HOME, OTHER_HOME],
                residents=[RESIDENT, OTHER_RESIDENT],
                hubs=[NewHub(name=HUB, home=HOME)],
                devices=[NewDevice(address=CUFF, home=HOME, model="Cuff 3")],
            ),
        )
        yield session


def enter(connection: Connection, *links: Link) -> None:
    register(connection, Registration(links=links))


def test_what_was_entered_is_listed(connection: Connection) -> None:
    homes = {home.id: (home.hubs, home.devices) for home in list_homes(connection)}
    assert homes == {HOME: (1, 1), OTHER_HOME: (0, 0)}
    assert {resident.id for resident in list_residents(connection)} == {RESIDENT, OTHER_RESIDENT}
    (hub,) = list_hubs(connection)
    assert (hub.name, hub.home, hub.revoked_at) == (HUB, HOME, None)
    (device,) = list_devices(connection)
    assert (device.address, device.home, device.model) == (CUFF, HOME, "Cuff 3")


def test_lists_can_be_of_one_home_and_go_on_behind_an_item(connection: Connection) -> None:
    assert list_hubs(connection, home=OTHER_HOME) == []
    assert list_devices(connection, home=OTHER_HOME) == []
    first, second = list_homes(connection)
    assert list_homes(connection, limit=1) == [first]
    assert list_homes(connection, after=first.id) == [second]
    assert list_devices(connection, after=CUFF) == []


def test_entering_the_same_again_changes_nothing(connection: Connection) -> None:
    enter(connection, a_link())
    before = (list_homes(connection), list_hubs(connection), list_devices(connection))
    register(
        connection,
        Registration(
            homes=[HOME, HOME],
            residents=[RESIDENT],
            hubs=[NewHub(name=HUB.upper(), home=HOME)],
            devices=[NewDevice(address="c026da010203", home=HOME)] * 2,
            links=[a_link(), a_link()],
        ),
    )
    assert (list_homes(connection), list_hubs(connection), list_devices(connection)) == before
    assert list_links(connection) == [a_link()]


def test_what_becomes_of_a_resident_is_audited_once(connection: Connection) -> None:
    shared = SharedLink(
        device=CUFF, user_slot=2, resident=OTHER_RESIDENT, starts_at=MAY, ends_at=None
    )
    for _again in range(2):
        register(
            connection,
            Registration(residents=[RESIDENT], links=[a_link()], shared_links=[shared]),
        )
    for _again in range(2):
        end_link(connection, CUFF, 1, JUNE)
        end_shared_link(connection, CUFF, 2, OTHER_RESIDENT, JUNE)
    rows = connection.execute(
        "SELECT action, public_id FROM audit JOIN resident USING (resident_id) ORDER BY audit_id"
    ).fetchall()
    assert rows == [
        ("resident.add", RESIDENT),
        ("resident.add", OTHER_RESIDENT),
        ("link.add", RESIDENT),
        ("link.share", OTHER_RESIDENT),
        ("link.end", RESIDENT),
        ("link.unshare", OTHER_RESIDENT),
    ]


def test_entering_a_device_again_corrects_its_model(connection: Connection) -> None:
    again = NewDevice(address=CUFF, home=HOME, model="Cuff 4")
    register(connection, Registration(devices=[again]))
    assert [device.model for device in list_devices(connection)] == ["Cuff 4"]


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (Registration(hubs=[NewHub(name="hub", home=HOME)]), "16 hexadecimal digits"),
        (Registration(hubs=[NewHub(name=HUB, home=OTHER_HOME)]), f"is in home {HOME}"),
        (Registration(hubs=[NewHub(name="0" * 16, home=RESIDENT)]), "is not entered"),
        (Registration(devices=[NewDevice(address="C0:26", home=HOME)]), "C0:26:DA:01:02:03"),
        (Registration(devices=[NewDevice(address=CUFF, home=OTHER_HOME)]), "device move"),
        (Registration(devices=[NewDevice(address="0" * 12, home=RESIDENT)]), "home add"),
        (Registration(links=[a_link(resident=HOME)]), "resident add"),
        (Registration(links=[a_link(user_slot=256)]), "0 to 255"),
        (Registration(links=[a_link(JULY, MAY)]), "before it began"),
        (Registration(links=[a_link(MAY, MAY)]), "before it began"),
        (Registration(links=[a_link(), a_link(JUNE)]), "two of the given links overlap"),
        (
            Registration(links=[a_link(), a_link(resident=OTHER_RESIDENT)]),
            "two of the given links overlap",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_of_it_entered(
    connection: Connection, new: Registration, says: str
) -> None:
    extra = uuid4()
    all_of_it = Registration(homes=[extra], hubs=new.hubs, devices=new.devices, links=new.links)
    with pytest.raises(UsageError, match=says):
        register(connection, all_of_it)
    assert extra not in {home.id for home in list_homes(connection)}
    assert list_links(connection) == []


def test_a_link_of_a_device_that_is_not_entered_is_refused(connection: Connection) -> None:
    link = Link(device="0" * 12, user_slot=1, resident=RESIDENT, starts_at=MAY)
    with pytest.raises(UsageError, match="device add 00:00:00:00:00:00"):
        enter(connection, link)


@pytest.mark.parametrize(
    "link",
    [
        a_link(resident=OTHER_RESIDENT),
        a_link(None, JUNE, resident=OTHER_RESIDENT),
        a_link(JUNE, JULY, resident=OTHER_RESIDENT),
        a_link(None),
    ],
    ids=["the same time", "before", "within", "the same resident for longer"],
)
def test_a_slot_is_one_residents_at_a_time(connection: Connection, link: Link) -> None:
    enter(connection, a_link())
    with pytest.raises(UsageError, match=f"is linked to resident {RESIDENT} from 2026-05-01"):
        enter(connection, link)
    assert list_links(connection) == [a_link()]


def test_links_may_follow_each_other_and_slots_stand_side_by_side(connection: Connection) -> None:
    links = [
        a_link(None, MAY, user_slot=0),
        a_link(MAY, JUNE),
        a_link(JUNE, JULY, resident=OTHER_RESIDENT),
        a_link(JULY),
        a_link(user_slot=255, resident=OTHER_RESIDENT),
    ]
    enter(connection, *reversed(links))
    assert list_links(connection) == links
    assert list_links(connection, resident=OTHER_RESIDENT) == [links[2], links[4]]
    assert list_links(connection, device="c0:26:da:01:02:03") == links
    assert list_links(connection, device="0" * 12) == []


def test_a_part_of_what_stands_is_no_contradiction(connection: Connection) -> None:
    enter(connection, a_link())
    enter(connection, a_link(JUNE), a_link(JUNE, JULY))
    assert list_links(connection) == [a_link()]


def test_ending_a_link_keeps_what_was_believed_before(
    connection: Connection, database: str
) -> None:
    enter(connection, a_link())
    assert end_link(connection, CUFF, 1, JULY) == a_link(MAY, JULY)
    assert list_links(connection) == [a_link(MAY, JULY)]
    history = query(
        database, "SELECT upper_inf(during), superseded_at IS NULL FROM link ORDER BY link_id"
    )
    assert history == [(True, False), (False, True)]


def test_ending_a_link_again_changes_nothing(connection: Connection, database: str) -> None:
    enter(connection, a_link())
    ended = end_link(connection, CUFF, 1, JUNE)
    assert end_link(connection, CUFF, 1, JUNE) == ended
    assert end_link(connection, CUFF, 1, JULY) == ended
    assert query(database, "SELECT count(*) FROM link") == [(2,)]


def test_a_link_can_be_ended_earlier_than_it_was(connection: Connection) -> None:
    enter(connection, a_link(MAY, JULY))
    assert end_link(connection, CUFF, 1, JUNE) == a_link(MAY, JUNE)


def test_after_its_end_the_slot_can_be_anothers(connection: Connection) -> None:
    enter(connection, a_link())
    end_link(connection, CUFF, 1, JUNE)
    enter(connection, a_link(JUNE, resident=OTHER_RESIDENT))
    assert [link.resident for link in list_links(connection)] == [RESIDENT, OTHER_RESIDENT]


@pytest.mark.parametrize(
    ("at", "says"),
    [(MAY - timedelta(days=1), f"link list --device {CUFF}"), (MAY, "before it began")],
)
def test_a_link_cannot_be_ended_before_or_as_it_begins(
    connection: Connection, at: datetime, says: str
) -> None:
    enter(connection, a_link())
    with pytest.raises(UsageError, match=says):
        end_link(connection, CUFF, 1, at)


def test_a_device_moves_when_nobody_is_linked_to_it_any_more(connection: Connection) -> None:
    enter(connection, a_link())
    with pytest.raises(UsageError, match="link end"):
        move_device(connection, CUFF, OTHER_HOME, JUNE)
    end_link(connection, CUFF, 1, JUNE)
    move_device(connection, CUFF, OTHER_HOME, JUNE)
    move_device(connection, CUFF, OTHER_HOME, JUNE)
    assert [device.home for device in list_devices(connection)] == [OTHER_HOME]


def test_a_device_moves_only_to_a_home_that_is_entered(connection: Connection) -> None:
    with pytest.raises(UsageError, match="home add"):
        move_device(connection, CUFF, RESIDENT, JUNE)
    with pytest.raises(UsageError, match="device add"):
        move_device(connection, "0" * 12, HOME, JUNE)


def test_a_thousand_homes_are_entered_in_one_go_and_again(connection: Connection) -> None:
    homes = [uuid4() for _ in range(1000)]
    residents = [uuid4() for _ in homes]
    devices = [
        NewDevice(address=f"{5 * index + device:012x}", home=home)
        for index, home in enumerate(homes)
        for device in range(5)
    ]
    links = [
        Link(device=device.address, user_slot=255, resident=residents[index // 5], starts_at=None)
        for index, device in enumerate(devices)
    ]
    all_of_it = Registration(
        homes=homes,
        residents=residents,
        hubs=[NewHub(name=f"{index:016x}", home=home) for index, home in enumerate(homes)],
        devices=devices,
        links=links,
    )
    for _ in range(2):
        register(connection, all_of_it)
        assert len(list_homes(connection)) == 1002
        assert len(list_links(connection)) == 5000


def test_ingest_is_told_of_a_new_device(connection: Connection, database: str) -> None:
    with connect_blocking(database, application="hearth-tests", autocommit=True) as listener:
        listener.execute("LISTEN hearth_registry")
        device = NewDevice(address="C0:26:DA:0F:0F:0F", home=HOME)
        register(connection, Registration(devices=[device]))
        told = [notice.channel for notice in listener.notifies(timeout=20, stop_after=1)]
    assert told == ["hearth_registry"]
