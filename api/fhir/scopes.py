"""SMART App Launch 2 scopes: what a token may read of what. smarthealthit.org, scopes and launch context.

`patient/Observation.rs`, `system/Observation.rs?category=vital-signs`: a compartment, a resource, the
letters of what may be done (c r u d s), and a query that narrows it. A token without such scopes is
held to its role alone; one with them to both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from api.fhir.parts import PARTS, Part
from api.fhir.tokens import Token, parse_token, part_has_category, part_has_code

_SCOPE = re.compile(
    r"(?P<who>patient|user|system)/(?P<resource>\*|[A-Z][A-Za-z]+)\."
    r"(?P<may>c?r?u?d?s?|read|write|\*)(?:\?(?P<query>.+))?"
)
_VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}
"""How the scopes of SMART 1 are understood (SMART 2, "scopes for requesting FHIR resources")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One resource scope. `queries`: (name, tokens) pairs, all of which must hold."""

    who: str
    resource: str
    may: str
    queries: tuple[tuple[str, tuple[Token, ...]], ...] = ()


def parse_scopes(scopes: Iterable[str]) -> list[Scope]:
    """Return the resource scopes among a token's scopes.

    One that narrows by what nobody here knows grants nothing and is left out.
    """
    parsed = []
    for text in scopes:
        match = _SCOPE.fullmatch(text)
        if match is None or not match["may"]:
            continue
        queries = []
        for name, value in parse_qsl(match["query"] or "", keep_blank_values=True):
            if name not in {"category", "code"}:
                break
            queries.append((name, tuple(parse_token(part) for part in value.split(","))))
        else:
            parsed.append(
                Scope(
                    who=match["who"],
                    resource=match["resource"],
                    may=_VERSION_1.get(match["may"], match["may"]),
                    queries=tuple(queries),
                )
            )
    return parsed


def says_anything(scopes: Iterable[str]) -> bool:
    """Tell whether a token is held to SMART scopes at all."""
    return any(_SCOPE.fullmatch(text) for text in scopes)


def allows(scopes: Sequence[Scope], resource: str, may: str) -> bool:
    """Tell whether a token may do something with a resource of some kind."""
    return any(scope.resource in {"*", resource} and may in scope.may for scope in scopes)


def parts_allowed(scopes: Sequence[Scope], may: str) -> tuple[Part, ...]:
    """Return the kinds of Observation that a token may read or search."""
    granting = [
        scope for scope in scopes if scope.resource in {"*", "Observation"} and may in scope.may
    ]
    return tuple(part for part in PARTS if any(_admits(scope, part) for scope in granting))


def _admits(scope: Scope, part: Part) -> bool:
    tests = {"category": part_has_category, "code": part_has_code}
    return all(any(tests[name](part, token) for token in tokens) for name, tokens in scope.queries)
