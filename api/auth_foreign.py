"""Tokens of an issuer of one's own: its keys by discovery, its people by their accounts here.

OpenID Connect Discovery 1.0; RFC 7517. The keys are read again when they are old, and when a token
names one that is not among them, though not more often than `READ_AGAIN_S_MIN`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import jwt
import orjson

from api.access import Principal
from api.auth import RefusedTokenError, checked, header_of
from gateway.errors import UnavailableError
from gateway.platform.logs import get_logger

ALGORITHMS = ("ES256", "ES384", "RS256", "PS256", "EdDSA")
"""Signatures only; with a shared secret (HS256) whoever checks tokens could make them."""
TYPES = frozenset({"at+jwt", "jwt"})
"""RFC 9068 asks for at+jwt; issuers in use say JWT. An id token has another audience."""
KEYS_S_MAX = 600.0
"""Keys that are older are read again; while the issuer is down, the old ones are used so long again."""
READ_AGAIN_S_MIN = 30.0
"""A token with a key that nobody knows makes us ask the issuer no more often than this."""
DOCUMENT_BYTES_MAX = 256 * 1024
"""A longer description or key set is refused."""
KEYS_MAX = 50
"""A key set with more keys is refused."""
ANSWER_S_MAX = 5.0
"""An issuer that does not answer within this is down."""

_log = get_logger(__name__)

Find = Callable[[str, str], Awaitable[Principal | None]]
"""Finds the account that an issuer's subject is."""


class ForeignTokens:
    """Checks the tokens of one issuer that is not ours.

    It remembers keys only; who was found good is remembered by `api.known_tokens`, in front of it.
    """

    def __init__(
        self, client: httpx.AsyncClient, find: Find, *, issuer: str, audience: str
    ) -> None:
        self._keys = _Keys(client, issuer)
        self._find = find
        self._issuer = issuer
        self._audience = audience

    async def principal(self, token: str) -> Principal:
        """Return who bears the token; see `api.auth.Verifier`."""
        header = header_of(token, {*TYPES})
        key = await self._keys.key(str(header.get("kid", "")))
        claims = checked(token, key, ALGORITHMS, self._issuer, self._audience)
        principal = await self._find(self._issuer, str(claims["sub"]))
        if principal is None:
            raise RefusedTokenError("account")
        return principal


class _Keys:
    """An issuer's key set, kept for a time."""

    def __init__(self, client: httpx.AsyncClient, issuer: str) -> None:
        self._client = client
        self._issuer = issuer
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._read_at = -KEYS_S_MAX * 2
        self._tried_at = -READ_AGAIN_S_MIN
        self._turn = asyncio.Lock()

    async def key(self, kid: str) -> jwt.PyJWK:
        """Return a key by its id.

        Raises:
            RefusedTokenError: the issuer has no such key.
            UnavailableError: the issuer does not answer, and what we have is too old.
        """
        async with self._turn:
            now = time.monotonic()
            is_old = now - self._read_at > KEYS_S_MAX
            if (is_old or kid not in self._keys) and now - self._tried_at >= READ_AGAIN_S_MIN:
                self._tried_at = now
                await self._read(now)
            if now - self._read_at > 2 * KEYS_S_MAX:
                raise UnavailableError("the issuer's keys cannot be read")
        try:
            return self._keys[kid]
        except KeyError:
            raise RefusedTokenError("key") from None

    async def _read(self, now: float) -> None:
        try:
            self._keys = _usable(await self._published())
        except (httpx.HTTPError, UnavailableError, ValueError, LookupError, TypeError) as error:
            _log.warning("issuer_keys_unread", why=type(error).__name__)
        else:
            self._read_at = now

    async def _published(self) -> list[Mapping[str, Any]]:
        where = await self._document(f"{self._issuer}/.well-known/openid-configuration")
        if where.get("issuer") != self._issuer:  # OpenID Connect Discovery 1.0, 4.3
            raise UnavailableError("the issuer describes another one")
        keys: list[Mapping[str, Any]] = (await self._document(str(where["jwks_uri"])))["keys"]
        return keys

    async def _document(self, url: str) -> dict[str, Any]:
        body = bytearray()
        async with self._client.stream("GET", url, timeout=ANSWER_S_MAX) as response:
            response.raise_for_status()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > DOCUMENT_BYTES_MAX:
                    raise UnavailableError("the issuer's document is too long")
        document: dict[str, Any] = orjson.loads(body)
        return document


def _usable(keys: list[Mapping[str, Any]]) -> dict[str, jwt.PyJWK]:
    """Return the keys that can check signatures, by id."""
    if len(keys) > KEYS_MAX:
        raise UnavailableError("the issuer has too many keys")
    usable = {}
    for entry in keys:
        if entry.get("kid") and entry.get("use", "sig") == "sig":
            try:
                key = jwt.PyJWK(dict(entry))
            except jwt.PyJWTError:
                continue  # of a kind that we do not take
            if key.algorithm_name in ALGORITHMS:
                usable[str(entry["kid"])] = key
    return usable
