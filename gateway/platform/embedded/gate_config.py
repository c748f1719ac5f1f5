"""The gate before the broker's listener for hubs: HAProxy 3.0, configuration manual, filter bwlim-in.

Mosquitto can limit neither a client's rate nor how fast clients come. Here every connection has so
many bytes a second, and what is beyond is not read: it waits in the hub's own socket (TCP's flow
control), so that a flood costs nobody but who sends it. TLS passes unread, between hub and broker:
the gate has no key, and knows no hub.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.platform.embedded.broker_config import HUBS_MAX, KEEP_ALIVE_S_MAX
from gateway.platform.settings import LOOPBACK

PERIODS_PER_S = 8
"""The rate is kept over an eighth of a second, so that this is also the most that comes at once."""
NEW_PER_S = 500
"""Connections a second that are accepted; further ones wait, before a handshake costs the broker
anything."""
BACKLOG_MAX = 4096
"""Connections that wait to be accepted; the kernel leaves further ones unanswered, and they try again.
Linux bounds it by net.core.somaxconn."""
DESCRIPTORS_MAX = 2 * HUBS_MAX + 200
"""Two for each connection; where the machine allows fewer, HAProxy lets in as many as it can hold."""
RECEIVE_BYTES = 64 << 10
"""Of a connection, in the kernel, so that a flood waits with the hub and not in our memory. At a round
trip of a tenth of a second still 640 KiB a second."""
SILENT_S_MAX = 2 * KEEP_ALIVE_S_MAX
"""The broker ends a silent connection after one and a half times its keep-alive; the gate later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Where the gate listens for hubs, and the broker's port on loopback behind it."""

    host: str
    port: int
    broker_port: int
    bytes_per_s: int
    """Of each connection."""


def gate_configuration(gate: Gate) -> str:
    """Return haproxy.cfg."""
    return f"""\
# Made by Hearth at each start; changes are lost.
global
    fd-hard-limit {DESCRIPTORS_MAX}
    nbthread 1
    tune.rcvbuf.client {RECEIVE_BYTES}
defaults
    mode tcp
    timeout connect 5s
    timeout client {SILENT_S_MAX}s
    timeout server {SILENT_S_MAX}s
frontend hubs
    bind {gate.host}:{gate.port} backlog {BACKLOG_MAX}
    rate-limit sessions {NEW_PER_S}
    filter bwlim-in hub default-limit {gate.bytes_per_s // PERIODS_PER_S} \
default-period {1000 // PERIODS_PER_S}ms
    tcp-request content set-bandwidth-limit hub
    default_backend broker
backend broker
    server broker {LOOPBACK}:{gate.broker_port}
"""
