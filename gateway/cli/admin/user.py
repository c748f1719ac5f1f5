"""`hearth admin user`: accounts of people and services."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import jwt
import segno
import typer
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from api import accounts
from api.access import Role
from api.accounts import Credentials, NewAccount
from api.issuer.keys import KeyRing
from api.issuer.passwords import Vault
from api.issuer.tokens import ACCESS_TOKEN, Signer
from gateway.cli.admin.options import AsJson, open_archive
from gateway.cli.tables import show
from gateway.errors import UsageError
from gateway.platform.audit import audit_command
from gateway.platform.postgres import Connection
from gateway.platform.settings import Settings, is_interactive, load_settings

TOKEN_MINUTES_MAX = 60
"""A token on an administrator's word is good for at most so long."""
RSA_BITS_MIN = 2048
"""A service's RSA key that is shorter is refused: NIST SP 800-57 Part 1 Rev. 5, table 2."""
EXAMPLES = """\
例 / examples:

hearth admin user add wang.li --role clinician    打印密码和二维码 / prints a password and a QR code

hearth admin user add zhang --role resident --resident RESIDENT --no-totp

hearth admin user add hospital --role service --jwks keys.json --scope system/Observation.rs

curl -H "Authorization: Bearer $(hearth admin user token wang.li)" http://127.0.0.1:8420/api/v1/me
"""

app = typer.Typer(
    help="账户 / accounts of people and services.", no_args_is_help=True, epilog=EXAMPLES
)

Login = Annotated[str, typer.Argument(help="用户名 / the login.")]
PasswordFromInput = Annotated[
    bool,
    typer.Option(
        "--password-stdin", help="从标准输入读密码 / read the password from standard input."
    ),
]


