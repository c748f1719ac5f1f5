"""What proves to a receiver that a webhook comes from here, and when it was sent. HMAC, RFC 2104.

The signature is of timestamp and body, so that a recorded delivery cannot be sent again later.
"""

from __future__ import annotations

import hashlib
import hmac
import time


def signature(key: str, body: bytes, at_s: int | None = None) -> str:
    """Return t=UNIX_SECONDS,v1=HEX, v1 = HMAC-SHA-256(key, t + "." + body); `at_s` None: now."""
    at_s = int(time.time()) if at_s is None else at_s
    digest = hmac.new(key.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"
