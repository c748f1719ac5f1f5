"""The secrets that notifications are signed with, and where these may go (gateway.platform.webhook_hosts).

Secrets are sealed (gateway.platform.sealed), each bound to its subscription; the key is
HOME/secrets/webhook_key and not in the database.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import UsageError
from gateway.platform.sealed import seal, unseal
from gateway.platform.secret_files import secret
from gateway.platform.webhook_hosts import WebhookHosts, webhook_hosts


class Webhooks:
    """Seals secrets; `hosts` says which endpoints may be told."""

    def __init__(self, key: bytes, hosts: WebhookHosts) -> None:
        self._cipher = AESGCM(key)
        self.hosts = hosts

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


def open_webhooks(home: Path, hosts: str) -> Webhooks:
    """Return the webhooks of a home; its key is made at the first call. `hosts`: between commas."""
    key = hashlib.sha256(secret(home, "webhook_key").encode()).digest()
    return Webhooks(key, webhook_hosts(hosts))
