"""Facts of the simulation as TOML, read into frozen dataclasses; a wrong file names its key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from gateway.errors import UsageError

FOLDER = Path(__file__).parent
T = TypeVar("T")

exact = with_config(ConfigDict(extra="forbid"))
"""Decorates a dataclass that is read from a file: a key it does not know is an error."""


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file as a `kind`.

    Raises:
        UsageError: it cannot be read, or says something wrong; the text names file and key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(kind).validate_python(content)
    except OSError as error:
        raise UsageError(f"无法读取 / cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: 不是有效的 TOML / is no TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise UsageError(f"{path}: 内容有误 / is wrong: {faults}") from error
