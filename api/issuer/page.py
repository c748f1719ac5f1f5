"""The sign-in page: one form, no script, nothing from elsewhere. Chinese first, English second."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

_STYLE = """
:root { color-scheme: light dark; --ink: #16211d; --soft: #55645d; --line: #c3cec8; --ground: #f3f6f4;
  --card: #fff; --act: #0b6b4b; --on-act: #fff; --bad: #a3241b; --bad-ground: #fdeeec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8efeb; --soft: #a4b3ab; --line: #42514a;
  --ground: #101613; --card: #18211d; --act: #58c79b; --on-act: #06251a; --bad: #ffb4ab;
  --bad-ground: #3a1512; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100dvh; display: grid; place-items: center; padding: 1.5rem 1rem;
  background: var(--ground); color: var(--ink); line-height: 1.5;
  font-family: system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
main { width: 100%; max-width: 24rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; padding: 1.75rem; }
h1 { font-size: 1.375rem; margin: 0; }
small { color: var(--soft); font-size: .875rem; font-weight: 400; }
p { margin: .25rem 0 1.25rem; color: var(--soft); }
p[role=alert] { color: var(--bad); background: var(--bad-ground); border-radius: .5rem;
  padding: .75rem 1rem; }
label { display: block; font-weight: 600; margin-top: 1rem; }
input { width: 100%; font: inherit; margin-top: .25rem; padding: .625rem .75rem; min-height: 2.75rem;
  color: inherit; background: var(--ground); border: 1px solid var(--line); border-radius: .5rem; }
button { width: 100%; font: inherit; font-weight: 600; margin-top: 1.5rem; min-height: 2.75rem;
  color: var(--on-act); background: var(--act); border: 0; border-radius: .5rem; cursor: pointer; }
input:focus-visible, button:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_WRONG = (
    "登录失败: 用户名, 密码或验证码有误, 或因多次失败暂时锁定. / Sign-in failed: something is wrong, or "
    "the account is locked for a while after too many attempts."
)
_PAGE = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>登录 Hearth / Sign in</title>
<style>{style}</style>
</head>
<body>
<main>
{content}
</main>
</body>
</html>
"""
_FORM = """<h1>登录 Hearth <small>Sign in</small></h1>
<p>家庭体征档案 / home vital signs</p>
{alert}<form method="post" action="/oauth/authorize" autocomplete="on">
{hidden}
<label for="login">用户名 <small>Login</small></label>
<input id="login" name="login" value="{login}" required autocomplete="username" autocapitalize="none"
 spellcheck="false" maxlength="64"{focus_login}>
<label for="password">密码 <small>Password</small></label>
<input id="password" name="password" type="password" required autocomplete="current-password"
 maxlength="256"{focus_password}>
<label for="code">动态验证码 <small>Code, if you have an authenticator</small></label>
<input id="code" name="code" inputmode="numeric" autocomplete="one-time-code" pattern="[0-9]{{6}}"
 maxlength="6">
<button type="submit">登录 / Sign in</button>
</form>"""
_REFUSED = """<h1>无法登录 <small>Cannot sign in</small></h1>
<p role="alert">应用或其返回地址未登记, 请联系管理员. / The application or the address it wants you to
return to is not registered: ask the administrator.</p>"""


def form(hidden: Mapping[str, str], *, login: str = "", is_wrong: bool = False) -> str:
    """Return the page; `hidden` is the request that it goes on with."""
    fields = "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in hidden.items()
    )
    content = _FORM.format(
        alert=f'<p role="alert">{_WRONG}</p>\n' if is_wrong else "",
        hidden=fields,
        login=escape(login),
        focus_login="" if is_wrong else " autofocus",
        focus_password=" autofocus" if is_wrong else "",
    )
    return _PAGE.format(style=_STYLE, content=content)


def refusal() -> str:
    """Return the page for a request that nobody can be sent back from."""
    return _PAGE.format(style=_STYLE, content=_REFUSED)


def policy(redirect_uri: str | None) -> str:
    """Return the Content-Security-Policy; browsers hold form-action against redirects too."""
    targets = "'self'"
    if redirect_uri is not None:
        parts = urlsplit(redirect_uri)
        targets += f" {parts.scheme}://{parts.netloc}"
    return (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {targets}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
