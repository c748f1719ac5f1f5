"""Bundles, joined from texts that are JSON already. FHIR R4, Bundle and search, 3.1.1.6."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from api.fhir.resources import instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One resource of a bundle; `json` is its text, `mode` why it is there."""

    url: str
    json: str
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
) -> str:
    """Return a bundle's text."""
    head = {
        "resourceType": "Bundle",
        "id": str(uuid4()),
        "meta": {"lastUpdated": instant(now)},
        "type": kind,
        **({} if total is None else {"total": total}),
        "link": [{"relation": link.relation, "url": link.url} for link in links],
    }
    body = ",".join(
        f'{{"fullUrl":{json.dumps(entry.url)},"resource":{entry.json},'
        f'"search":{{"mode":"{entry.mode}"}}}}'
        for entry in entries
    )
    text = json.dumps(head, separators=(",", ":"))
    return f'{text[:-1]},"entry":[{body}]}}' if body else text
