"""Asking hubs, on their config topics, for batches that they had receipts for. docs/wire.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

from gateway.errors import UnavailableError
from gateway.platform import mqtt
from gateway.platform.broker_address import BrokerAccess
from gateway.resend import ResendRequest, encode_resend
from gateway.wire import Channel, hub_id, topic

IN_FLIGHT_MAX = 100
"""Requests sent without the broker's word on the first of them."""
ANSWER_S_MAX = 10.0
"""A broker that does not acknowledge a request within this is down."""


async def ask_to_resend(broker: BrokerAccess, hubs: Sequence[str], since: datetime) -> None:
    """Leave a request for each hub; the broker keeps it for one that is away.

    Raises:
        UnavailableError: the broker is down, or does not take a request.
    """
    identity = mqtt.Identity(client_id=f"hearth-admin-{uuid4().hex}", expiry_s=0, will=None)
    async with mqtt.connect(broker.address(), identity) as session:
        for start in range(0, len(hubs), IN_FLIGHT_MAX):
            waiting = {
                session.publish(
                    topic(hub_id(hub), Channel.CONFIG),
                    encode_resend(ResendRequest(id=uuid4(), since=since)),
                    retain=True,
                )
                for hub in hubs[start : start + IN_FLIGHT_MAX]
            }
            while waiting:
                waiting.discard(await _accepted(session))


async def _accepted(session: mqtt.Session) -> int:
    match await session.next_event(ANSWER_S_MAX):
        case mqtt.Published(is_refused=True, reason=reason):
            raise UnavailableError(f"消息代理拒绝 / the broker refuses the request: {reason}")
        case mqtt.Published(mid=mid):
            return mid
        case None:
            raise UnavailableError("消息代理无应答 / the broker does not answer")
        case _:
            return 0
