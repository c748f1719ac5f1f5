"""SQL in files: each statement begins with a line "-- name: ..." and says what it does."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)\n", re.MULTILINE)


def load_statements(path: Path) -> dict[str, str]:
    """Return the statements of a file by name, in its order; what precedes the first is prose."""
    _head, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    return dict(zip(parts[::2], parts[1::2], strict=True))
