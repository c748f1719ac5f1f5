"""What is kept encrypted: AES-256-GCM (NIST SP 800-38D) of `cryptography`, a random nonce in front."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
"""Random: SP 800-38D, 8.2.2; so one key seals fewer than 2^32 contents."""


def seal(key: AESGCM, content: bytes, bound_to: bytes) -> bytes:
    """Return content sealed; what it is bound to must be said again to open it."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.encrypt(nonce, content, bound_to)


def unseal(key: AESGCM, sealed: bytes, bound_to: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        InvalidTag: by another key, or bound to something else.
        ValueError: it is too short to be sealed.
    """
    return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
