"""Writes that may be sent twice: the same key, the same answer.

`Idempotency-Key` as in the IETF HTTPAPI draft "The Idempotency-Key HTTP Header Field" (-07): the
answer to a write is kept a day and given again to the same principal for the same request; another
request with the key is refused (422), one that is still under way too (409). Were the process to
die between the write and the keeping of its answer, the write would be tried again: so each is
itself such that doing it again changes nothing.

What is kept lies open in the database, so a read's answer never is, though some reads are a POST (a
look-up by a body would leave names, and be repeated without an audit), and none of FHIR, whose
answers hold values and whose writes have If-None-Exist. A row is seen by its own principal only.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import Principal
from api.problems import problem
from api.routes.parameters import PREFIX
from gateway.errors import UnavailableError
from gateway.platform.logs import get_logger
from gateway.platform.postgres import (
    AsyncConnection,
    AsyncConnectionPool,
    Jsonb,
    TupleRow,
    load_queries,
    translated,
)

HEADER = "idempotency-key"
KEPT_S = 24 * 3600
"""An answer is given again for so long; then the key is a new one."""
UNANSWERED_S = 60
"""An act that has not been answered for so long is taken as dead, and its key may be used."""
ANSWER_BYTES_MAX = 64 * 1024
"""A longer answer is not kept; no write has one."""

KEY_PATTERN = "^[!-~]{8,128}$"
WRITES = frozenset(
    {
        ("POST", "/links"),
        ("POST", "/links/end"),
        ("POST", "/residents/{resident}/alerts/{alert}/acknowledge"),
        ("POST", "/residents/{resident}/alerts/{alert}/resolve"),
        ("POST", "/residents/{resident}/break-glass"),
        ("POST", "/residents/{resident}/consent"),
        ("POST", "/residents/{resident}/unassigned/claim"),
        ("PUT", "/residents/{resident}/targets"),
    }
)
"""What may bear a key, below `PREFIX`."""
READS_BY_POST = frozenset({("POST", "/residents/search")})
"""What is asked by a body because it may stand in no address: each is decided and audited anew."""

_KEY = re.compile(KEY_PATTERN)
_WRITE = re.compile(
    "|".join(f"{method} {PREFIX}{re.sub('{[a-z]+}', '[^/]+', path)}" for method, path in WRITES)
)
_KEPT_HEADERS = ("content-type", "location", "etag")
_QUERIES = load_queries(Path(__file__).parent / "sql" / "idempotency.sql")

_log = get_logger(__name__)

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    principal: Principal
    key: str
    digest: bytes

    def parameters(self, **more: object) -> dict[str, object]:
        asked = {"principal": str(self.principal.user), "key": self.key, "digest": self.digest}
        return asked | more


def is_write(method: str, path: str) -> bool:
    """Tell whether a request, or an operation by its template, is a write whose answer may be kept."""
    return _WRITE.fullmatch(f"{method} {path}") is not None


class Idempotent:
    """ASGI middleware behind authentication."""

    def __init__(self, app: ASGIApp, pool: Pool) -> None:
        self._app = app
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, a write with a key only once."""
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        principal: Principal | None = scope.get("state", {}).get("principal")
        if key is None or principal is None or not is_write(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        if not _KEY.fullmatch(key):
            detail = "Idempotency-Key: 8 至 128 个可见字符 / 8 to 128 visible ASCII characters"
            await problem(HTTPStatus.BAD_REQUEST, detail)(scope, receive, send)
            return
        body = await _whole_body(receive)
        target = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}\n"
        claim = _Claim(
            principal=principal,
            key=key,
            digest=sha256(target.encode() + body).digest(),
        )
        answer = await self._answer_of(claim)
        if answer is not None:
            await answer(scope, receive, send)
        else:
            await self._act(claim, scope, body, send)

    async def _answer_of(self, claim: _Claim) -> Response | None:
        """Return the answer that was kept, or why there is none; None: the key is ours."""
        with translated():
            async with self._bound(claim) as (connection, stands):
                if not stands:
                    return problem(HTTPStatus.UNAUTHORIZED)
                claimed = await connection.execute(
                    _QUERIES["claim"], claim.parameters(unanswered_s=UNANSWERED_S)
                )
                if await claimed.fetchone():
                    return None
                found = await connection.execute(_QUERIES["find"], claim.parameters())
                row = await found.fetchone()
        if row is None:
            return problem(HTTPStatus.CONFLICT)  # forgotten between the two: as good as under way
        digest, status, headers, body = row
        if bytes(digest) != claim.digest:
            detail = "此 Idempotency-Key 已用于另一请求 / this key was used for another request"
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        if not status:
            response = problem(
                HTTPStatus.CONFLICT, "同一请求正在处理 / the same request is under way"
            )
            response.headers["Retry-After"] = "1"
            return response
        return Response(
            bytes(body), status_code=status, headers=headers | {"Idempotent-Replayed": "true"}
        )

    async def _act(self, claim: _Claim, scope: Scope, body: bytes, send: Send) -> None:
        """Act, and answer once that is kept: who hears of it may send the key again at once."""
        answer = _Captured()
        try:
            await self._app(scope, _replayed(body), answer.send)
        finally:
            try:
                await self._settle(claim, answer)
            except UnavailableError as error:
                _log.warning(
                    "answer_not_kept", why=str(error)
                )  # it is under way, for `UNANSWERED_S`
        for message in answer.messages:
            await send(message)

    async def _settle(self, claim: _Claim, answer: _Captured) -> None:
        failed = answer.status is None or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        with translated():
            async with self._bound(claim) as (connection, _stands):
                if failed or len(answer.body) > ANSWER_BYTES_MAX:
                    await connection.execute(_QUERIES["release"], claim.parameters())
                else:
                    kept = claim.parameters(
                        status=answer.status, headers=Jsonb(answer.headers), body=bytes(answer.body)
                    )
                    await connection.execute(_QUERIES["keep"], kept)

    @asynccontextmanager
    async def _bound(self, claim: _Claim) -> AsyncIterator[tuple[AsyncConnection[TupleRow], bool]]:
        """Open a transaction that sees the principal's answers; also whether the account still stands."""
        who = {"reader": claim.principal.user, "session": claim.principal.session}
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(_QUERIES["bind"], who)
            ((stands,),) = await cursor.fetchall()
            yield connection, stands


async def forget_old_answers(pool: Pool) -> None:
    """Remove the answers that nobody asks for again."""
    with translated():
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(_QUERIES["forget"], {"kept_s": KEPT_S})


class _Captured:
    """Holds an answer; a write's is short."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = Headers(raw=message["headers"])
            self.headers = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        elif message["type"] == "http.response.body" and len(self.body) <= ANSWER_BYTES_MAX:
            self.body += message.get("body", b"")
        self.messages.append(message)


async def _whole_body(receive: Receive) -> bytes:
    body = bytearray()  # its length was bounded by api.boundary
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _replayed(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
