"""Where a request comes from: whom one may believe about that."""

from __future__ import annotations

import pytest

from api.origin import origin_of, trusted_proxies
from gateway.errors import UsageError


def test_proxies_are_addresses_and_networks_between_commas() -> None:
    assert trusted_proxies(" 127.0.0.1, 10.0.3.0/24,2001:db8::/32 ,") == [
        "127.0.0.1",
        "10.0.3.0/24",
        "2001:db8::/32",
    ]
    assert trusted_proxies("") == []


@pytest.mark.parametrize("text", ["*", "proxy.clinic.local", "10.0.3.1/24", "127.0.0.1;10.0.0.1"])
def test_a_proxy_that_anybody_could_claim_to_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HEARTH_API_TRUSTED_PROXIES"):
        trusted_proxies(text)


@pytest.mark.parametrize(
    ("client", "origin"),
    [
        (("198.51.100.7", 4711), "198.51.100.7"),
        (("2001:DB8:0::1", 0), "2001:db8::1"),
        (("unknown", 0), None),
        (None, None),
    ],
)
def test_an_origin_is_an_address_or_nothing(
    client: tuple[str, int] | None, origin: str | None
) -> None:
    assert origin_of({"client": client}) == origin
