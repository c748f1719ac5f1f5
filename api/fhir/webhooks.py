"""Where notifications may go, and the secrets that they are signed with.

An endpoint is named by whoever subscribes, so it must not become a way into the network that the API
stands in (OWASP SSRF Prevention Cheat Sheet): only https, only addresses of the public internet (IANA
special-purpose registries, as `ipaddress` has them), looked up by us and connected to as looked up, so
that a name cannot change in between. A setting names the hosts that are exempt.

Secrets are sealed (gateway.platform.sealed), each bound to its subscription; the key is
HOME/secrets/webhook_key and not in the database.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import httpx
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.fhir.vocabulary import MEDIA_TYPE
from gateway.errors import UsageError
from gateway.platform.sealed import seal, unseal
from gateway.platform.secret_files import secret

_TRANSLATED = ip_network("64:ff9b::/96")
"""NAT64 (RFC 6052): an IPv4 address in another form."""

Address = IPv4Address | IPv6Address


class Webhooks:
    """Seals secrets, and posts notifications to endpoints that may be told.

    `hosts`: names, addresses or networks that may be told although they are not public, over http
    too.
    """

    def __init__(self, key: bytes, hosts: Sequence[str] = ()) -> None:
        self._cipher = AESGCM(key)
        self._hosts = frozenset(host.lower() for host in hosts if not _is_network(host))
        self._networks = [ip_network(host) for host in hosts if _is_network(host)]

    def seal(self, subscription: UUID, secret_: str) -> bytes:
        """Encrypt a secret for one subscription; in another's row it does not open."""
        return seal(self._cipher, secret_.encode(), subscription.bytes)

    def open(self, subscription: UUID, sealed: bytes) -> str:
        """Return the secret.

        Raises:
            UsageError: the key is another than the one it was sealed with.
        """
        try:
            return unseal(self._cipher, sealed, subscription.bytes).decode()
        except InvalidTag as error:
            raise UsageError(
                "密钥不符 / secrets/webhook_key is not the one that the secrets of subscriptions were "
                "sealed with: 请恢复该文件 / restore it, or let subscribers subscribe again"
            ) from error

    def may_be_told(self, endpoint: str) -> bool:
        """Tell whether notifications may go there, as far as the text tells."""
        parts = _parts(endpoint)
        return parts is not None and self._admits(parts, _literal(parts.hostname or ""))

    async def post(self, endpoint: str, body: bytes, signature_: str, client: Client) -> str | None:
        """Send a notification; return None where the endpoint took it, else why it did not."""
        parts = _parts(endpoint)
        if parts is None:
            return "endpoint not allowed"
        try:
            addresses = await _looked_up(parts)
        except OSError:
            return "unknown host"
        if not addresses or not all(self._admits(parts, address) for address in addresses):
            return "endpoint not allowed"
        headers = {
            "Content-Type": MEDIA_TYPE,
            "Host": parts.netloc,
            "X-Hearth-Signature": signature_,
        }
        url = httpx.URL(endpoint).copy_with(host=str(addresses[0]))
        named = {"sni_hostname": parts.hostname}  # what the certificate must name
        try:
            response = await client.post(url, content=body, headers=headers, extensions=named)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__
        return None if response.is_success else f"HTTP {response.status_code}"

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


Client = httpx.AsyncClient


def open_webhooks(home: Path, hosts: str) -> Webhooks:
    """Return the webhooks of a home; its key is made at the first call. `hosts`: between commas."""
    key = hashlib.sha256(secret(home, "webhook_key").encode()).digest()
    return Webhooks(key, [host.strip() for host in hosts.split(",") if host.strip()])


def _parts(endpoint: str) -> SplitResult | None:
    try:
        parts = urlsplit(endpoint)
        _port = parts.port
    except ValueError:
        return None
    if parts.username is not None or not parts.hostname or parts.scheme not in {"http", "https"}:
        return None
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


async def _looked_up(parts: SplitResult) -> list[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
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
