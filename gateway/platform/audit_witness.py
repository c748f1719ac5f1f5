"""The heads of the audit's chains, noted outside the database each second.

What was written since the last anchor can be cut off from a chain's end together with the chain's
head, and the chain is whole again. A note of the head tells of it. Notes are lines of one file,
HOME/audit/heads.jsonl, each signed with a key that is not in the database. A head stands for all
rows before it, so only the last note of each chain is needed, and the file is bounded.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.platform.secret_files import write_private

WITNESS_S = 1.0
"""How often a service notes the heads; rows that can be cut off unseen are no older."""
HEADS_BYTES_MAX = 1 << 20
"""A file of notes that is longer is written anew with the last of each chain."""

LINE_BYTES_MAX = 64 * 1024
"""No line of ours is longer: 64 heads of a hundred characters."""

Heads = Mapping[int, tuple[int, bytes]]
"""Chain -> number and hash of its last row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHeads:
    """Heads of chains at a moment, as they stand in a line of a file: chain -> [number, hash]."""

    at_us: int
    heads: Mapping[str, Sequence[Any]]
    mac: bytes

    def line(self) -> str:
        """Return the line, with its end."""
        fields = {"at_us": self.at_us, "heads": self.heads, "mac": self.mac.hex()}
        return f"{json.dumps(fields)}\n"

    def as_heads(self) -> Heads:
        """Return the heads with bytes as hashes."""
        return {
            int(chain): (seq, bytes.fromhex(hash_)) for chain, (seq, hash_) in self.heads.items()
        }


def text_heads(heads: Heads) -> dict[str, list[Any]]:
    """Return heads as JSON holds them."""
    return {str(chain): [seq, hash_.hex()] for chain, (seq, hash_) in heads.items()}


def mac_of(key: bytes, before: bytes, at_us: int, heads: Mapping[str, Sequence[Any]]) -> bytes:
    """Sign heads at a moment; `before` is what they continue."""
    text = json.dumps([at_us, heads], sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, before + text.encode(), "sha256")


def signed_lines(path: Path) -> Iterator[SignedHeads | int]:
    """Return the lines of a file, in place of one that is none its number.

    A last line without its end is left out: the process ended while it wrote.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.endswith("\n"):
            yield _of_line(line) or number


class Witness:
    """Notes heads in FOLDER/heads.jsonl; processes with the same folder take turns."""

    def __init__(self, key: bytes, folder: Path) -> None:
        self._key = key
        self._folder = folder
        self._file = folder / "heads.jsonl"
        self._last: dict[int, tuple[int, bytes]] | None = None

    def note(self, heads: Heads) -> list[int]:
        """Note the heads that moved; return the chains that went back, which no chain does."""
        if self._last is None:
            self._last = self.noted()[0]
        last = self._last
        moved = {chain: head for chain, head in heads.items() if last.get(chain, (0, b"")) != head}
        if not moved:
            return []
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with turn(self._folder):
            if append_line(self._file, self._signed(moved).line()) > HEADS_BYTES_MAX:
                self._shorten()
        went_back = [chain for chain, head in moved.items() if head[0] <= last.get(chain, (0,))[0]]
        self._last = {**last, **moved}
        return went_back

    def noted(self) -> tuple[dict[int, tuple[int, bytes]], int | None]:
        """Return the highest head noted of each chain, and the first line that is forged."""
        heads: dict[int, tuple[int, bytes]] = {}
        forged = None
        for number, line in enumerate(signed_lines(self._file), 1):
            if isinstance(line, int) or not self._is_ours(line):
                forged = forged or number
                continue
            for chain, head in line.as_heads().items():
                if head[0] > heads.get(chain, (0,))[0]:
                    heads[chain] = head
        return heads, forged

    def _signed(self, heads: Heads) -> SignedHeads:
        at_us = round(datetime.now(UTC).timestamp() * 1_000_000)
        text = text_heads(heads)
        return SignedHeads(at_us=at_us, heads=text, mac=mac_of(self._key, _BEFORE, at_us, text))

    def _is_ours(self, line: SignedHeads) -> bool:
        return hmac.compare_digest(mac_of(self._key, _BEFORE, line.at_us, line.heads), line.mac)

    def _shorten(self) -> None:
        heads, forged = self.noted()
        if forged is None:  # else it stays as it is, for whoever looks into it
            write_private(self._file, self._signed(heads).line().encode("ascii"))


_BEFORE = b"witness"
"""Keeps a note from passing for an anchor, which the same key signs."""


def _of_line(line: str) -> SignedHeads | None:
    try:
        fields = json.loads(line)
        signed = SignedHeads(
            at_us=fields["at_us"], heads=fields["heads"], mac=bytes.fromhex(fields["mac"])
        )
        signed.as_heads()
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return signed


def append_line(path: Path, line: str) -> int:
    """Append a line to a file whose turn one has; return how long the file is.

    What a full disk or the end of a process left of a line before goes: it would spoil this one too.
    """
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - LINE_BYTES_MAX, 0))
        torn = file.read().rpartition(b"\n")[2]
        file.truncate(size - len(torn))
        file.write(line.encode("ascii"))
        return file.seek(0, os.SEEK_END)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Hold a folder's turn: others who want it, in this process or another, wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
