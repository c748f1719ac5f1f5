"""What an administrator enters of people: accounts, what they prove, sessions, care teams, clients.

Every change is audited in its own transaction. A password and an authenticator's secret are returned
once, to be handed over, and kept as a hash and encrypted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from api.access import Role
from api.issuer.passwords import Vault, hash_password, new_password, new_totp_secret, totp_uri
from api.issuer.tokens import Account
from gateway.errors import DataError, UsageError
from gateway.platform.audit import audit_command, command_actor
from gateway.platform.postgres import (
    Connection,
    Jsonb,
    class_row,
    dict_row,
    load_queries,
    translated,
)

_QUERIES = load_queries(Path(__file__).parent / "sql" / "accounts.sql")

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """An account to enter. `resident`: whose own archive it sees (role resident only).

    `password` None: a new one is made. `jwks`: the public keys of a service, which has no password.
    `issuer` and `subject`: another issuer vouches for it, which has its password then.
    """

    login: str
    role: Role
    resident: UUID | None = None
    password: str | None = None
    has_totp: bool = True
    scopes: Sequence[str] = ()
    jwks: Mapping[str, Any] | None = None
    issuer: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a person is handed over, once. None: there is none, or it is known already."""

    login: str
    id: UUID
    password: str | None
    totp: str | None
    """otpauth://, for an authenticator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRecord:
    """An account as it is listed."""

    login: str
    role: str
    id: UUID
    resident: UUID | None
    scopes: Sequence[str]
    has_totp: bool | None
    created_at: datetime
    disabled_at: datetime | None
    locked_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A sign-in that still stands."""

    id: UUID
    client: str
    origin: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CareTeam:
    """A care team and how many are in it now."""

    name: str
    id: UUID
    members: int
    residents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A public client of the built-in issuer."""

    client: str
    redirect_uris: Sequence[str] = field(default_factory=list)


def add_account(connection: Connection, vault: Vault, new: NewAccount) -> Credentials:
    """Enter an account and what it has to prove.

    Raises:
        UsageError: the login is taken, or something is not as needed.
    """
    _require_sense(new)
    with translated(), connection.transaction():
        if new.resident is not None:
            _require_residents(connection, [new.resident])
        try:
            with translated():
                row = connection.execute(
                    _QUERIES["add_account"],
                    {
                        "login": new.login,
                        "role": new.role.value,
                        "resident": new.resident,
                        "scopes": list(new.scopes),
                        "issuer": new.issuer,
                        "subject": new.subject,
                    },
                ).fetchone()
        except DataError as error:
            raise UsageError(
                f"用户名有误 / a login has 2 to 63 of a-z, 0-9, '.', '_' and '-': {new.login!r}"
            ) from error
        if row is None:
            raise UsageError(
                f"用户名已存在 / there is an account {new.login} already: 可用以下命令重置 / to reset it: "
                f"`hearth admin user reset {new.login}`"
            )
        key, public_id = row
        credentials = _prove(connection, vault, new, key, public_id)
        _audit(connection, "account.add", account=public_id, role=new.role.value)
    return credentials


def reset_account(
    connection: Connection, vault: Vault, login: str, password: str | None = None
) -> Credentials:
    """Give an account a new password and authenticator; its lock and its sessions end.

    Raises:
        UsageError: there is no such account, or it has no password of ours.
    """
    with translated(), connection.transaction():
        row = _account(connection, login)
        if row["role"] == Role.SERVICE.value or row["issuer"] is not None:
            raise UsageError(f"此账户没有密码 / account {login} has no password here")
        new = NewAccount(
            login=login, role=Role(row["role"]), password=password, has_totp=bool(row["has_totp"])
        )
        credentials = _prove(connection, vault, new, row["account_id"], row["public_id"])
        _revoke(connection, row, None)
        _audit(connection, "account.reset", account=row["public_id"])
    return credentials


def set_disabled(connection: Connection, login: str, *, disabled: bool) -> None:
    """Disable an account, which ends its sessions, or let it in again."""
    with translated(), connection.transaction():
        row = _account(connection, login)
        connection.execute(
            _QUERIES["set_disabled"], {"account": row["account_id"], "disabled": disabled}
        )
        if disabled:
            _revoke(connection, row, None)
        action = "account.disable" if disabled else "account.enable"
        _audit(connection, action, account=row["public_id"])


def list_accounts(connection: Connection) -> list[AccountRecord]:
    """Return all accounts by their logins."""
    return _list(connection, AccountRecord, "list_accounts")


def list_sessions(connection: Connection, login: str) -> list[Session]:
    """Return an account's sign-ins that still stand."""
    row = _account(connection, login)
    return _list(connection, Session, "list_sessions", account=row["account_id"])


