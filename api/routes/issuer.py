"""The built-in issuer's addresses: discovery, keys, sign-in, tokens, revocation.

RFC 8414 and OpenID Connect Discovery 1.0, RFC 6749, RFC 7009.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.issuer import page
from api.issuer.issuer import (
    ASSERTION_ALGORITHMS,
    FIELD_CHARS_MAX,
    Attempt,
    Authorization,
    Issuer,
    OAuthError,
    WrongClientError,
)
from api.issuer.keys import ALGORITHM
from api.openapi import ERRORS
from api.origin import origin_of
from api.routes.parameters import json_response

_TEXT = {"type": "string"}
_FORM = "application/x-www-form-urlencoded"
_HTML: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
_REFUSAL: dict[str, Any] = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
            "required": ["error"],
        }
    }
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    HTTPStatus.BAD_REQUEST: {"description": "被拒绝 / RFC 6749, 5.2", "content": _REFUSAL},
    HTTPStatus.UNAUTHORIZED: {"description": "客户端不明 / invalid_client", "content": _REFUSAL},
}
_SENT_BACK: dict[int | str, dict[str, Any]] = {
    HTTPStatus.SEE_OTHER: {"description": "回到客户端 / back to the client: RFC 6749, 4.1.2"},
    HTTPStatus.BAD_REQUEST: {
        "description": "客户端不明 / the client is not known, or a parameter no parameter",
        "content": _HTML | _REFUSAL,
    },
}
_WRONG: dict[int | str, dict[str, Any]] = {
    HTTPStatus.FORBIDDEN: {"description": "登录信息有误 / something is wrong", "content": _HTML}
}
_BOUNDS: dict[int | str, dict[str, Any]] = {
    status: ERRORS[status]
    for status in (
        HTTPStatus.LENGTH_REQUIRED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
}

router = APIRouter(tags=["登录 / sign-in"], responses=_BOUNDS)

CARRIED = (
    "response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge",
    "code_challenge_method",
)  # fmt: skip
"""What the page carries from the request to its form."""
FIELDS_MAX = 30
"""A request with more parameters is refused."""


async def _issuer(request: Request) -> Issuer:
    issuer: Issuer = request.app.state.issuer
    return issuer


IssuerOfApp = Annotated[Issuer, Depends(_issuer)]


def _form_body(*names: str, required: Sequence[str] = ()) -> dict[str, Any]:
    properties = dict.fromkeys([*required, *names], _TEXT)
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"requestBody": {"required": True, "content": {_FORM: {"schema": schema}}}}


@router.get("/.well-known/openid-configuration", summary="发现 / discovery")
async def read_configuration(issuer: IssuerOfApp) -> Response:
    """Describe the issuer; OpenID Connect Discovery 1.0, 3."""
    return json_response(description(issuer.url))


@router.get("/.well-known/oauth-authorization-server", summary="发现 / discovery")
async def read_metadata(issuer: IssuerOfApp) -> Response:
    """Describe the issuer; RFC 8414."""
    return json_response(description(issuer.url))


@router.get("/oauth/jwks", summary="公钥 / public keys")
async def read_keys(issuer: IssuerOfApp) -> Response:
    """Return the keys that tokens are signed with; RFC 7517."""
    return json_response(issuer.key.jwks)


@router.get(
    "/oauth/authorize",
    summary="登录页 / the sign-in page",
    response_class=HTMLResponse,
    responses=_SENT_BACK,
    openapi_extra={
        "parameters": [
            {"name": name, "in": "query", "required": name in CARRIED[:3], "schema": _TEXT}
            for name in CARRIED
        ]
    },
)
async def show_sign_in(request: Request, issuer: IssuerOfApp) -> Response:
    """Show the sign-in page for a request of a client; PKCE with S256 is needed."""
    fields = _fields(request.url.query)
    checked = await _checked(issuer, fields)
    if isinstance(checked, Response):
        return checked
    return _form(fields, checked)


@router.post(
    "/oauth/authorize",
    summary="登录 / sign in",
    response_class=HTMLResponse,
    responses=_SENT_BACK | _WRONG,
    openapi_extra=_form_body(*CARRIED, "login", "password", "code"),
)
async def sign_in(request: Request, issuer: IssuerOfApp) -> Response:
    """Take what a person typed; send them back to the client with a code, or show the page again."""
    fields = await _form_of(request)
    checked = await _checked(issuer, fields)
    if isinstance(checked, Response):
        return checked
    login = fields.get("login", "").strip().lower()
    attempt = Attempt(
        login=login,
        password=fields.get("password", ""),
        code=fields.get("code", "").strip(),
        origin=origin_of(request.scope),
    )
    code = await issuer.sign_in(checked, attempt)
    if code is None:
        return _form(fields, checked, login=login, is_wrong=True)
    return _back(checked.redirect_uri, code=code, state=checked.state, iss=issuer.url)


@router.post(
    "/oauth/token",
    summary="令牌 / tokens",
    responses=_REFUSED,
    openapi_extra=_form_body(
        *("client_id", "code", "redirect_uri", "code_verifier", "refresh_token"),
        *("client_assertion_type", "client_assertion", "scope"),
        required=["grant_type"],
    ),
)
async def issue_tokens(request: Request, issuer: IssuerOfApp) -> Response:
    """Exchange a code, a refresh token or a service's signed assertion for tokens."""
    fields, origin = await _form_of(request), origin_of(request.scope)
    match fields.get("grant_type"):
        case "authorization_code":
            tokens = await issuer.redeem_code(fields, origin)
        case "refresh_token":
            tokens = await issuer.refresh(fields, origin)
        case "client_credentials":
            tokens = await issuer.client_credentials(fields, f"{issuer.url}/oauth/token", origin)
        case _:
            raise OAuthError("unsupported_grant_type", "there is no such grant here")
    return json_response(tokens.as_json())


