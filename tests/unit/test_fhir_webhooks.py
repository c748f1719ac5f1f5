"""The secrets of FHIR subscriptions are sealed, each for its own."""

from __future__ import annotations

from uuid import UUID

import pytest

from api.fhir.webhooks import Webhooks
from gateway.errors import UsageError
from gateway.platform.webhook_hosts import WebhookHosts

OURS, ANOTHERS = Webhooks(bytes(32), WebhookHosts()), Webhooks(b"1" * 32, WebhookHosts())


def test_a_secret_opens_for_its_subscription_and_by_its_key_only() -> None:
    one, other = UUID(int=1), UUID(int=2)
    sealed = OURS.seal(one, "a secret")
    assert b"a secret" not in sealed
    assert OURS.open(one, sealed) == "a secret"
    for webhooks, subscription in ((OURS, other), (ANOTHERS, one)):
        with pytest.raises(UsageError):
            webhooks.open(subscription, sealed)
