"""Bundles, joined from bytes that are JSON already. FHIR R4, Bundle and search, 3.1.1.6."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import orjson

from api.fhir.resources import instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One resource of a bundle; `json` is its text, `mode` why it is there."""

    url: str
    json: bytes
    mode: str = "match"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How to come to another page, or to this one again."""

    relation: str
    url: str


def bundle(
    entries: Iterable[Entry],
    *,
    links: Sequence[Link],
    total: int | None,
    now: datetime,
    kind: str = "searchset",
) -> bytes:
    """Return a bundle's text."""
    head = {
        "resourceType": "Bundle",
        "id": str(uuid4()),
        "meta": {"lastUpdated": instant(now)},
        "type": kind,
        **({} if total is None else {"total": total}),
        "link": [{"relation": link.relation, "url": link.url} for link in links],
    }
    body = b",".join(
        b'{"fullUrl":%b,"resource":%b,"search":{"mode":"%b"}}'
        % (orjson.dumps(entry.url), entry.json, entry.mode.encode())
        for entry in entries
    )
    text = orjson.dumps(head)
    return b'%b,"entry":[%b]}' % (text[:-1], body) if body else text
