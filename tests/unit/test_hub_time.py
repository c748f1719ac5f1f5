"""The hub's own clock: not believed before it is synchronised; what came before is placed after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edge import memory, undated
from edge.clock import Pair, with_pair
from edge.hub_clock import FLOOR, HubClock, Trust, hub_clock, is_synchronised, since_start
from edge.hub_file import HubFile
from edge.outbox import Limits, Outbox
from edge.payloads import Payload
from gateway.gatt.times import encode_current_time, from_ms, local_device_time
from gateway.measurement import Measurement, TimeQuality
from gateway.vital_sign import Reading
from gateway.vitals import BY_NAME
from tests.outboxes import HUB, close_all, items_of, open_file
from tests.simulated import typical

CHINA = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
DEVICE = 0xC026DA010203
CUFF = BY_NAME["blood_pressure"]
(SOURCE,) = CUFF.gatt
CURRENT_TIME = 0x2A2B
YEARS_BEHIND = timedelta(days=2000)


@dataclass
class Machine:
    """A machine whose clock nobody has set, until somebody does."""

    started_at: datetime = NOON - timedelta(hours=1)
    passed: timedelta = timedelta(minutes=1)
    wrong_by: timedelta = YEARS_BEHIND
    is_set: bool = False
    clock: HubClock = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start the hub's process again; the machine runs on."""
        self.clock = HubClock(
            lambda: self.is_set,
            wall=lambda: self.now - (timedelta(0) if self.is_set else self.wrong_by),
            since_start=lambda: self.passed,
            boot="this boot",
        )

    def knows(self) -> bool:
        return self.clock.is_known

    @property
    def now(self) -> datetime:
        return self.started_at + self.passed


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HubFile]:
    yield open_file(tmp_path)
    close_all()


def a_payload(shown: datetime | None, at: datetime) -> Payload:
    """A cuff's payload whose clock shows `shown`, in China; `at` counts from the start."""
    time = None if shown is None else local_device_time(shown.astimezone(CHINA))
    reading = Reading(values=typical(CUFF), device_time=time)
    return Payload(
        device=DEVICE,
        source=SOURCE.characteristic,
        data=SOURCE.encode(reading),
        received_at=at,
    )


def a_clock_reading(shown: datetime, at: datetime) -> Payload:
    data = encode_current_time(shown.astimezone(CHINA))
    return Payload(device=DEVICE, source=CURRENT_TIME, data=data, received_at=at)


def kept(file: HubFile, payloads: list[Payload], boot: str = "this boot") -> None:
    with file.transaction():
        undated.put(file, boot, payloads)


def placed(file: HubFile, machine: Machine) -> list[Measurement]:
    """Place all that waits and return what is in the outbox then."""
    assert machine.clock.is_known
    assert machine.clock.started_at is not None
    outbox = Outbox(file, HUB, Limits())
    while undated.count(file):
        undated.place_some(
            file,
            outbox,
            boot=machine.clock.boot,
            started=machine.clock.started_at,
            now=machine.clock.wall(),
            zone=CHINA,
        )
    outbox.seal()
    items = [item for batch in outbox.batches(limit=1000) for item in items_of(batch)]
    assert all(isinstance(item, Measurement) for item in items)
    return [item for item in items if isinstance(item, Measurement)]


def test_a_clock_is_not_known_before_it_is_synchronised_and_stays_known_after() -> None:
    machine = Machine()
    assert not machine.knows()
    assert machine.clock.counted() == from_ms(60_000)
    machine.is_set = True
    assert machine.knows()
    assert machine.clock.started_at == NOON - timedelta(hours=1)
    machine.is_set = False  # the network has gone; the crystal runs on
    assert machine.knows()


def test_a_clock_of_before_hearth_is_not_known_whatever_is_said_of_it() -> None:
    clock = HubClock(lambda: True, wall=lambda: FLOOR - timedelta(seconds=1))
    assert not clock.is_known


def test_what_came_before_the_time_was_known_is_placed_to_the_millisecond(file: HubFile) -> None:
    machine = Machine()
    at = machine.clock.counted()
    kept(file, [a_payload(None, at)])
    true_at = machine.now
    machine.passed += timedelta(minutes=5)
    machine.is_set = True
    (measurement,) = placed(file, machine)
    assert measurement.received_at == measurement.measured_at == true_at
    assert measurement.time_quality is TimeQuality.RECEPTION
    assert measurement.utc_offset_min == 480


