"""The tokens that the issuer signs. RFC 9068 (access tokens), OpenID Connect Core 1.0, 2 (id tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import jwt

from api.access import Role
from api.issuer.keys import ALGORITHM, Keys

AUDIENCE = "hearth"
"""Whom access tokens are for, where the settings say nothing else."""
ACCESS_TOKEN = timedelta(minutes=5)
"""How long an access token is good; a revoked session ends at once all the same."""
REFRESH_TOKEN = timedelta(hours=1)
"""A session that does not ask for a new token within this has ended."""
SESSION = timedelta(hours=12)
"""After this a person signs in again."""
ACCESS_TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068, 2.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom a token is about; `resident` is the public id of a resident's own archive."""

    id: UUID
    login: str
    role: Role
    resident: UUID | None = None
    scopes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Signs for one issuer; access tokens are for one audience."""

    key: Keys
    issuer: str
    audience: str

    def access_token(
        self,
        account: Account,
        now: datetime,
        *,
        session: UUID | None,
        client: str,
        scope: str,
        lifetime: timedelta = ACCESS_TOKEN,
    ) -> str:
        """Return an access token."""
        claims = {
            "iss": self.issuer,
            "sub": str(account.id),
            "aud": self.audience,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
            "jti": str(uuid4()),
            "client_id": client,
            "scope": scope,
            "role": account.role.value,
        }
        if session is not None:
            claims["sid"] = str(session)
        if account.resident is not None:
            claims["resident"] = str(account.resident)
        return self._signed(claims, ACCESS_TOKEN_TYPE)

    def id_token(
        self,
        account: Account,
        now: datetime,
        *,
        session: UUID,
        client: str,
        signed_in_at: datetime,
        nonce: str | None,
        names_user: bool = False,
    ) -> str:
        """Return an id token, for the client's eyes only.

        `names_user`: say which Patient a resident is (SMART App Launch 2.2, `fhirUser`); staff are no
        resources here.
        """
        claims = {
            "iss": self.issuer,
            "sub": str(account.id),
            "aud": client,
            "iat": int(now.timestamp()),
            "exp": int((now + ACCESS_TOKEN).timestamp()),
            "auth_time": int(signed_in_at.timestamp()),
            "sid": str(session),
            "preferred_username": account.login,
            "role": account.role.value,
        }
        if nonce is not None:
            claims["nonce"] = nonce
        if names_user and account.resident is not None:
            claims["fhirUser"] = f"{self.issuer}/fhir/Patient/{account.resident}"
        return self._signed(claims, "JWT")

    def _signed(self, claims: dict[str, object], kind: str) -> str:
        key = self.key.newest
        headers = {"kid": key.kid, "typ": kind}
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers=headers)
