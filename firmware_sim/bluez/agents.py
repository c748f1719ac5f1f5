"""AgentManager1: who is asked when a device wants to pair. BlueZ 5.87, src/agent.c."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dbus_fast import Message, MessageType

from firmware_sim.bluez import names
from firmware_sim.bluez.objects import Call, Interface, Method

ANSWER_S_MAX = 60.0
"""An agent that has not answered by then has said no (src/agent.c, REQUEST_TIMEOUT)."""

_CAPABILITIES = frozenset(
    {"", "DisplayOnly", "DisplayYesNo", "KeyboardOnly", "NoInputNoOutput", "KeyboardDisplay"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An Agent1 object of a D-Bus client."""

    owner: str
    path: str


class Agents:
    """The registered agents. The first one, or the last to ask for it, is the default."""

    def __init__(self, call: Callable[[Message], Awaitable[Message | None]]) -> None:
        self._call = call
        self._by_owner: dict[str, Agent] = {}
        self._default: list[Agent] = []
        self.interface = Interface(
            name=names.AGENT_MANAGER,
            methods={
                "RegisterAgent": Method(handler=self._register, takes="os"),
                "UnregisterAgent": Method(handler=self._unregister, takes="o"),
                "RequestDefaultAgent": Method(handler=self._request_default, takes="o"),
            },
        )

    def for_client(self, client: str | None) -> Agent | None:
        """Return the client's own agent, else the default one."""
        own = self._by_owner.get(client or "")
        return own or (self._default[0] if self._default else None)

    async def authorises(self, device: str) -> bool:
        """Ask the default agent whether `device` may pair; without an agent it may not."""
        agent = self.for_client(None)
        if agent is None:
            return False
        question = Message(
            destination=agent.owner,
            path=agent.path,
            interface=names.AGENT,
            member="RequestAuthorization",
            signature="o",
            body=[device],
        )
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                reply = await self._call(question)
        except TimeoutError:
            return False
        return reply is not None and reply.message_type is MessageType.METHOD_RETURN

    def client_left(self, client: str) -> None:
        """Forget the agent of a client that is no longer on the bus."""
        agent = self._by_owner.pop(client, None)
        if agent is not None:
            self._default.remove(agent)

    def clear(self) -> None:
        """Forget all agents: bluetoothd has ended."""
        self._by_owner.clear()
        self._default.clear()

    async def _register(self, call: Call) -> None:
        path, capability = call.arguments
        if call.sender in self._by_owner:
            raise names.already_exists()
        if capability not in _CAPABILITIES:
            raise names.invalid_arguments()
        agent = Agent(owner=call.sender, path=path)
        self._by_owner[call.sender] = agent
        self._default.append(agent)

    async def _unregister(self, call: Call) -> None:
        self._owned(call)
        self.client_left(call.sender)

    async def _request_default(self, call: Call) -> None:
        agent = self._owned(call)
        self._default.remove(agent)
        self._default.insert(0, agent)

    def _owned(self, call: Call) -> Agent:
        agent = self._by_owner.get(call.sender)
        if agent is None or agent.path != call.arguments[0]:
            raise names.does_not_exist()
        return agent
