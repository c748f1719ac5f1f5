"""The audit: written with the act, or neither happens."""

from __future__ import annotations

import pytest

from gateway.platform.audit import AuditEvent, command_actor, write_audit_blocking
from gateway.platform.postgres import connect_blocking
from tests.worlds import query

pytestmark = pytest.mark.integration


def test_events_are_written_in_their_order(database: str) -> None:
    actor, origin = command_actor()
    events = [
        AuditEvent(actor=actor, action="device.retime", origin=origin, detail={"readings": n})
        for n in (3, 1)
    ]
    with connect_blocking(database, application="hearth-tests") as connection:
        write_audit_blocking(connection, events)
    rows = query(
        database, "SELECT actor, action, detail ->> 'readings' FROM audit ORDER BY 1, audit_id"
    )
    assert rows == [(actor, "device.retime", "3"), (actor, "device.retime", "1")]


def test_an_act_that_is_rolled_back_leaves_no_event(database: str) -> None:
    with connect_blocking(database, application="hearth-tests") as connection:
        write_audit_blocking(connection, [AuditEvent(actor="cli:x", action="a.b")])
        connection.rollback()
    assert query(database, "SELECT count(*) FROM audit") == [(0,)]