@app.command("add", epilog=EXAMPLES)
def add_user(  # noqa: PLR0913 - each is an option
    login: Login,
    *,
    role: Annotated[Role, typer.Option(help="角色 / what the account may do.")],
    resident: Annotated[
        UUID | None, typer.Option(help="居民本人的编号 / whose own archive it is.")
    ] = None,
    totp: Annotated[
        bool, typer.Option("--totp/--no-totp", help="第二因素 / a second factor (staff: always).")
    ] = True,
    password_stdin: PasswordFromInput = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="服务的范围, 可重复 / a service's scope; may repeat.")
    ] = None,
    jwks: Annotated[
        Path | None,
        typer.Option(help="服务的公钥 / a file with a service's public keys (JWK set)."),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(help="由其他系统认证 / another issuer that vouches for it.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="在该系统中的标识 / its `sub` at that issuer.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """新建账户; 密码只显示一次 / enter an account; its password is shown once."""
    new = NewAccount(
        login=login,
        role=role,
        resident=resident,
        password=_password(wanted=password_stdin),
        has_totp=totp,
        scopes=scope or (),
        jwks=None if jwks is None else _key_set(jwks),
        issuer=issuer,
        subject=subject,
    )
    with open_archive() as connection:
        credentials = accounts.add_account(connection, Vault(load_settings().home), new)
    _hand_over(credentials, as_json=as_json)


@app.command("list")
def list_users(*, as_json: AsJson = False) -> None:
    """列出账户 / list accounts."""
    with open_archive() as connection:
        show(accounts.list_accounts(connection), as_json=as_json)


@app.command("disable")
def disable_user(login: Login) -> None:
    """停用账户并终止其会话 / disable an account; its sessions end at once."""
    with open_archive() as connection:
        accounts.set_disabled(connection, login, disabled=True)


@app.command("enable")
def enable_user(login: Login) -> None:
    """重新启用账户 / let a disabled account in again."""
    with open_archive() as connection:
        accounts.set_disabled(connection, login, disabled=False)


@app.command("reset")
def reset_user(
    login: Login, *, password_stdin: PasswordFromInput = False, as_json: AsJson = False
) -> None:
    """重置密码和第二因素, 解除锁定, 终止会话 / new password and authenticator; lock and sessions end."""
    password = _password(wanted=password_stdin)
    with open_archive() as connection:
        credentials = accounts.reset_account(
            connection, Vault(load_settings().home), login, password
        )
    _hand_over(credentials, as_json=as_json)


@app.command("sessions")
def list_sessions(login: Login, *, as_json: AsJson = False) -> None:
    """列出有效会话 / list the sign-ins that still stand."""
    with open_archive() as connection:
        show(accounts.list_sessions(connection, login), as_json=as_json)


@app.command("revoke")
def revoke_sessions(
    login: Login,
    *,
    session: Annotated[
        UUID | None, typer.Option(help="只终止此会话 / only this session; default: all.")
    ] = None,
) -> None:
    """终止会话, 立即生效 / revoke sessions; it holds at once."""
    with open_archive() as connection:
        revoked = accounts.revoke_sessions(connection, login, session)
    typer.echo(f"已终止 / revoked: {revoked}", err=True)


@app.command("token")
def make_token(
    login: Login,
    *,
    minutes: Annotated[
        int, typer.Option(min=1, max=TOKEN_MINUTES_MAX, help="有效分钟数 / for how many minutes.")
    ] = int(ACCESS_TOKEN.total_seconds()) // 60,
) -> None:
    """为账户签发短期令牌, 记入审计 / print a short-lived token for an account; it is audited."""
    lifetime = timedelta(minutes=minutes)
    with open_archive() as connection:
        token = token_for(load_settings(), connection, login, lifetime)
    typer.echo(token)


@app.command("rotate-signing-key")
def rotate_signing_key() -> None:
    """换用新的令牌签名密钥; 旧令牌到期前仍有效 / sign with a new key; older tokens stay good until they end.

    Running APIs see it within seconds; the old key stays published for an hour and a minute.
    """
    settings = load_settings()
    with open_archive() as connection:
        kid = KeyRing(settings.home).rotate().kid
        audit_command(connection, "issuer.rotate", detail={"kid": kid})
    typer.echo(kid)


def token_for(settings: Settings, connection: Connection, login: str, lifetime: timedelta) -> str:
    """Return a token of the built-in issuer for an account.

    Raises:
        UsageError: there is no such account, or another issuer is set.
    """
    if settings.oidc_issuer is not None:
        raise UsageError("令牌由您的认证系统签发 / tokens come from HEARTH_OIDC_ISSUER")
    account, session = accounts.open_session(connection, login, lifetime)
    signer = Signer(
        key=KeyRing(settings.home),
        issuer=settings.issuer_url,
        audience=settings.oidc_audience,
    )
    return signer.access_token(
        account,
        datetime.now(UTC),
        session=session,
        client="hearth-admin",
        scope=" ".join(account.scopes),
        lifetime=lifetime,
    )


def _password(*, wanted: bool) -> str | None:
    return sys.stdin.readline().rstrip("\n") if wanted else None


def _key_set(path: Path) -> dict[str, Any]:
    try:
        keys: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        private = {"d", "k"} & {name for key in keys["keys"] for name in key}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"不是公钥集 / {path} is no JWK set (RFC 7517)") from error
    if private:
        raise UsageError(
            f"含有私钥 / {path} has a private key: 只交公钥 / hand over public keys only"
        )
    _require_strong(keys, path)
    return keys


def _require_strong(keys: dict[str, Any], path: Path) -> None:
    """Refuse what cannot check a signature, and RSA keys that are too short."""
    try:
        usable = jwt.PyJWKSet.from_dict(keys).keys
    except jwt.PyJWTError as error:
        raise UsageError(
            f"没有可用的公钥 / {path} has no key that can check a signature: RSA, EC or OKP"
        ) from error
    for key in usable:
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < RSA_BITS_MIN:
            raise UsageError(
                f"密钥过短 / {path} has an RSA key of {key.key.key_size} bits: 至少 / at least {RSA_BITS_MIN}"
            )


def _hand_over(credentials: Credentials, *, as_json: bool) -> None:
    show([credentials], as_json=as_json)
    if credentials.totp is not None and not as_json and is_interactive():
        segno.make(credentials.totp).terminal(out=sys.stderr, compact=True)
