"""`hearth login` against the running API: the page, the form, the way back to loopback, tokens that work."""

from __future__ import annotations

import asyncio
import html
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import jwt
import pytest

from api import accounts
from api.access import Role
from api.accounts import NewAccount
from api.issuer.keys import KeyRing
from api.server import serving
from gateway.platform.postgres import connect_blocking
from gateway.platform.settings import LOOPBACK
from tests.archives import API, a_config, a_vault, public_id
from tests.fixtures.database import as_api
from tests.worlds import enter_registry

pytestmark = pytest.mark.integration

WITHIN_S = 60.0
_FIELD = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who signs in, and where."""

    url: str
    home: Path
    password: str
    keys: KeyRing

    @asynccontextmanager
    async def command(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli.main", "login", "--url", self.url, *words),
            env=os.environ | {"HEARTH_HOME": str(self.home)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def login(self) -> str:
        """Run the command where a session lasts; return its token."""
        async with self.command() as process:
            said, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return said.decode().strip()

    async def sign_in(self, password: str) -> tuple[httpx.Response, str]:
        """Run the command and be its browser; returns the last page and the token."""
        async with self.command() as process:
            assert process.stderr is not None
            async for line in process.stderr:
                if line.startswith(b"http"):
                    break
            async with httpx.AsyncClient(follow_redirects=True) as browser:
                page = await browser.get(line.decode().strip())
                fields = {name: html.unescape(value) for name, value in _FIELD.findall(page.text)}
                typed = {"login": "resident", "password": password, "code": ""}
                answer = await browser.post(f"{self.url}/oauth/authorize", data=fields | typed)
            if answer.status_code != httpx.codes.OK:
                return answer, ""
            said, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
        return answer, said.decode().strip()

    async def me(self, token: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.get(f"{API}/me", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
async def person(database: str, tmp_path: Path) -> AsyncIterator[Person]:
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests") as connection:
        new = NewAccount(
            login="resident", role=Role.RESIDENT, resident=public_id(database), has_totp=False
        )
        entered = accounts.add_account(connection, a_vault(), new)
    keys = KeyRing(tmp_path / "server")
    async with serving(replace(a_config(as_api(database)), url=None, key=keys)) as port:
        yield Person(
            url=f"http://{LOOPBACK}:{port}",
            home=tmp_path / "person",
            password=entered.password or "",
            keys=keys,
        )


async def test_a_person_signs_in_once_and_the_session_goes_on_until_they_sign_out(
    person: Person,
) -> None:
    page, first = await person.sign_in(person.password)
    assert "已登录" in page.text
    assert (await person.me(first)).json()["role"] == "resident"
    kept = person.home / "secrets" / "login"
    assert kept.stat().st_mode & 0o777 == 0o600

    second = await person.login()  # asks nobody
    assert second != first
    assert (await person.me(second)).status_code == 200

    async with person.command("--out") as process:
        await process.communicate()
    assert process.returncode == 0
    assert not kept.exists()
    assert [(await person.me(token)).status_code for token in (first, second)] == [401, 401]


async def test_whoever_types_another_password_is_not_sent_back(person: Person) -> None:
    page, token = await person.sign_in("another password")
    assert (page.status_code, token) == (403, "")
    assert not (person.home / "secrets" / "login").exists()


async def test_a_rotation_of_the_signing_key_signs_nobody_out(person: Person) -> None:
    _page, first = await person.sign_in(person.password)
    KeyRing(person.home.parent / "server").rotate()  # another process, the command
    async with asyncio.timeout(WITHIN_S):
        while True:
            second = await person.login()
            heads = [jwt.get_unverified_header(token)["kid"] for token in (first, second)]
            if heads[0] != heads[1]:
                break
    assert [(await person.me(token)).status_code for token in (first, second)] == [200, 200]
    async with httpx.AsyncClient() as client:
        published = (await client.get(f"{person.url}/oauth/jwks")).json()["keys"]
    assert [jwk["kid"] for jwk in published] == list(reversed(heads))
