"""The request to send again, on a hub's config topic. Specified in docs/wire.md, "Requests"."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.errors import DecodeError, Fault

REQUEST_BYTES_MAX = 1024
"""A longer message of the config topic is no request."""
_RESEND = "resend"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendRequest:
    """Asks a hub, on its config topic, for the batches that it had receipts for since a time.

    `id` tells one request from another: the message is retained and comes again and again.
    """

    id: UUID
    since: datetime


def encode_resend(request: ResendRequest) -> bytes:
    """Return the message of a request."""
    document = {"request": _RESEND, "id": str(request.id), "since": request.since.isoformat()}
    return json.dumps(document).encode()


def decode_resend(payload: bytes) -> ResendRequest:
    """Return the request in a message of the config topic.

    Raises:
        DecodeError: it is no such request.
    """
    try:
        document = json.loads(payload[:REQUEST_BYTES_MAX])
        name = document["request"]
        request = ResendRequest(
            id=UUID(document["id"]), since=datetime.fromisoformat(document["since"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DecodeError(Fault.INVALID, "request", 0, str(error)) from error
    if name != _RESEND or request.since.tzinfo is None:
        raise DecodeError(Fault.UNSUPPORTED, "request", 0, "is none to send again since a time")
    return request