def revoke_sessions(connection: Connection, login: str, session: UUID | None) -> int:
    """Revoke one session of an account, or all; return how many. It holds at once."""
    with translated(), connection.transaction():
        row = _account(connection, login)
        revoked = _revoke(connection, row, session)
        _audit(connection, "session.revoke", account=row["public_id"], sessions=revoked)
    return revoked


def open_session(
    connection: Connection, login: str, lifetime: timedelta
) -> tuple[Account, UUID | None]:
    """Open a session for an account on its administrator's word; a service has none.

    Raises:
        UsageError: there is no such account, or it is disabled.
    """
    with translated(), connection.transaction():
        row = _account(connection, login)
        if row["disabled_at"] is not None:
            raise UsageError(f"账户已停用 / account {login} is disabled")
        account = Account(
            id=row["public_id"],
            login=login,
            role=Role(row["role"]),
            resident=row["resident"],
            scopes=row["scopes"],
        )
        _audit(connection, "session.open", account=account.id)
        if account.role is Role.SERVICE:
            return account, None
        parameters = {
            "account": row["account_id"],
            "client": "hearth-admin",
            "origin": command_actor()[1],
            "lifetime": lifetime,
        }
        opened = connection.execute(_QUERIES["open_session"], parameters).fetchone()
        assert opened is not None  # noqa: S101 - INSERT ... RETURNING
        return account, opened[0]


def add_care_team(connection: Connection, name: str) -> None:
    """Enter a care team; one that is there stays as it is."""
    with translated(), connection.transaction():
        connection.execute(_QUERIES["add_care_team"], {"name": name})
        _audit(connection, "care_team.add")


def list_care_teams(connection: Connection) -> list[CareTeam]:
    """Return care teams by their names."""
    return _list(connection, CareTeam, "list_care_teams")


def join_care_team(
    connection: Connection,
    team: str,
    login: str,
    starts_at: datetime | None,
    ends_at: datetime | None = None,
) -> None:
    """Put an account into a care team for a time; saying it again changes nothing.

    Raises:
        UsageError: one of the two is not there, the role cares for nobody, or it overlaps.
    """
    with translated(), connection.transaction():
        row = _account(connection, login)
        if row["role"] not in {Role.CLINICIAN.value, Role.COORDINATOR.value}:
            raise UsageError(
                f"角色不符 / account {login} is a {row['role']}: 只有医生和协调员可加入 / clinicians and "
                "coordinators join care teams"
            )
        parameters = {
            "team": _team(connection, team),
            "account": row["account_id"],
            "starts_at": starts_at,
            "ends_at": ends_at,
        }
        _enter(connection, "add_member", parameters)
        _audit(connection, "care_team.join", account=row["public_id"])


def leave_care_team(connection: Connection, team: str, login: str, at: datetime) -> bool:
    """End an account's time in a care team; tell whether it was in it."""
    with translated(), connection.transaction():
        row = _account(connection, login)
        parameters = {
            "team": _team(connection, team),
            "account": row["account_id"],
            "at": at,
        }
        left = connection.execute(_QUERIES["end_member"], parameters).rowcount
        _audit(connection, "care_team.leave", account=row["public_id"])
    return bool(left)


def care_for(
    connection: Connection,
    team: str,
    residents: Sequence[UUID],
    starts_at: datetime | None,
    ends_at: datetime | None = None,
) -> None:
    """Put residents into a care team's care for a time; saying it again changes nothing.

    Raises:
        UsageError: somebody is not entered, or it overlaps.
    """
    with translated(), connection.transaction():
        _require_residents(connection, residents)
        parameters = {
            "team": _team(connection, team),
            "residents": list(residents),
            "starts_at": starts_at,
            "ends_at": ends_at,
        }
        entered = _enter(connection, "add_residents", parameters)
        audit_command(connection, "care_team.care", entered)


def end_care(connection: Connection, team: str, resident: UUID, at: datetime) -> bool:
    """End a care team's care for a resident; tell whether there was any."""
    with translated(), connection.transaction():
        parameters = {"team": _team(connection, team), "resident": resident, "at": at}
        ended = [key for (key,) in connection.execute(_QUERIES["end_resident"], parameters)]
        audit_command(connection, "care_team.release", ended)
    return bool(ended)


