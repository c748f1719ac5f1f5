"""The one door to the audit: who did what to whose data, in the transaction that does it.

An act that cannot be audited does not happen, because both commit together or not at all. Rows are
chained by hashes in the database (audit_append); here the chains' heads are anchored under a key
that is not in the database, and all is verified: what a row's hash covers is hashed again, outside.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.platform.postgres import (
    AsyncConnection,
    Connection,
    Jsonb,
    TupleRow,
    class_row,
    load_queries,
    translated,
)
from gateway.platform.secret_files import secret

KEPT_DAYS_MIN = 183
"""Nothing younger is pruned (Cybersecurity Law, article 21 (3): at least six months)."""
ANCHOR_S = 300.0
"""How often a service anchors; what a forger could cut off unseen is no older."""
_FETCH_ROWS = 5_000
"""So many rows are held in memory while the audit is verified."""
_QUERIES = load_queries(Path(__file__).parent / "sql" / "audit.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One act. `actor`: user:ID, cli:LOGIN or service:NAME; `action`: noun.verb.

    `resident_id` is the store's key of the resident whose data it touches, None where it touches
    nobody's. `detail` holds opaque ids and counts, never a value, a name or a number of a person.
    """

    actor: str
    action: str
    resident_id: int | None = None
    reason: str | None = None
    origin: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """A row of the audit as it is listed; `resident` is the public id."""

    at: datetime
    actor: str
    action: str
    resident: str | None
    reason: str | None
    origin: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """The first row of a chain that is not as it was written; `audit_id` None: it is gone."""

    what: str
    chain: int
    seq: int
    audit_id: int | None

    def __str__(self) -> str:
        row = "" if self.audit_id is None else f"audit_id {self.audit_id}, "
        return f"{row}chain {self.chain}, number {self.seq}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What `verify` found; `damage` the first damaged row of each chain, the earliest first."""

    rows: int
    anchors: int
    damage: Sequence[Damage]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchor:
    at_us: int
    heads: Mapping[str, Sequence[Any]]
    mac: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What an anchor knows of one row."""

    hash: bytes
    at_us: int


def command_actor() -> tuple[str, str]:
    """Return (actor, origin) of whoever runs this command: cli:LOGIN and the machine's name."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        login = "unknown"  # no entry in the user database, no variable: a container
    return f"cli:{login}", socket.gethostname()


async def write_audit(connection: AsyncConnection, events: Sequence[AuditEvent]) -> None:
    """Write events in the connection's open transaction."""
    if events:
        await connection.execute(_QUERIES["write"], _columns(events))


def write_audit_blocking(connection: Connection, events: Sequence[AuditEvent]) -> None:
    """Write events in the connection's open transaction."""
    if events:
        connection.execute(_QUERIES["write"], _columns(events))


def list_audit(
    connection: Connection, *, resident: str | None, limit: int | None
) -> list[AuditRecord]:
    """Return what was done, the latest first; to one resident's data where given."""
    with translated(), connection.cursor(row_factory=class_row(AuditRecord)) as cursor:
        parameters = {"resident": resident, "limit": limit}
        return cursor.execute(_QUERIES["list"], parameters).fetchall()


