"""A session that sends some messages twice and holds some back behind later ones.

Both stay within what MQTT lets a client, a network of brokers, or a restored hub do. Nothing is
forgotten: what is held back goes out with one of the next messages, or when the wish for disorder
ends; should the connection break first, the outbox still has it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random

from bench.chaos.orders import Orders
from gateway.platform import mqtt
from gateway.platform.broker_address import BrokerAddress

REMEMBERED_MAX = 64
"""Messages that may be sent again: the last so many, receipted or not."""
HELD_MAX = 4
"""Messages held back at once."""
NO_MID = 0
"""The number of a publication that has not happened yet: no broker acknowledges it."""
_BATCH = "/batch"


class UnrulySession(mqtt.Session):
    """A session over an open one; only `publish` differs."""

    def __init__(
        self,
        session: mqtt.Session,
        orders: Callable[[], Orders],
        random: Random,
        told: Counter[str],
    ) -> None:
        self._session = session
        self._orders = orders
        self._random = random
        self._told = told
        self._sent: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED_MAX)
        self._held: list[tuple[str, bytes]] = []

    @property
    def is_resumed(self) -> bool:  # type: ignore[override] # the open one's
        """As the open session."""
        return self._session.is_resumed

    async def next_event(self, timeout_s: float | None) -> mqtt.Event | None:
        """As the open session; what is held back goes out first where order is wished for."""
        if self._held and not self._orders().reorder:
            self._release()
        return await self._session.next_event(timeout_s)

    def wake(self) -> None:
        """As the open session."""
        self._session.wake()

    def subscribe(self, topics: list[str] | tuple[str, ...]) -> None:  # type: ignore[override]
        """As the open session."""
        self._session.subscribe(topics)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send a message, or later, or twice."""
        orders = self._orders()
        if not topic.endswith(_BATCH):
            return self._session.publish(topic, payload, retain=retain)
        self._sent.append((topic, payload))
        if len(self._held) < HELD_MAX and self._random.random() < orders.reorder:
            self._held.append((topic, payload))
            return NO_MID
        mid = self._session.publish(topic, payload)
        if self._held:
            self._told["reordered"] += len(self._held)
            self._release()
        if self._random.random() < orders.duplicate:
            for again in self._random.choices(self._sent, k=self._random.randint(1, 3)):
                self._told["duplicated"] += 1
                self._session.publish(*again)
        return mid

    def _release(self) -> None:
        self._random.shuffle(self._held)
        while self._held:
            self._session.publish(*self._held.pop())


def unruly(
    orders: Callable[[], Orders], random: Random, told: Counter[str]
) -> Callable[[BrokerAddress, mqtt.Identity], AbstractAsyncContextManager[mqtt.Session]]:
    """Return what opens such sessions; `told` counts what they did."""

    @asynccontextmanager
    async def connect(
        broker: BrokerAddress, identity: mqtt.Identity
    ) -> AsyncIterator[mqtt.Session]:
        async with mqtt.connect(broker, identity) as session:
            yield UnrulySession(session, orders, random, told)

    return connect
