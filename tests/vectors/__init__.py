"""Payload bytes and their values from outside, each with its source (gatt.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Vector:
    id: str
    format: str
    payload: bytes
    expect: dict[str, Any]


def _load() -> list[Vector]:
    document = json.loads((Path(__file__).parent / "gatt.json").read_text())
    return [
        Vector(v["id"], v["format"], bytes.fromhex(v["hex"]), v["expect"])
        for v in document["vectors"]
    ]


VECTORS: list[Vector] = _load()
