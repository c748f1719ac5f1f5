"""Where webhooks may go, and the one way to post to them.

An endpoint is named by whoever wants to be told, so it must not become a way into the network that we
stand in (OWASP SSRF Prevention Cheat Sheet): only https, only addresses of the public internet (IANA
special-purpose registries, as `ipaddress` has them), looked up by us and connected to as looked up, so
that a name cannot change in between. HEARTH_WEBHOOK_HOSTS names the hosts that are exempt.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

import httpx

REFUSED = "endpoint not allowed"
"""Why nothing was sent where nothing may be."""
HTTPS_PORT = 443
_TRANSLATED = ip_network("64:ff9b::/96")
"""NAT64 (RFC 6052): an IPv4 address in another form."""

Address = IPv4Address | IPv6Address
Client = httpx.AsyncClient


class WebhookHosts:
    """Posts to endpoints that may be told.

    `hosts`: names, addresses or networks that may be told although they are not public, over http
    too.
    """

    def __init__(self, hosts: Sequence[str] = ()) -> None:
        self._hosts = frozenset(host.lower() for host in hosts if not _is_network(host))
        self._networks = [ip_network(host) for host in hosts if _is_network(host)]

    def may_be_told(self, endpoint: str) -> bool:
        """Tell whether an endpoint may be told, as far as the text tells."""
        parts = _parts(endpoint)
        return parts is not None and self._admits(parts, _literal(parts.hostname or ""))

    async def post(
        self, endpoint: str, body: bytes, headers: Mapping[str, str], client: Client
    ) -> str | None:
        """Send a body; return None where the endpoint took it, else why it did not.

        All of it, the name's look-up too, takes no longer than the client waits for one answer. Of the
        answer only the status is read.
        """
        parts = _parts(endpoint)
        if parts is None:
            return REFUSED
        try:
            async with asyncio.timeout(client.timeout.read):
                return await self._post(parts, httpx.URL(endpoint), body, headers, client)
        except TimeoutError:
            return "no answer in time"

    async def _post(
        self,
        parts: SplitResult,
        url: httpx.URL,
        body: bytes,
        headers: Mapping[str, str],
        client: Client,
    ) -> str | None:
        name = url.raw_host.decode("ascii")
        try:
            addresses = await _looked_up(name, parts.port or HTTPS_PORT)
        except OSError:
            return "unknown host"
        if not addresses or not all(self._admits(parts, address) for address in addresses):
            return REFUSED
        try:
            async with client.stream(
                "POST",
                url.copy_with(host=str(addresses[0])),
                content=body,
                headers={**headers, "Host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": name},  # what the certificate must name
            ) as response:
                return None if response.is_success else f"HTTP {response.status_code}"
        except httpx.HTTPError as error:
            return type(error).__name__

    def _admits(self, parts: SplitResult, address: Address | None) -> bool:
        """Tell whether an endpoint may be told at an address; None: it is not looked up yet."""
        host = (parts.hostname or "").lower()
        if host in self._hosts:
            return True
        if address is not None and any(address in network for network in self._networks):
            return True
        is_local = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
        is_public = not is_local if address is None else _is_public(address)
        return parts.scheme == "https" and is_public


def webhook_hosts(text: str) -> WebhookHosts:
    """Return what the setting says, hosts between commas."""
    return WebhookHosts([host.strip() for host in text.split(",") if host.strip()])


def open_client(answer_s_max: float) -> Client:
    """Return a client that delivers: no redirects, no proxies of the environment, bounded time."""
    return Client(timeout=answer_s_max, follow_redirects=False, trust_env=False)


def _parts(endpoint: str) -> SplitResult | None:
    """Return the parts of an address that can be posted to, None where it is none."""
    try:
        parts = urlsplit(endpoint)
        _port = parts.port
        httpx.URL(endpoint).raw_host.decode("ascii").encode("idna")  # as the look-up does
    except (ValueError, httpx.InvalidURL):
        return None
    if parts.username is not None or not parts.hostname or parts.scheme not in {"http", "https"}:
        return None
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


async def _looked_up(name: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [ip_address(str(address[0]).partition("%")[0]) for *_family, address in found]


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address.sixtofour or address.teredo or address in _TRANSLATED:
            return False  # whoever translates it may reach what we must not
    return address.is_global and not address.is_multicast


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True
