"""Conditional requests: every answer to a GET has an entity tag. RFC 9110, 8.8.3 and 13.1.2.

The tag is of the bytes, so it costs a hash and no query; a read that turns out unchanged is audited
like any other. Streams have none.
"""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TAG_CHARS = 24
"""96 bits: no two answers share a tag by chance."""


class Conditional:
    """ASGI middleware: adds ETag, answers 304 where the client has the same bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        answer = _Answer(Headers(scope=scope).get("if-none-match"), send)
        await self._app(scope, receive, answer.send)


class _Answer:
    """One answer; its head is held back until its body, whole in one message, is there."""

    def __init__(self, known: str | None, send: Send) -> None:
        self._known = known
        self._send = send
        self._head: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None and not message.get("more_body"):
            tag = entity_tag(message.get("body", b""))
            headers = MutableHeaders(scope=head)
            headers["ETag"] = tag
            if is_known(tag, self._known):
                head = {**head, "status": HTTPStatus.NOT_MODIFIED}
                for name in ("content-length", "content-type"):
                    del headers[name]
                message = {**message, "body": b""}
        if head is not None:
            await self._send(head)
        await self._send(message)


def entity_tag(body: bytes) -> str:
    """Return the strong tag of a representation."""
    return f'"{sha256(body).hexdigest()[:TAG_CHARS]}"'


def is_known(tag: str, field: str | None) -> bool:
    """Tell whether an If-None-Match (weak comparison) or If-Match field names `tag`."""
    if field is None:
        return False
    tags = [entry.strip().removeprefix("W/") for entry in field.split(",")]
    return "*" in tags or tag in tags