class Notary:
    """Anchors the chains: their heads under HOME/secrets/audit_key, in the database and in a file.

    Each anchor's code covers the one before it, so none can be taken out of the middle; the file
    (HOME/audit/anchors.jsonl, to be kept elsewhere too) tells of those that are gone from the end.
    """

    def __init__(self, home: Path) -> None:
        self._key = secret(home, "audit_key").encode()
        self._file = home / "audit" / "anchors.jsonl"

    def anchor(self, connection: Connection) -> int:
        """Anchor the heads that moved; return how many did."""
        with translated(), connection.transaction():
            connection.execute(_QUERIES["lock_anchors"])
            anchors = list(_anchors(connection))
            known = _heads_of(anchors)
            moved = {
                str(chain): [seq, bytes(hash_).hex()]
                for chain, seq, hash_ in connection.execute(_QUERIES["heads"])
                if known.get(chain, (0, ""))[0] != seq
            }
            if not moved:
                return 0
            at = datetime.now(UTC)
            previous = anchors[-1].mac if anchors else b""
            mac = self._mac(previous, _microseconds(at), moved)
            connection.execute(
                _QUERIES["add_anchor"], {"at": at, "heads": Jsonb(moved), "mac": mac}
            )
        self._note(_microseconds(at), moved, mac)
        return len(moved)

    def verify(self, connection: Connection) -> Verified:
        """Hash every row again, follow every chain, and hold the chains against all anchors.

        It sees one moment, in a transaction of its own: one that is open on the connection is
        committed first.
        """
        connection.commit()
        with translated(), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            anchors = list(_anchors(connection))
            forged = self._first_forged(anchors)
            heads = {
                chain: (seq, bytes(hash_))
                for chain, seq, hash_ in connection.execute(_QUERIES["heads"])
            }
            begins = {
                chain: (seq, bytes(hash_))
                for chain, seq, hash_ in connection.execute(_QUERIES["pruned"])
            }
            marks = _marks(anchors)
            for chain, of_file in _marks(self._noted()).items():
                marks[chain] = of_file | marks.get(chain, {})
            with connection.cursor(name="verify") as rows:
                rows.itersize = _FETCH_ROWS
                rows.execute(_QUERIES["rows"])
                count, damage = _followed(rows, heads, begins, marks)
            damage += _pruned_too_much(begins, marks, datetime.now(UTC))
        if forged is not None:
            damage = [forged, *damage]
        return Verified(rows=count, anchors=len(anchors), damage=damage)

    def prune(self, connection: Connection, before: datetime) -> int:
        """Remove whole segments that are anchored and older than `before`; return how many rows."""
        with translated(), connection.transaction():
            connection.execute(_QUERIES["lock_anchors"])
            ends: dict[int, tuple[int, str]] = {}
            for anchor in _anchors(connection):
                if anchor.at_us >= _microseconds(before):
                    break
                ends |= {int(chain): (seq, hash_) for chain, (seq, hash_) in anchor.heads.items()}
            for chain, (seq, hash_) in ends.items():
                parameters = {"chain": chain, "seq": seq, "hash": bytes.fromhex(hash_)}
                connection.execute(_QUERIES["mark_pruned"], parameters)
            return connection.execute(_QUERIES["prune"]).rowcount

    def _mac(self, previous: bytes, at_us: int, heads: Mapping[str, Sequence[Any]]) -> bytes:
        text = json.dumps([at_us, heads], sort_keys=True, separators=(",", ":"))
        return hmac.digest(self._key, previous + text.encode(), "sha256")

    def _first_forged(self, anchors: Iterable[_Anchor]) -> Damage | None:
        previous = b""
        for number, anchor in enumerate(anchors, 1):
            expected = self._mac(previous, anchor.at_us, anchor.heads)
            if not hmac.compare_digest(expected, anchor.mac):
                return Damage(
                    what="an anchor is forged or gone", chain=-1, seq=number, audit_id=None
                )
            previous = anchor.mac
        return None

    def _note(self, at_us: int, heads: Mapping[str, Sequence[Any]], mac: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = json.dumps({"at_us": at_us, "heads": heads, "mac": mac.hex()})
        with self._file.open("a", encoding="ascii") as file:
            file.write(f"{line}\n")

    def _noted(self) -> Iterator[_Anchor]:
        try:
            text = self._file.read_text(encoding="ascii")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            noted = json.loads(line)
            yield _Anchor(
                at_us=noted["at_us"], heads=noted["heads"], mac=bytes.fromhex(noted["mac"])
            )


def _followed(
    rows: Iterable[TupleRow],
    heads: Mapping[int, tuple[int, bytes]],
    begins: Mapping[int, tuple[int, bytes]],
    marks: Mapping[int, Mapping[int, _Mark]],
) -> tuple[int, list[Damage]]:
    """Follow every chain through the rows, which stand in the order (chain, seq)."""
    at = {chain: begins.get(chain, (0, b"")) for chain in heads}
    damage: dict[int, Damage] = {}
    last_id: dict[int, int] = {}
    count = 0
    for chain, seq, audit_id, hash_, text in rows:
        count += 1
        if chain in damage or seq <= begins.get(chain, (0, b""))[0]:
            continue
        last_id[chain] = audit_id
        last_seq, last_hash = at[chain]
        what = _wrong(last_hash, text, bytes(hash_), marks.get(chain, {}).get(seq))
        if seq != last_seq + 1:
            what = f"removed; the next row there is audit_id {audit_id}"
            damage[chain] = Damage(what=what, chain=chain, seq=last_seq + 1, audit_id=None)
        elif what is not None:
            damage[chain] = Damage(what=what, chain=chain, seq=seq, audit_id=audit_id)
        at[chain] = (seq, bytes(hash_))
    for chain, head in heads.items():
        end = max([head[0], *marks.get(chain, {})])
        if chain in damage:
            continue
        if at[chain][0] < end:
            what, seq = "removed from the end", at[chain][0] + 1
        elif at[chain] != head:
            what, seq = "the chain's head was changed", head[0]
        else:
            continue
        damage[chain] = Damage(what=what, chain=chain, seq=seq, audit_id=None)
    return count, sorted(damage.values(), key=lambda one: (last_id.get(one.chain, 0), one.chain))


def _wrong(last_hash: bytes, text: str, hash_: bytes, mark: _Mark | None) -> str | None:
    """Return what is wrong with a row; None: nothing."""
    if hashlib.sha256(last_hash + text.encode()).digest() != hash_:
        return "changed"
    if mark is not None and mark.hash != hash_:
        return "written anew: an anchor knows another"
    return None


def _anchors(connection: Connection) -> Iterator[_Anchor]:
    for at, heads, mac in connection.execute(_QUERIES["anchors"]):
        yield _Anchor(at_us=_microseconds(at), heads=heads, mac=bytes(mac))


def _heads_of(anchors: Iterable[_Anchor]) -> dict[int, tuple[int, str]]:
    heads: dict[int, tuple[int, str]] = {}
    for anchor in anchors:
        heads |= {int(chain): (seq, hash_) for chain, (seq, hash_) in anchor.heads.items()}
    return heads


def _marks(anchors: Iterable[_Anchor]) -> dict[int, dict[int, _Mark]]:
    """Return what anchors say: chain -> number -> mark."""
    marks: dict[int, dict[int, _Mark]] = {}
    for anchor in anchors:
        for chain, (seq, hash_) in anchor.heads.items():
            mark = _Mark(hash=bytes.fromhex(hash_), at_us=anchor.at_us)
            marks.setdefault(int(chain), {}).setdefault(seq, mark)
    return marks


def _pruned_too_much(
    begins: Mapping[int, tuple[int, bytes]],
    marks: Mapping[int, Mapping[int, _Mark]],
    now: datetime,
) -> list[Damage]:
    """Return the chains that begin where no old enough anchor lets them."""
    latest_us = _microseconds(now - timedelta(days=KEPT_DAYS_MIN))
    return [
        Damage(what="removed, and no old anchor lets it go", chain=chain, seq=seq, audit_id=None)
        for chain, (seq, hash_) in begins.items()
        if (mark := marks.get(chain, {}).get(seq)) is None
        or mark.hash != hash_
        or mark.at_us > latest_us
    ]


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _columns(events: Sequence[AuditEvent]) -> dict[str, list[Any]]:
    return {
        "actor": [event.actor for event in events],
        "action": [event.action for event in events],
        "resident_id": [event.resident_id for event in events],
        "reason": [event.reason for event in events],
        "origin": [event.origin for event in events],
        "detail": [Jsonb(dict(event.detail)) for event in events],
    }
