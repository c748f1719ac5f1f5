"""Where notifications may go: https to the public internet, else only what the setting names."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.platform.webhook_hosts import REFUSED, webhook_hosts

NOBODY = webhook_hosts("")
SOME = webhook_hosts("127.0.0.0/8, emr.clinic.local,10.1.2.3")


@pytest.mark.parametrize(
    ("endpoint", "allowed", "allowed_by_setting"),
    [
        ("https://clinic.example/hook", True, True),
        ("https://clinic.example:8443/hook", True, True),
        ("http://clinic.example/hook", False, False),
        ("https://8.8.8.8/", True, True),
        ("http://127.0.0.1:8080/hook", False, True),
        ("https://127.0.0.1/hook", False, True),
        ("https://localhost/hook", False, False),
        ("https://anything.localhost/hook", False, False),
        ("https://10.0.0.1/hook", False, False),
        ("http://10.1.2.3/hook", False, True),
        ("https://169.254.169.254/latest/meta-data", False, False),
        ("https://[::1]/hook", False, False),
        ("https://[::ffff:127.0.0.1]/hook", False, False),
        ("https://[64:ff9b::7f00:1]/hook", False, False),
        ("https://[2002:7f00:1::]/hook", False, False),
        ("https://[fe80::1]/hook", False, False),
        ("https://224.0.0.1/hook", False, False),
        ("https://0.0.0.0/hook", False, False),
        ("https://emr.clinic.local/hook", False, True),
        ("http://EMR.clinic.local/hook", False, True),
        ("ftp://127.0.0.1/hook", False, False),
        ("https://user:word@clinic.example/", False, False),
        ("https://", False, False),
        ("https://[::1", False, False),
        ("https://clinic.example:port/", False, False),
    ],
)
def test_only_public_hosts_and_those_of_the_setting_are_told(
    endpoint: str, *, allowed: bool, allowed_by_setting: bool
) -> None:
    assert NOBODY.may_be_told(endpoint) is allowed
    assert SOME.may_be_told(endpoint) is allowed_by_setting


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
async def test_a_name_that_stands_for_a_private_address_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def answer(*_asked: object, **_more: object) -> list[Any]:
        return [(0, 0, 0, "", ("8.8.8.8", 443)), (0, 0, 0, "", (address, 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    asked: list[httpx.Request] = []
    async with a_client(asked) as client:
        why = await NOBODY.post("https://clinic.example/hook", b"{}", {}, client)
    assert (why, asked) == (REFUSED, [])


async def test_what_was_looked_up_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_asked: object, **_more: object) -> list[Any]:
        return [(0, 0, 0, "", ("8.8.8.8", 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    asked: list[httpx.Request] = []
    async with a_client(asked) as client:
        assert await NOBODY.post("https://clinic.example:8443/hook?a=1", b"{}", {}, client) is None
    (request,) = asked
    assert str(request.url) == "https://8.8.8.8:8443/hook?a=1"
    assert request.headers["host"] == "clinic.example:8443"
    assert request.extensions["sni_hostname"] == "clinic.example"


def a_client(asked: list[httpx.Request]) -> httpx.AsyncClient:
    def keep(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204)

    return httpx.AsyncClient(transport=httpx.MockTransport(keep))