@router.post(
    "/oauth/revoke",
    summary="退出 / sign out",
    response_class=Response,
    responses=_REFUSED,
    openapi_extra=_form_body("client_id", required=["token"]),
)
async def revoke(request: Request, issuer: IssuerOfApp) -> Response:
    """Revoke the session of a refresh token; RFC 7009."""
    fields = await _form_of(request)
    if "token" not in fields:
        raise OAuthError("invalid_request", "token is what to revoke (RFC 7009, 2.1)")
    await issuer.revoke(fields, origin_of(request.scope))
    return Response(status_code=HTTPStatus.OK)


def description(url: str) -> dict[str, object]:
    """Return the issuer's description."""
    return {
        "issuer": url,
        "authorization_endpoint": f"{url}/oauth/authorize",
        "token_endpoint": f"{url}/oauth/token",
        "revocation_endpoint": f"{url}/oauth/revoke",
        "jwks_uri": f"{url}/oauth/jwks",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "subject_types_supported": ["public"],
        "scopes_supported": ["openid", "offline_access"],
        "authorization_response_iss_parameter_supported": True,
        "ui_locales_supported": ["zh-CN", "en"],
    }


def answer_refusals(app: FastAPI) -> None:
    """Let the application answer what the issuer refuses as RFC 6749, 5.2, has it."""

    @app.exception_handler(OAuthError)
    async def refuse(_request: Request, error: OAuthError) -> Response:
        return _refused(error)


async def _checked(issuer: Issuer, fields: dict[str, str]) -> Authorization | Response:
    """Return the request where it is valid, else the answer to it."""
    try:
        return await issuer.authorization(fields)
    except WrongClientError:
        return _page(page.refusal(), HTTPStatus.BAD_REQUEST, None)
    except OAuthError as error:
        return _back(
            fields["redirect_uri"],
            error=error.error,
            error_description=error.description,
            state=fields.get("state"),
            iss=issuer.url,
        )


async def _form_of(request: Request) -> dict[str, str]:
    return _fields((await request.body()).decode("utf-8", "replace"))


def _fields(text: str) -> dict[str, str]:
    """Return the parameters of a query or a form.

    Raises:
        OAuthError: one is there twice (RFC 6749, 3.1), or there are too many or too long ones.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise OAuthError("invalid_request", "there are too many parameters") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise OAuthError("invalid_request", "a parameter is there twice")
    if any(len(value) > FIELD_CHARS_MAX or "\0" in value for value in fields.values()):
        raise OAuthError("invalid_request", "a parameter is too long")
    return fields


def _form(
    fields: dict[str, str], checked: Authorization, *, login: str = "", is_wrong: bool = False
) -> Response:
    hidden = {name: fields[name] for name in CARRIED if name in fields}
    status = HTTPStatus.FORBIDDEN if is_wrong else HTTPStatus.OK
    text = page.form(hidden, login=login, is_wrong=is_wrong)
    return _page(text, status, checked.redirect_uri)


def _page(text: str, status: HTTPStatus, redirect_uri: str | None) -> Response:
    headers = {"Content-Security-Policy": page.policy(redirect_uri)}
    return HTMLResponse(text, status_code=status, headers=headers)


def _back(redirect_uri: str, **parameters: str | None) -> Response:
    told = urlencode({name: value for name, value in parameters.items() if value is not None})
    separator = "&" if "?" in redirect_uri else "?"
    return RedirectResponse(f"{redirect_uri}{separator}{told}", HTTPStatus.SEE_OTHER)


def _refused(error: OAuthError) -> Response:
    response = json_response({"error": error.error, "error_description": error.description})
    response.status_code = (
        HTTPStatus.UNAUTHORIZED if error.error == "invalid_client" else HTTPStatus.BAD_REQUEST
    )
    return response
