"""Token parameters: `code`, `system|code`, `|code`, `system|`. FHIR R4, search, 3.1.1.4.10."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api.fhir.parts import Coding, Kind, Part, quantity_codings

_SPLIT_COMMA = re.compile(r"(?<!\\),")
_SPLIT_BAR = re.compile(r"(?<!\\)\|")
_ESCAPED = re.compile(r"\\([\\,|$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a coding is compared with; None: any. An empty system: none may be given."""

    system: str | None
    code: str | None

    def matches(self, coding: Coding) -> bool:
        """Tell whether a coding is meant."""
        return self.system in {None, coding.system} and self.code in {None, coding.code}


def alternatives(text: str) -> list[str]:
    """Return what stands between the commas of a parameter, its escapes still in it."""
    return _SPLIT_COMMA.split(text)


def unescaped(text: str) -> str:
    r"""Return a value without FHIR's escapes (\, \| \$ \\)."""
    return _ESCAPED.sub(r"\1", text)


def parse_token(text: str) -> Token:
    """Return a token parameter's meaning."""
    system, *rest = _SPLIT_BAR.split(text, maxsplit=1)
    if not rest:
        return Token(system=None, code=unescaped(system))
    return Token(system=unescaped(system), code=unescaped(rest[0]) or None)


def parse_tokens(text: str) -> list[Token]:
    """Return the alternatives of a token parameter."""
    return [parse_token(part) for part in alternatives(text)]


def part_has_code(part: Part, token: Token) -> bool:
    """Tell whether an Observation's own code is meant (`code`)."""
    return _any(part.codes, token)


def part_has_component_code(part: Part, token: Token) -> bool:
    """Tell whether the code of one of its components is meant (`component-code`)."""
    if part.kind is not Kind.PANEL:
        return False
    members = (part.sign.quantities[place] for place in part.places)
    return any(_any(quantity_codings(quantity), token) for quantity in members)


def part_has_any_code(part: Part, token: Token) -> bool:
    """Tell whether its own or a component's code is meant (`combo-code`)."""
    return part_has_code(part, token) or part_has_component_code(part, token)


def part_has_category(part: Part, token: Token) -> bool:
    """Tell whether a category is meant (`category`)."""
    return _any(part.categories, token)


def places_with_code(part: Part, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Return the part's quantities that are meant: all by the part's own code, else those coded so."""
    if any(part_has_code(part, token) for token in tokens):
        return part.places
    members = ((place, part.sign.quantities[place]) for place in part.places)
    return tuple(
        place
        for place, quantity in members
        if any(_any(quantity_codings(quantity), token) for token in tokens)
    )


def _any(codes: Iterable[Coding], token: Token) -> bool:
    return any(token.matches(code) for code in codes)
