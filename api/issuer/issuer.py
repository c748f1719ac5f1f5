"""The issuer itself: sign-in to a code, codes and refresh tokens to tokens, revocation.

A wrong attempt and why it failed is audited; who tries learns only that something was wrong.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import jwt

from api.issuer.passwords import Vault, is_password, lock_after, step_of_code
from api.issuer.store import IssuerStore, Row, Transaction, account_of
from api.issuer.tokens import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    SESSION,
    Account,
    Signer,
)
from gateway.platform.pruning import ROWS_AT_ONCE, TOLD_KEPT_DAYS

CODE = timedelta(seconds=60)
"""How long an authorization code is good; RFC 6749, 4.1.2, allows ten minutes."""
ASSERTION_MAX = timedelta(minutes=5)
"""A client assertion that is good for longer is refused."""
LEEWAY_S = 5
"""A service's clock may differ from ours by so much."""
PASSWORDS_AT_ONCE_MAX = 2
"""Each takes 19 MiB and a core; further sign-ins wait."""
FIELD_CHARS_MAX = 2048
"""A longer parameter of a request is refused."""
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_ALGORITHMS = ("ES256", "ES384", "RS256", "RS384", "PS256", "EdDSA")
"""What services may sign with (SMART Backend Services asks for RS384 and ES384); never a shared key."""
SCOPES = ("openid", "offline_access")
"""What a person's client may ask for beside SMART's scopes."""
_SMART = re.compile(
    r"(patient|user|system)/(\*|[A-Z][A-Za-z]+)\.(\*|read|write|c?r?u?d?s?)(\?\S+)?"
    r"|launch(/patient)?|fhirUser|hearth/[a-z]+"
)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""BASE64URL of a SHA-256 hash (RFC 7636, 4.2)."""
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
"""RFC 7636, 4.1."""


class OAuthError(Exception):
    """A request that is refused, by the words of RFC 6749, 4.1.2.1 and 5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


