"""Asks a broker on loopback whether it lets a client in. MQTT 3.1.1, sections 3.1 and 3.2."""

from __future__ import annotations

import socket
import ssl
import struct

from gateway.platform.settings import LOOPBACK

ANSWER_S_MAX = 2.0
"""A broker that does not answer within this is not ready."""

KEEP_ALIVE_S = 60
_CLEAN_SESSION = 0x02
_ACCEPTED = b"\x20\x02\x00\x00"
"""CONNACK, 2 bytes to come, no session, return code 0."""
_DISCONNECT = b"\xe0\x00"


def lets_in(port: int, tls: ssl.SSLContext, client_id: str = "") -> bool:
    """Connect with a clean session, look at the answer, disconnect.

    Where the broker takes client ids as they come, whoever is connected under `client_id` is cut off
    and its session forgotten: MQTT-3.1.4-2.
    """
    try:
        with (
            socket.create_connection((LOOPBACK, port), ANSWER_S_MAX) as plain,
            tls.wrap_socket(plain, server_hostname=LOOPBACK) as connection,
        ):
            connection.sendall(_connect(client_id))
            answer = _receive(connection, len(_ACCEPTED))
            if answer == _ACCEPTED:
                connection.sendall(_DISCONNECT)
    except OSError:
        return False
    return answer == _ACCEPTED


def _connect(client_id: str) -> bytes:
    body = _text("MQTT") + struct.pack("!BBH", 4, _CLEAN_SESSION, KEEP_ALIVE_S)  # level 4
    body += _text(client_id)
    assert len(body) < 128, "one byte holds the remaining length"  # noqa: PLR2004, S101 - 2.2.3
    return bytes([0x10, len(body)]) + body


def _receive(connection: ssl.SSLSocket, count: int) -> bytes:
    answer = b""
    while len(answer) < count and (piece := connection.recv(count - len(answer))):
        answer += piece
    return answer


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("!H", len(encoded)) + encoded
