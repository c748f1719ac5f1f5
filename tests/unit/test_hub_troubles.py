"""What a hub tells of its devices: bonds and those it cannot reach, bounded, and read back the same."""

from __future__ import annotations

import json

import pytest

from edge.roster import Outcome
from edge.troubles import FAILURES_BEFORE_TROUBLE, Troubles
from gateway.errors import DecodeError
from gateway.hub_state import (
    DEVICES_MAX,
    STATE_BYTES_MAX,
    Trouble,
    decode_device_states,
    devices_part,
)

CUFF, SCALE = 0xC026DA010203, 0xC026DA010204
HEAD = {"started_at": "2026-11-26T02:00:00+00:00", "uptime_s": 61.5}


def after(*outcomes: Outcome) -> Trouble | None:
    troubles = Troubles()
    for outcome in outcomes:
        troubles.session_ended(CUFF, outcome)
    return troubles.devices.get(CUFF)


@pytest.mark.parametrize(
    ("outcomes", "trouble"),
    [
        ([Outcome.TAKEN], None),
        ([Outcome.BOND_LOST], Trouble.BOND_LOST),
        ([Outcome.BOND_LOST, Outcome.UNREACHABLE], Trouble.BOND_LOST),
        ([Outcome.BOND_LOST, Outcome.REFUSED], Trouble.PAIRING_REFUSED),
        ([Outcome.REFUSED, Outcome.STOPPED], Trouble.PAIRING_REFUSED),
        ([Outcome.REFUSED, Outcome.EMPTY], None),
        ([Outcome.UNREACHABLE] * (FAILURES_BEFORE_TROUBLE - 1), None),
        ([Outcome.UNREACHABLE, Outcome.BROKEN] * FAILURES_BEFORE_TROUBLE, Trouble.UNREACHABLE),
        ([Outcome.BROKEN] * FAILURES_BEFORE_TROUBLE + [Outcome.TAKEN], None),
        ([*[Outcome.BROKEN] * (FAILURES_BEFORE_TROUBLE - 1), Outcome.TAKEN, Outcome.BROKEN], None),
    ],
)
def test_how_sessions_ended_says_whether_a_device_is_in_trouble(
    outcomes: list[Outcome], trouble: Trouble | None
) -> None:
    assert after(*outcomes) is trouble


def test_a_device_nobody_could_talk_to_yet_is_not_told_of() -> None:
    troubles = Troubles()
    for outcome in (Outcome.UNREACHABLE, Outcome.FOREIGN, Outcome.STOPPED):
        troubles.session_ended(CUFF, outcome)
    assert dict(troubles.devices) == {}


def test_no_more_devices_are_told_of_than_fit() -> None:
    troubles = Troubles()
    for device in range(DEVICES_MAX + 3):
        troubles.session_ended(device, Outcome.REFUSED)
        troubles.session_ended(device, Outcome.BROKEN)
    assert list(troubles.devices) == list(range(3, DEVICES_MAX + 3))
    assert len(devices_part(dict.fromkeys(range(DEVICES_MAX + 9)))) == DEVICES_MAX


def test_what_a_hub_tells_is_what_is_read() -> None:
    devices = {CUFF: Trouble.BOND_LOST, SCALE: None}
    told = json.dumps(HEAD | {"devices": devices_part(devices)}).encode()
    assert b'"C0:26:DA:01:02:03", "trouble": "bond-lost"' in told
    states = decode_device_states(told)
    assert states is not None
    assert (dict(states.devices), states.uptime_s) == (devices, 61.5)


def test_a_last_will_says_nothing_of_devices() -> None:
    assert decode_device_states(b'{"online": false}') is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]]",
        b"7",
        b"[" * 20_000,
        b" " * (STATE_BYTES_MAX + 1),
        b'{"devices": []}',
        json.dumps(HEAD | {"devices": 3}).encode(),
        json.dumps(HEAD | {"devices": [{"device": "no address", "trouble": None}]}).encode(),
        json.dumps(HEAD | {"devices": [{"device": "C0:26:DA:01:02:03", "trouble": "x"}]}).encode(),
        json.dumps(HEAD | {"started_at": "2026-11-26T02:00:00", "devices": []}).encode(),
        json.dumps(HEAD | {"uptime_s": float("nan"), "devices": []}).encode(),
        json.dumps(HEAD | {"uptime_s": 10**400, "devices": []}).encode(),
    ],
)
def test_what_is_no_state_is_a_located_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_device_states(payload)
