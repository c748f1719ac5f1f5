"""Who may ask: whoever bears a good token. RFC 6750, 2.1; RFC 9068, 4; RFC 8725.

In front of every route, known or not. What a token says is checked here; whether its account and
session still stand, the database says in the transaction that reads.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import Principal, Role
from api.issuer.keys import ALGORITHM, Keys
from api.issuer.tokens import ACCESS_TOKEN_TYPE
from api.origin import origin_of
from api.problems import problem
from gateway.errors import UnavailableError
from gateway.platform.enrolment import ENROL_PATH, RENEW_PATH
from gateway.platform.logs import get_logger

OPEN_PATHS = frozenset(
    {
        "/healthz",
        "/readyz",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/oauth/jwks",
        "/oauth/authorize",
        "/oauth/token",
        "/oauth/revoke",
        "/fhir/metadata",
        "/fhir/.well-known/smart-configuration",
        ENROL_PATH,
        RENEW_PATH,
    }
)
"""What is asked without a token: probes, the way to a token, and hubs, who have none yet and bring a
proof of their own (api.enrolment)."""
LEEWAY_S = 5
"""The issuer's clock may differ from ours by so much."""
TOKEN_CHARS_MAX = 8 * 1024
"""A longer token is refused unread."""
SCRAPE_PATH = "/metrics"
"""What the scrape token opens, and nothing else."""
Key = jwt.PyJWK | EllipticCurvePublicKey
REQUIRED = ("iss", "sub", "aud", "exp")

_log = get_logger(__name__)


class RefusedTokenError(Exception):
    """A token is not good; `reason` is for the log's counter, not for the one who bears it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Verifier(Protocol):
    """Tells who a token is about."""

    async def principal(self, token: str) -> Principal:
        """Return who bears the token.

        Raises:
            RefusedTokenError: it is not good.
            UnavailableError: it cannot be told now.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTokens:
    """Checks the tokens of the built-in issuer."""

    key: Keys
    issuer: str
    audience: str

    async def principal(self, token: str) -> Principal:
        """Return who bears the token; see `Verifier`."""
        header = header_of(token, {ACCESS_TOKEN_TYPE})
        key = self.key.known(header.get("kid"))
        if key is None:
            raise RefusedTokenError("key")
        public = key.private.public_key()
        claims = checked(token, public, (ALGORITHM,), self.issuer, self.audience)
        try:
            return Principal(
                user=UUID(claims["sub"]),
                role=Role(claims["role"]),
                session=UUID(claims["sid"]) if "sid" in claims else None,
                resident=UUID(claims["resident"]) if "resident" in claims else None,
                scopes=frozenset(claims.get("scope", "").split()),
            )
        except (KeyError, ValueError, AttributeError) as error:
            raise RefusedTokenError("claims") from error


class RequireToken:
    """ASGI middleware: without a good token there is only what `OPEN_PATHS` names."""

    def __init__(self, app: ASGIApp, verifier: Verifier, scrape_token: str | None = None) -> None:
        self._app = app
        self._verifier = verifier
        self._scrape_token = scrape_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass with its principal, or answer 401."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if scope["path"] == SCRAPE_PATH and self._is_scraper(scope):
            scope.setdefault("state", {})["is_scraper"] = True
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._verifier.principal(_bearer(scope))
        except RefusedTokenError as error:
            _log.info("token_refused", why=error.reason)
            await problem(HTTPStatus.UNAUTHORIZED)(scope, receive, send)
        except UnavailableError as error:
            _log.warning("issuer_unavailable", why=str(error))
            await problem(HTTPStatus.SERVICE_UNAVAILABLE)(scope, receive, send)
        else:
            state = scope.setdefault("state", {})
            state["principal"] = replace(principal, origin=origin_of(scope))
            await self._app(scope, receive, send)

    def _is_scraper(self, scope: Scope) -> bool:
        if self._scrape_token is None:
            return False
        try:
            given = _bearer(scope)
        except RefusedTokenError:
            return False
        return hmac.compare_digest(given.encode(), self._scrape_token.encode())


def header_of(token: str, types: set[str]) -> dict[str, Any]:
    """Return the header of a token, which nothing vouches for yet.

    Raises:
        RefusedTokenError: it is no JWT, or of another type than `types` (RFC 8725, 3.11).
    """
    if len(token) > TOKEN_CHARS_MAX:
        raise RefusedTokenError("size")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise RefusedTokenError("form") from error
    if str(header.get("typ", "")).lower().removeprefix("application/") not in types:
        raise RefusedTokenError("type")
    return header


def checked(
    token: str, key: Key, algorithms: tuple[str, ...], issuer: str, audience: str
) -> dict[str, Any]:
    """Return the claims of a token that is signed with a key, for us, by the issuer, and in time.

    Raises:
        RefusedTokenError: one of that does not hold.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_S,
            options={"require": [*REQUIRED]},
        )
    except jwt.InvalidTokenError as error:
        raise RefusedTokenError(_reason(error)) from error
    return claims


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "expired"),
    (jwt.ImmatureSignatureError, "not_yet"),
    (jwt.InvalidAudienceError, "audience"),
    (jwt.InvalidIssuerError, "issuer"),
    (jwt.InvalidAlgorithmError, "algorithm"),
    (jwt.InvalidSignatureError, "signature"),
)


def _reason(error: Exception) -> str:
    return next((name for kind, name in _REASONS if isinstance(error, kind)), "claims")


def _bearer(scope: Scope) -> str:
    given = Headers(scope=scope).get("authorization", "")
    scheme, _, token = given.partition(" ")
    if scheme.lower() != "bearer" or not token.isascii():
        raise RefusedTokenError("none")
    return token
