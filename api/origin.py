"""Where a request comes from, which the audit keeps: the connection's other end, or who a proxy says.

X-Forwarded-For is believed of the proxies that the settings name and of nobody else, from its end on: the
first address in it that is no proxy of ours. uvicorn reads it (`uvicorn.middleware.proxy_headers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from gateway.errors import UsageError


def trusted_proxies(text: str) -> Sequence[str]:
    """Return the addresses and networks of HEARTH_API_TRUSTED_PROXIES, which stand between commas.

    Raises:
        UsageError: one is neither; a name would be believed of whoever claims it.
    """
    proxies = [part.strip() for part in text.split(",") if part.strip()]
    for proxy in proxies:
        try:
            ip_network(proxy)
        except ValueError as error:
            raise UsageError(
                f"HEARTH_API_TRUSTED_PROXIES: {proxy!r} 不是地址或网段 / is no address and no network, such "
                "as 127.0.0.1 or 10.0.3.0/24"
            ) from error
    return proxies


def origin_of(scope: Mapping[str, Any]) -> str | None:
    """Return the address that a request (its ASGI scope) comes from; None: nobody says one."""
    client = scope.get("client")
    if client is None:
        return None
    try:
        return str(ip_address(client[0]))
    except ValueError:  # of a proxy of ours, which passed on what is no address
        return None