def test_a_wrong_device_clock_that_was_read_meanwhile_maps_its_readings(file: HubFile) -> None:
    machine = Machine()
    wrong = timedelta(days=900)
    at, true_at = machine.clock.counted(), machine.now
    kept(
        file,
        [
            a_clock_reading(true_at - wrong, at),
            a_payload(true_at - wrong - timedelta(seconds=40), at + timedelta(seconds=1)),
        ],
    )
    machine.passed += timedelta(hours=2)
    machine.is_set = True
    (measurement,) = placed(file, machine)
    assert abs(measurement.measured_at - (true_at - timedelta(seconds=40))) < timedelta(seconds=1)
    assert measurement.received_at == true_at + timedelta(seconds=1)
    assert measurement.time_quality is TimeQuality.MAPPED
    (line,) = memory.read_lines(file, DEVICE)
    assert line.last_at == true_at


def test_a_restart_within_the_same_boot_loses_nothing(tmp_path: Path) -> None:
    machine = Machine()
    file = open_file(tmp_path)
    kept(file, [a_payload(None, machine.clock.counted())])
    true_at = machine.now
    file.close()
    machine.restart()
    machine.passed += timedelta(minutes=9)
    machine.is_set = True
    (measurement,) = placed(open_file(tmp_path), machine)
    assert measurement.measured_at == true_at
    close_all()


def test_what_one_process_knows_of_its_boot_the_next_one_knows_too(file: HubFile) -> None:
    machine = Machine(is_set=True)
    assert machine.clock.is_known
    assert machine.clock.started_at is not None
    with_start = machine.clock.started_at
    undated.remember_start(file, "this boot", with_start)
    machine.is_set = False
    machine.restart()
    assert not machine.knows()
    at = undated.started_at(file, "this boot")
    assert at == with_start
    machine.clock.know(at)
    assert machine.knows()
    assert undated.started_at(file, "another boot") is None


def test_what_a_boot_left_that_never_knew_the_time_is_told_apart(file: HubFile) -> None:
    machine = Machine()
    kept(file, [a_payload(None, machine.clock.counted())], boot="an earlier boot")
    machine.is_set = True
    (measurement,) = placed(file, machine)
    assert measurement.time_quality is TimeQuality.HUB_UNSYNCHRONISED
    assert measurement.received_at == machine.now


def test_what_a_boot_left_is_placed_by_the_devices_own_clock_where_that_is_known(
    file: HubFile,
) -> None:
    machine = Machine()
    yesterday = NOON - timedelta(days=1)
    behind = timedelta(hours=3)
    shown = local_device_time((yesterday - behind).astimezone(CHINA))
    with_line = with_pair((), Pair(shown=shown, at=yesterday))
    memory.write_lines(file, DEVICE, with_line)
    taken_at = NOON - timedelta(hours=3)
    kept(
        file,
        [
            a_clock_reading(NOON, machine.clock.counted()),  # speaks of a time nobody can place
            a_payload(taken_at - behind, machine.clock.counted()),
        ],
        boot="an earlier boot",
    )
    machine.is_set = True
    (measurement,) = placed(file, machine)
    assert measurement.measured_at == taken_at
    assert measurement.time_quality is TimeQuality.MAPPED
    assert memory.read_lines(file, DEVICE) == with_line


def test_more_than_one_transaction_takes_is_placed_in_order(
    file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undated, "AT_ONCE", 3)
    machine = Machine()
    start = machine.clock.counted()
    kept(file, [a_payload(None, start + timedelta(seconds=second)) for second in range(10)])
    machine.passed += timedelta(hours=1)
    machine.is_set = True
    measurements = placed(file, machine)
    times = [measurement.received_at for measurement in measurements]
    assert times == sorted(times)
    assert len(times) == 10
    assert undated.count(file) == 0


def test_this_machines_clock_can_be_asked() -> None:
    assert hub_clock(Trust.SYSTEM).is_known
    assert isinstance(is_synchronised(), bool)
    assert since_start() > timedelta(0)
    assert hub_clock(Trust.NTP).is_known == is_synchronised()