class WrongClientError(Exception):
    """The client or where it wants to be sent back to is not known: nobody is sent anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """A valid request for an authorization code."""

    client: str
    redirect_uri: str
    challenge: str
    scope: str
    state: str | None
    nonce: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a person typed, and where from."""

    login: str
    password: str
    code: str
    origin: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the token endpoint answers; RFC 6749, 5.1."""

    access_token: str
    scope: str
    refresh_token: str | None = None
    id_token: str | None = None
    patient: UUID | None = None
    """Whose data `launch/patient` chose: the launch context of SMART App Launch 2.2."""

    def as_json(self) -> dict[str, object]:
        """Return the answer; what is not there is left out."""
        optional = {
            "refresh_token": self.refresh_token,
            "id_token": self.id_token,
            "patient": None if self.patient is None else str(self.patient),
        }
        return {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": int(ACCESS_TOKEN.total_seconds()),
            "scope": self.scope,
        } | {name: value for name, value in optional.items() if value is not None}


class Issuer:
    """The issuer at one address."""

    def __init__(self, store: IssuerStore, signer: Signer, vault: Vault) -> None:
        self.url = signer.issuer
        self.key = signer.key
        self._signer = signer
        self._store = store
        self._vault = vault
        self._passwords = asyncio.Semaphore(PASSWORDS_AT_ONCE_MAX)

    async def authorization(self, parameters: Mapping[str, str]) -> Authorization:
        """Check a request for a code.

        Raises:
            WrongClientError: nobody can be sent back.
            OAuthError: the client is to be told.
        """
        client = parameters.get("client_id", "")
        redirect_uri = parameters.get("redirect_uri", "")
        async with self._store.transaction() as transaction:
            row = await transaction.one("client", client=client)
        if row is None or not any(
            _is_redirect(redirect_uri, known, self.url) for known in row["redirect_uris"]
        ):
            raise WrongClientError
        if parameters.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type is code")
        if parameters.get("code_challenge_method") != "S256":
            raise OAuthError("invalid_request", "code_challenge_method is S256 (RFC 7636)")
        challenge = parameters.get("code_challenge", "")
        if not _CHALLENGE.fullmatch(challenge):
            raise OAuthError("invalid_request", "code_challenge is 43 characters (RFC 7636)")
        scope = _scope(parameters.get("scope", ""))
        return Authorization(
            client=client,
            redirect_uri=redirect_uri,
            challenge=challenge,
            scope=scope,
            state=parameters.get("state"),
            nonce=parameters.get("nonce"),
        )

    async def sign_in(self, authorization: Authorization, attempt: Attempt) -> str | None:
        """Return an authorization code; None: something about the attempt is wrong."""
        async with self._passwords, self._store.transaction() as transaction:
            row = await transaction.one("credential", login=attempt.login)
            now = datetime.now(UTC)
            # A locked account's too: an answer that comes sooner would tell that there is one.
            why, step = await self._judged(row, attempt, now)
            if row is None:
                await transaction.audit(None, "sign_in.refused", attempt.origin, why="login")
                return None
            account = account_of(row)
            if row["locked_until"] is not None and row["locked_until"] > now:
                why = "locked"
            if why == "":
                return await self._admit(transaction, row, authorization, attempt, step or 0)
            if why != "locked":
                failures = row["failures"] + 1
                lock = lock_after(failures)
                locked_until = None if lock is None else now + lock
                await transaction.run(
                    "failed",
                    account=row["account_id"],
                    failures=failures,
                    locked_until=locked_until,
                )
            await transaction.audit(account.id, "sign_in.refused", attempt.origin, why=why)
            return None

    async def redeem_code(self, parameters: Mapping[str, str], origin: str | None) -> Tokens:
        """Return the tokens for a code; RFC 6749, 4.1.3, and RFC 7636, 4.5.

        Raises:
            OAuthError: it is refused. A code that is used again revokes what its use began.
        """
        code = _hash(parameters.get("code", ""))
        verifier = parameters.get("code_verifier", "")
        async with self._store.transaction() as transaction:
            row = await transaction.one("code", code=code)
            if row is None:
                refusal = "the code is not known"
            elif row["used"]:
                refusal = "the code was used before"
                await self._revoke(transaction, row["session_id"], row["public_id"], origin, "code")
            elif not (row["in_time"] and row["enabled"]):
                refusal = "the code is not good any more"
            elif (row["client_id"], row["redirect_uri"]) != (
                parameters.get("client_id"),
                parameters.get("redirect_uri"),
            ):
                refusal = "the code is another client's"
            elif not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(
                challenge_of(verifier), row["code_challenge"]
            ):
                refusal = "code_verifier is wrong"
            else:
                return await self._begin(transaction, row, code, origin)
        raise OAuthError("invalid_grant", refusal)

    async def refresh(self, parameters: Mapping[str, str], origin: str | None) -> Tokens:
        """Return new tokens for a refresh token, which is used up by that.

        Raises:
            OAuthError: it is refused. One that is used again revokes its session.
        """
        token = _hash(parameters.get("refresh_token", ""))
        async with self._store.transaction() as transaction:
            row = await transaction.one("refresh", token=token)
            if row is None or row["client"] != parameters.get("client_id"):
                refusal = "the refresh token is not known"
            elif row["used"]:
                refusal = "the refresh token was used before: its session is revoked"
                await self._revoke(
                    transaction, row["session_id"], row["public_id"], origin, "refresh"
                )
            elif not (row["in_time"] and row["open"]):
                refusal = "the session has ended"
            else:
                await transaction.run("use_refresh", token=token)
                new = await self._new_refresh(transaction, row["session_id"], row["scope"])
                access = self._access(
                    account_of(row), row["session_id"], row["client"], row["scope"]
                )
                return Tokens(
                    access_token=access,
                    refresh_token=new,
                    scope=row["scope"],
                    patient=_launched_for(account_of(row), row["scope"]),
                )
        raise OAuthError("invalid_grant", refusal)

    async def client_credentials(
        self, parameters: Mapping[str, str], token_url: str, origin: str | None
    ) -> Tokens:
        """Return a service's token for its signed assertion; RFC 7523, 2.2 and 3.

        Raises:
            OAuthError: it is refused.
        """
        if parameters.get("client_assertion_type") != ASSERTION_TYPE:
            raise OAuthError("invalid_client", f"client_assertion_type is {ASSERTION_TYPE}")
        assertion = parameters.get("client_assertion", "")
        async with self._store.transaction() as transaction:
            head, login = _unverified(assertion)
            row = await transaction.one("service", login=login)
            claims = _assertion_claims(assertion, head, row, (token_url, self.url))
            assert row is not None  # noqa: S101 - without it there are no claims
            account = account_of(row)
            if not await transaction.run(
                "use_assertion",
                assertion=_hash(f"{account.id}:{claims['jti']}"),
                expires_at=datetime.fromtimestamp(claims["exp"], UTC) + timedelta(minutes=1),
            ):
                raise OAuthError("invalid_client", "the assertion was used before")
            wanted = _scope(parameters.get("scope", "")).split() or list(account.scopes)
            if not set(wanted) <= set(account.scopes):
                raise OAuthError("invalid_scope", "the service may not have these scopes")
            scope = " ".join(wanted)
            await transaction.run("forget_assertions")
            await transaction.audit(account.id, "token.issue", origin, scopes=len(wanted))
        return Tokens(access_token=self._access(account, None, account.login, scope), scope=scope)

    async def revoke(self, parameters: Mapping[str, str], origin: str | None) -> None:
        """Revoke the session of a refresh token; of anything else, nothing (RFC 7009, 2.2)."""
        token = _hash(parameters.get("token", ""))
        async with self._store.transaction() as transaction:
            row = await transaction.one("refresh", token=token)
            if row is not None and row["client"] == parameters.get("client_id"):
                await self._revoke(
                    transaction, row["session_id"], row["public_id"], origin, "sign_out"
                )

    async def _judged(
        self, row: Row | None, attempt: Attempt, now: datetime
    ) -> tuple[str, int | None]:
        """Return what is wrong, "" for nothing, and the time step of the code that was used."""
        kept = None if row is None else row["password_hash"]
        is_right = await asyncio.to_thread(is_password, attempt.password, kept)
        if row is None or not is_right:
            return "password", None
        if row["totp_secret"] is None:
            return "", None
        secret = self._vault.open(row["public_id"], row["totp_secret"])
        step = step_of_code(attempt.code, secret, now, row["totp_last"])
        return ("code", None) if step is None else ("", step)

    async def _admit(
        self,
        transaction: Transaction,
        row: Row,
        authorization: Authorization,
        attempt: Attempt,
        step: int,
    ) -> str:
        code = secrets.token_urlsafe(32)
        for table in ("forget_codes", "forget_refresh"):
            await transaction.run(table)
        await transaction.run("forget_sessions", days=TOLD_KEPT_DAYS, rows=ROWS_AT_ONCE)
        await transaction.run("proved", account=row["account_id"], step=step)
        await transaction.run(
            "add_code",
            code=_hash(code),
            account=row["account_id"],
            client=authorization.client,
            redirect_uri=authorization.redirect_uri,
            challenge=authorization.challenge,
            scope=authorization.scope,
            nonce=authorization.nonce,
            lifetime=CODE,
        )
        await transaction.audit(
            row["public_id"], "sign_in.done", attempt.origin, client=authorization.client
        )
        return code

    async def _begin(
        self, transaction: Transaction, row: Row, code: bytes, origin: str | None
    ) -> Tokens:
        begun = await transaction.one(
            "begin_session",
            account=row["account_id"],
            client=row["client_id"],
            origin=origin,
            lifetime=SESSION,
        )
        assert begun is not None  # noqa: S101 - INSERT ... RETURNING
        session: UUID = begun["session_id"]
        await transaction.run("use_code", code=code, session=session)
        account = account_of(row)
        id_token = None
        if "openid" in row["scope"].split():
            id_token = self._signer.id_token(
                account,
                datetime.now(UTC),
                session=session,
                client=row["client_id"],
                signed_in_at=row["signed_in_at"],
                nonce=row["nonce"],
                names_user="fhirUser" in row["scope"].split(),
            )
        return Tokens(
            access_token=self._access(account, session, row["client_id"], row["scope"]),
            refresh_token=await self._new_refresh(transaction, session, row["scope"]),
            id_token=id_token,
            scope=row["scope"],
            patient=_launched_for(account, row["scope"]),
        )

    async def _new_refresh(self, transaction: Transaction, session: UUID, scope: str) -> str:
        token = secrets.token_urlsafe(32)
        await transaction.run(
            "add_refresh", token=_hash(token), session=session, scope=scope, lifetime=REFRESH_TOKEN
        )
        return token

    async def _revoke(
        self,
        transaction: Transaction,
        session: UUID | None,
        account: UUID,
        origin: str | None,
        why: str,
    ) -> None:
        await transaction.run("revoke_session", session=session)
        await transaction.audit(account, "session.revoke", origin, why=why)

    def _access(self, account: Account, session: UUID | None, client: str, scope: str) -> str:
        return self._signer.access_token(
            account, datetime.now(UTC), session=session, client=client, scope=scope
        )


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier; RFC 7636, 4.2."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _launched_for(account: Account, scope: str) -> UUID | None:
    """Return whose data an app was launched for: a resident's own, where it asked for a patient."""
    return account.resident if "launch/patient" in scope.split() else None


