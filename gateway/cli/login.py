"""`hearth login`: a person's token on the command line. RFC 8252: the browser, PKCE, loopback."""

from __future__ import annotations

import json
import secrets
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import typer

from api.issuer.issuer import challenge_of
from gateway.errors import UnavailableError, UsageError
from gateway.platform.secret_files import secret_folder, secret_path, write_private
from gateway.platform.settings import LOOPBACK, is_interactive, load_settings

CLIENT = "hearth-cli"
"""The built-in issuer knows it; with one of your own, register it as a public client."""
CALLBACK = "/signed-in"
WAIT_S_MAX = 300.0
"""Who has not signed in by then begins anew."""
ANSWER_S_MAX = 10.0
_KEPT = "login"
_DONE = (
    "<!doctype html><meta charset=utf-8><title>Hearth</title>"
    "<p>已登录, 可关闭此页. / Signed in: you may close this page."
).encode()

app = typer.Typer()

EXAMPLES = """\
例 / examples:

curl -H "Authorization: Bearer $(hearth login)" http://127.0.0.1:8420/api/v1/me

hearth login --url https://hearth.example    另一台服务器 / another server

hearth login --out    退出 / sign out
"""


@app.command("login", epilog=EXAMPLES)
def login(
    *,
    url: Annotated[
        str | None, typer.Option(help="接口地址 / the API's address; default: this machine's.")
    ] = None,
    out: Annotated[
        bool, typer.Option("--out", help="退出: 会话立即终止 / sign out: the session ends at once.")
    ] = False,
) -> None:
    """登录, 在标准输出打印访问令牌; 会话有效时不再询问.

    Sign in with the browser and print an access token on standard output. While the session lasts, the
    next call prints a fresh one without asking.
    """
    settings = load_settings()
    base = settings.oidc_issuer or url or settings.issuer_url
    kept = _Kept.load()
    with httpx.Client(timeout=ANSWER_S_MAX) as client:
        try:
            endpoints = _endpoints(client, base)
            if out:
                _sign_out(client, endpoints, kept)
                return
            tokens = _renewed(client, endpoints, kept, base) or _signed_in(client, endpoints)
        except httpx.HTTPError as error:
            raise UnavailableError(f"接口无响应 / {base} does not answer") from error
    if "refresh_token" in tokens:
        kept_now = json.dumps({"url": base, "token": tokens["refresh_token"]})
        secret_folder(settings.home, "")
        write_private(secret_path(settings.home, _KEPT), kept_now.encode())
    typer.echo(tokens["access_token"])


class _Kept:
    """The refresh token of the session before, and whose it is."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    @classmethod
    def load(cls) -> _Kept | None:
        try:
            return cls(**json.loads(secret_path(load_settings().home, _KEPT).read_bytes()))
        except FileNotFoundError:
            return None


def _endpoints(client: httpx.Client, base: str) -> dict[str, Any]:
    response = client.get(f"{base}/.well-known/openid-configuration")
    response.raise_for_status()
    described: dict[str, Any] = response.json()
    return described


def _renewed(
    client: httpx.Client, endpoints: dict[str, Any], kept: _Kept | None, base: str
) -> dict[str, Any] | None:
    """Return new tokens of the session before; None: there is none any more."""
    if kept is None or kept.url != base:
        return None
    form = {"grant_type": "refresh_token", "refresh_token": kept.token, "client_id": CLIENT}
    response = client.post(endpoints["token_endpoint"], data=form)
    if response.status_code != httpx.codes.OK:
        secret_path(load_settings().home, _KEPT).unlink(missing_ok=True)
        return None
    tokens: dict[str, Any] = response.json()
    return tokens


def _signed_in(client: httpx.Client, endpoints: dict[str, Any]) -> dict[str, Any]:
    """Let the person sign in with a browser; return the tokens.

    Raises:
        UsageError: they did not, or were refused.
    """
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    with _Listener((LOOPBACK, 0), _Handler) as listener:
        redirect_uri = f"http://{LOOPBACK}:{listener.server_port}{CALLBACK}"
        query = urlencode(
            {
                "response_type": "code",
                "client_id": CLIENT,
                "redirect_uri": redirect_uri,
                "scope": "openid offline_access",
                "state": state,
                "code_challenge": challenge_of(verifier),
                "code_challenge_method": "S256",
            }
        )
        address = f"{endpoints['authorization_endpoint']}?{query}"
        typer.echo(f"请在浏览器登录 / sign in with a browser:\n\n{address}\n", err=True)
        if is_interactive():
            webbrowser.open(address)
        answer = listener.wait()
    if answer.get("state") != state or "code" not in answer:
        raise UsageError("未登录 / not signed in: 请重试 / try again with `hearth login`")
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": redirect_uri,
        "client_id": CLIENT,
        "code_verifier": verifier,
    }
    response = client.post(endpoints["token_endpoint"], data=form)
    response.raise_for_status()
    tokens: dict[str, Any] = response.json()
    return tokens


def _sign_out(client: httpx.Client, endpoints: dict[str, Any], kept: _Kept | None) -> None:
    if kept is not None:
        form = {"token": kept.token, "client_id": CLIENT}
        client.post(endpoints["revocation_endpoint"], data=form).raise_for_status()
        secret_path(load_settings().home, _KEPT).unlink(missing_ok=True)
    typer.echo("已退出 / signed out", err=True)


class _Listener(HTTPServer):
    """Waits on loopback for the browser to come back."""

    timeout = WAIT_S_MAX
    answer: dict[str, str] | None = None

    def wait(self) -> dict[str, str]:
        """Return what the browser brought; nothing where it did not come in time."""
        self.is_late = False
        while self.answer is None and not self.is_late:
            self.handle_request()
        return self.answer or {}

    def handle_timeout(self) -> None:
        """Give up."""
        self.is_late = True


class _Handler(BaseHTTPRequestHandler):
    server: _Listener

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != CALLBACK:  # a browser asks for an icon, too
            self.send_error(404)
            return
        self.server.answer = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(_DONE)))
        self.end_headers()
        self.wfile.write(_DONE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the address holds a code."""
