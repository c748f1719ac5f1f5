"""Who may ask: whoever bears the token. RFC 6750, 2.1. In front of every route, known or not.

One static token, from a file that only its owner can read, is for the first deployments; a
replacement gives `RequireToken`'s place to a middleware of its own.
"""

from __future__ import annotations

import secrets
import stat
from http import HTTPStatus
from uuid import UUID

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import Principal, Role
from api.problems import problem
from gateway.errors import UsageError
from gateway.platform.enrolment import ENROL_PATH, RENEW_PATH
from gateway.platform.logs import get_logger
from gateway.platform.secret_files import secret
from gateway.platform.settings import Settings

OPEN_PATHS = frozenset({"/healthz", "/readyz", ENROL_PATH, RENEW_PATH})
"""What is asked without a token: by a probe, whose answer tells nothing, and by hubs, who have none
yet and bring a proof of their own (api.enrolment)."""
TOKEN_CHARS_MIN = 32
"""A shorter token could be guessed, so it is refused."""

TOKEN_ACCOUNT = UUID(int=1)
"""The account of the static token: a service that the schema enters."""

_log = get_logger(__name__)


def load_token(settings: Settings) -> str:
    """Return the token: of the file that the settings name, else one that is made once.

    Raises:
        UsageError: the file cannot be read or holds no long enough token.
    """
    path = settings.api_token_file
    if path is None:
        return secret(settings.home, "api_token")
    try:
        token = path.read_text(encoding="ascii").strip()
        open_to_others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"无法读取令牌文件 / HEARTH_API_TOKEN_FILE: cannot read {path}: {_why(error)}"
        ) from error
    if len(token) < TOKEN_CHARS_MIN:
        raise UsageError(
            f"令牌太短 / the token in {path} has {len(token)} characters, at least "
            f"{TOKEN_CHARS_MIN} are needed: 可用以下命令生成 / make one with "
            "`python3 -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )
    if open_to_others:
        _log.warning("token_file_open_to_others", path=str(path))
    return token


class RequireToken:
    """ASGI middleware: without the token there is only what `OPEN_PATHS` names."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer 401."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_borne(scope):
            client = scope.get("client")
            scope.setdefault("state", {})["principal"] = Principal(
                user=TOKEN_ACCOUNT, role=Role.SERVICE, origin=client[0] if client else None
            )
            await self._app(scope, receive, send)
        else:
            await problem(HTTPStatus.UNAUTHORIZED)(scope, receive, send)

    def _is_borne(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "")
        return secrets.compare_digest(given.encode("latin-1"), self._expected)


def _why(error: Exception) -> str:
    return error.strerror or "" if isinstance(error, OSError) else "not ASCII"