def _is_redirect(given: str, known: str, url: str) -> bool:
    """Compare exactly (RFC 9700, 2.1), but for the port of this machine (RFC 8252, 7.3)."""
    if known.startswith("/"):
        return given == f"{url}{known}"
    if given == known:
        return True
    try:
        parts = urlsplit(given)
        own = f"127.0.0.1:{parts.port}"
    except ValueError:
        return False
    return (
        known.startswith("http://127.0.0.1/")
        and parts.netloc == own
        and given == known.replace("127.0.0.1", own, 1)
    )


def _scope(text: str) -> str:
    """Return the scopes that were asked for.

    Raises:
        OAuthError: one is not known.
    """
    scopes = list(dict.fromkeys(text.split()))
    if any(scope not in SCOPES and not _SMART.fullmatch(scope) for scope in scopes):
        raise OAuthError("invalid_scope", "a scope is not known")
    return " ".join(scopes)


def _unverified(assertion: str) -> tuple[Mapping[str, Any], str]:
    """Return an assertion's header and whose it says it is: what names the key that must have signed it."""
    try:
        head = jwt.get_unverified_header(assertion)
        login = jwt.decode(assertion, options={"verify_signature": False}).get("sub")
    except jwt.InvalidTokenError as error:
        raise OAuthError("invalid_client", "the assertion is no JWT") from error
    return head, login if isinstance(login, str) and login.isprintable() else ""


