"""Where notifications may go: https to the public internet, else only what the setting names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from gateway.platform.webhook_hosts import REFUSED, open_client, webhook_hosts

NOBODY = webhook_hosts("")
SOME = webhook_hosts("127.0.0.0/8, emr.clinic.local,10.1.2.3")
ENOUGH_BYTES = 64 * 1024 * 1024


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
        ("https://a..b/hook", False, False),
        (f"https://{'a' * 64}.example/hook", False, False),
        ("https://clinic.example/a\x01b", False, False),
        ("https://clinic.example/a\nb", False, False),
        (f"https://clinic.example/{'a' * 70_000}", False, False),
        ("https://\u2603\u2603.\u3002/hook", False, False),
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


@pytest.mark.parametrize(
    "endpoint", ["https://a..b/hook", "https://8.8.8.8/a\x01b", "https://8.8.8.8/a\nb"]
)
async def test_an_endpoint_that_is_no_address_is_told_nothing_and_ends_nothing(
    endpoint: str,
) -> None:
    asked: list[httpx.Request] = []
    async with a_client(asked) as client:
        why = await NOBODY.post(endpoint, b"{}", {}, client)
    assert (why, asked) == (REFUSED, [])


async def test_a_name_in_another_script_is_told_by_its_ascii_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(*_asked: object, **_more: object) -> list[Any]:
        return [(0, 0, 0, "", ("8.8.8.8", 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    asked: list[httpx.Request] = []
    async with a_client(asked) as client:
        assert await NOBODY.post("https://诊所.example/hook", b"{}", {}, client) is None
    (request,) = asked
    assert request.headers["host"] == "xn--8oup83g.example"
    assert request.extensions["sni_hostname"] == "xn--8oup83g.example"


@asynccontextmanager
async def an_endpoint(
    head: bytes, piece: bytes, every_s: float
) -> AsyncIterator[tuple[str, list[int]]]:
    """An endpoint that answers with a head and then with many pieces; what it sent."""
    sent, writers = [0], set[asyncio.StreamWriter]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while sent[0] < ENOUGH_BYTES and not writer.is_closing():
                writer.write(piece)
                await writer.drain()
                sent[0] += len(piece)
                await asyncio.sleep(every_s)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", sent
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_an_endpoint_that_answers_a_byte_at_a_time_has_not_answered() -> None:
    async with (
        an_endpoint(b"HTTP/1.1 204 No Content\r\nX-Long: ", b"a", 0.02) as (url, _sent),
        open_client(0.3) as client,
        asyncio.timeout(5),
    ):
        assert await SOME.post(url, b"{}", {}, client) == "no answer in time"


async def test_of_a_long_answer_only_the_status_is_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    async with (
        an_endpoint(head, b"a" * 65_536, 0) as (url, sent),
        open_client(1.0) as client,
        asyncio.timeout(5),
    ):
        assert await SOME.post(url, b"{}", {}, client) is None
    assert sent[0] < ENOUGH_BYTES / 4


def a_client(asked: list[httpx.Request]) -> httpx.AsyncClient:
    def keep(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204)

    return httpx.AsyncClient(transport=httpx.MockTransport(keep))
