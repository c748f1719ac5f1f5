"""Payload bytes and their values from outside: a file a sign, and primitives.json for what all share.

A sign's file says which name of the sources is which quantity, so that a new sign brings its vectors
and no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.vitals import BY_NAME

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """`expect`: values by the source's names; an `error` where the payload must be refused."""

    id: str
    payload: bytes
    expect: dict[str, Any]
    sign: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the sources of a sign call its quantities and units."""

    values: dict[str, str]
    units: tuple[str, ...]


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def _vectors(document: dict[str, Any]) -> list[Vector]:
    return [
        Vector(
            id=entry["id"],
            payload=bytes.fromhex(entry["hex"]),
            expect=entry["expect"],
            sign=document.get("sign", ""),
            format=entry.get("format", ""),
        )
        for entry in document["vectors"]
    ]


_DOCUMENTS = {name: _read(name) for name in BY_NAME}
WORDS = {
    name: Words(values=document["values"], units=tuple(document["units"]))
    for name, document in _DOCUMENTS.items()
}
SIGN_VECTORS = [vector for document in _DOCUMENTS.values() for vector in _vectors(document)]
PRIMITIVES = _vectors(_read("primitives"))
