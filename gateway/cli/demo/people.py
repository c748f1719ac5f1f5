"""The demo's people: one of each role, with passwords made at this start, and a service that watches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from api import accounts
from api.access import Role
from api.accounts import Credentials, NewAccount
from api.issuer.keys import key_of
from api.issuer.passwords import Vault
from gateway.cli.admin.user import token_for
from gateway.platform.postgres import connect_blocking
from gateway.platform.secret_files import secret
from gateway.platform.settings import Settings

TEAM = "Demo 演示团队"
WATCHER = "demo-watch"
WATCHER_TOKEN = timedelta(minutes=30)
_TITLES = {
    Role.RESIDENT: "居民",
    Role.CLINICIAN: "医生",
    Role.COORDINATOR: "协调员",
    Role.ADMINISTRATOR: "管理员",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody to sign in as."""

    role: Role
    credentials: Credentials

    @property
    def said(self) -> str:
        """What is printed: role, login, password, the authenticator's secret."""
        totp = parse_qs(urlsplit(self.credentials.totp or "").query).get("secret", ["-"])[0]
        return (
            f"  {_TITLES[self.role]} / {self.role.value:<14} {self.credentials.login:<22} "
            f"密码 / password {self.credentials.password}  动态码密钥 / TOTP {totp}"
        )


def enter_people(dsn: str, settings: Settings, residents: Sequence[UUID]) -> list[Person]:
    """Enter one person of each role and a care team for all residents; may be repeated.

    The resident is the first one. Who was there gets a new password.
    """
    vault = Vault(settings.home)
    with connect_blocking(dsn, application="hearth-demo") as connection:
        known = {account.login for account in accounts.list_accounts(connection)}
        people = []
        for new in _accounts(residents[0]):
            if new.login in known:
                credentials = accounts.reset_account(connection, vault, new.login)
            else:
                credentials = accounts.add_account(connection, vault, new)
            people.append(Person(role=new.role, credentials=credentials))
        if WATCHER not in known:
            accounts.add_account(connection, vault, _watcher(settings))
        accounts.add_care_team(connection, TEAM)
        for person in people:
            if person.role in {Role.CLINICIAN, Role.COORDINATOR}:
                accounts.join_care_team(connection, TEAM, person.credentials.login, None)
        accounts.care_for(connection, TEAM, residents, None)
    return people


def watcher_token(dsn: str, settings: Settings) -> str:
    """Return a token for the service that measures how soon readings are visible."""
    with connect_blocking(dsn, application="hearth-demo") as connection:
        return token_for(settings, connection, WATCHER, WATCHER_TOKEN)


def _accounts(resident: UUID) -> Iterator[NewAccount]:
    yield NewAccount(
        login=f"demo-resident-{resident.hex[:6]}",
        role=Role.RESIDENT,
        resident=resident,
        has_totp=False,
    )
    for role in (Role.CLINICIAN, Role.COORDINATOR, Role.ADMINISTRATOR):
        yield NewAccount(login=f"demo-{role.value}", role=role)


def _watcher(settings: Settings) -> NewAccount:
    keys = key_of(secret(settings.home, "demo_watch_key")).jwks
    return NewAccount(
        login=WATCHER, role=Role.SERVICE, jwks=keys, scopes=["system/*.rs", "hearth/operations"]
    )