def add_client(connection: Connection, client: Client) -> None:
    """Enter a client, or change where it may be sent back to."""
    with translated(), connection.transaction():
        parameters = {"client": client.client, "redirect_uris": list(client.redirect_uris)}
        connection.execute(_QUERIES["add_client"], parameters)
        _audit(connection, "client.add", redirects=len(client.redirect_uris))


def list_clients(connection: Connection) -> list[Client]:
    """Return the clients by their ids."""
    return _list(connection, Client, "list_clients")


def _require_sense(new: NewAccount) -> None:
    if (new.role is Role.RESIDENT) != (new.resident is not None):
        raise UsageError(
            "居民账户需指明居民 / an account of the role resident, and only that, has --resident"
        )
    if new.role is not Role.SERVICE and (new.scopes or new.jwks):
        raise UsageError("范围和公钥只用于服务 / scopes and keys are a service's")
    if new.role is Role.SERVICE and new.issuer is None and not new.jwks:
        raise UsageError("服务需要公钥 / a service needs its public keys: --jwks FILE")
    if (new.issuer is None) != (new.subject is None):
        raise UsageError("需同时给出 --issuer 和 --subject / give both --issuer and --subject")
    if not new.has_totp and new.role not in {Role.RESIDENT, Role.SERVICE} and new.issuer is None:
        raise UsageError(
            "工作人员须用两个因素 / staff prove two factors: only residents may do without"
        )


def _prove(
    connection: Connection, vault: Vault, new: NewAccount, key: int, public_id: UUID
) -> Credentials:
    """Set what the account has to prove."""
    password = totp = None
    if new.role is not Role.SERVICE and new.issuer is None:
        password = new.password or new_password()
        totp = new_totp_secret() if new.has_totp else None
    parameters = {
        "account": key,
        "password_hash": None if password is None else hash_password(password),
        "totp_secret": None if totp is None else vault.seal(public_id, totp),
        "jwks": None if new.jwks is None else Jsonb(dict(new.jwks)),
    }
    connection.execute(_QUERIES["set_credential"], parameters)
    return Credentials(
        login=new.login,
        id=public_id,
        password=None if new.password else password,
        totp=None if totp is None else totp_uri(totp, new.login),
    )


def _account(connection: Connection, login: str) -> Mapping[str, Any]:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_QUERIES["account"], {"login": login}).fetchone()
    if row is None:
        raise UsageError(
            f"没有此账户 / there is no account {login!r}: 请查看 / see `hearth admin user list`"
        )
    return row


def _team(connection: Connection, name: str) -> int:
    row = connection.execute(_QUERIES["care_team"], {"name": name}).fetchone()
    if row is None:
        raise UsageError(
            f"没有此团队 / there is no care team {name!r}: 请先登记 / enter it first: "
            f"`hearth admin careteam add {name}`"
        )
    key: int = row[0]
    return key


def _enter(connection: Connection, query: str, parameters: Mapping[str, object]) -> list[int]:
    try:
        with translated():
            cursor = connection.execute(_QUERIES[query], parameters)
            return [key for (key,) in cursor] if cursor.description else []
    except DataError as error:
        raise UsageError(
            "时间重叠或起止有误 / it overlaps a time that is entered already, or ends before it begins"
        ) from error


def _revoke(connection: Connection, row: Mapping[str, Any], session: UUID | None) -> int:
    """Revoke a session; None: all, and the codes that would open another."""
    parameters = {"account": row["account_id"], "session": session}
    if session is None:
        connection.execute(_QUERIES["void_codes"], parameters)
    return connection.execute(_QUERIES["revoke_sessions"], parameters).rowcount


def _require_residents(connection: Connection, residents: Sequence[UUID]) -> None:
    parameters = {"residents": list(residents)}
    unknown = connection.execute(_QUERIES["unknown_resident"], parameters).fetchone()
    if unknown:
        raise UsageError(
            f"居民未登记 / resident {unknown[0]} is not entered: 请先登记 / enter it first: "
            "`hearth admin resident add`"
        )


def _audit(connection: Connection, action: str, **detail: object) -> None:
    told = {
        name: str(value) if isinstance(value, UUID) else value for name, value in detail.items()
    }
    audit_command(connection, action, detail=told)


def _list(connection: Connection, row: type[_Row], query: str, **parameters: object) -> list[_Row]:
    with translated(), connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(_QUERIES[query], parameters).fetchall()