def _assertion_key(row: Row, head: Mapping[str, Any]) -> jwt.PyJWK | None:
    """Return the service's key that a header names; one that says no `alg` takes the header's."""
    if head.get("alg") not in ASSERTION_ALGORITHMS:
        return None
    for entry in (row["jwks"] or {}).get("keys", ()):
        if head.get("kid") in {None, entry.get("kid")}:
            try:
                return jwt.PyJWK(entry, entry.get("alg") or head["alg"])
            except jwt.PyJWTError:
                continue  # of another kind
    return None


def _assertion_claims(
    assertion: str, head: Mapping[str, Any], row: Row | None, audience: Sequence[str]
) -> dict[str, int]:
    key = None if row is None else _assertion_key(row, head)
    if row is None or key is None:
        raise OAuthError("invalid_client", "the service or its key is not known")
    try:
        claims: dict[str, int] = jwt.decode(
            assertion,
            key,
            algorithms=ASSERTION_ALGORITHMS,
            audience=audience,
            issuer=row["login"],
            leeway=LEEWAY_S,
            options={"require": ["iss", "sub", "aud", "exp", "jti"]},
        )
    except jwt.InvalidTokenError as error:
        raise OAuthError("invalid_client", "the assertion is not good") from error
    latest = datetime.now(UTC) + ASSERTION_MAX + timedelta(seconds=LEEWAY_S)
    if claims["exp"] > latest.timestamp():
        raise OAuthError("invalid_client", "the assertion is good for too long: 5 minutes at most")
    return claims


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
