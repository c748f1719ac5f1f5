"""Asks a broker on loopback whether it lets a user in. MQTT 3.1.1, sections 3.1 and 3.2."""

from __future__ import annotations

import socket
import struct

from gateway.platform.settings import LOOPBACK

ANSWER_S_MAX = 2.0
"""A broker that does not answer within this is not ready."""

_USER_NAME, _PASSWORD, _CLEAN_SESSION = 0x80, 0x40, 0x02
_ACCEPTED = b"\x20\x02\x00\x00"
"""CONNACK, 2 bytes to come, no session, return code 0."""
_DISCONNECT = b"\xe0\x00"


def lets_in(port: int, user: str, password: str) -> bool:
    """Connect with a clean session, look at the answer, disconnect."""
    try:
        with socket.create_connection((LOOPBACK, port), ANSWER_S_MAX) as connection:
            connection.sendall(_connect(user, password))
            answer = connection.recv(len(_ACCEPTED), socket.MSG_WAITALL)
            if answer == _ACCEPTED:
                connection.sendall(_DISCONNECT)
    except OSError:
        return False
    return answer == _ACCEPTED


def _connect(user: str, password: str) -> bytes:
    flags = _USER_NAME | _PASSWORD | _CLEAN_SESSION
    body = _text("MQTT") + struct.pack("!BBH", 4, flags, 0)  # level 4, no keep-alive
    body += _text("") + _text(user) + _text(password)
    assert len(body) < 128, "one byte holds the remaining length"  # noqa: PLR2004, S101 - 2.2.3
    return bytes([0x10, len(body)]) + body


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("!H", len(encoded)) + encoded
