"""The one door to the audit: who did what to whose data, in the transaction that does it.

An act that cannot be audited does not happen, because both commit together or not at all. Rows are
chained by hashes in the database (audit_append); here the chains' heads are anchored under a key
that is not in the database, and all is verified: what a row's hash covers is hashed again, outside.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.platform.audit_witness import (
    Heads,
    SignedHeads,
    Witness,
    append_line,
    mac_of,
    signed_lines,
    text_heads,
    turn,
)
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
"""How often a service anchors; in between it notes the heads (gateway.platform.audit_witness)."""
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
    """What `verify` found; `damage` the first damaged row of each chain, the earliest first.

    `unwitnessed` counts the rows that neither an anchor nor a note knows of yet: the newest, which
    could be cut off unseen.
    """

    rows: int
    anchors: int
    unwitnessed: int
    damage: Sequence[Damage]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What an anchor or a note knows of one row."""

    hash: bytes
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchored:
    """What the anchors up to one say: its number and code, the last head of each chain."""

    number: int = 0
    mac: bytes = b""
    heads: Heads = field(default_factory=dict)


_NOTHING = (0, b"")
"""Where a chain begins that was not pruned."""


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


def audit_command(
    connection: Connection,
    action: str,
    residents: Iterable[int | None] = (None,),
    *,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write what a command does, in the open transaction: to residents (keys of the store), or to nobody's data."""
    actor, origin = command_actor()
    events = [
        AuditEvent(
            actor=actor,
            action=action,
            resident_id=resident,
            reason=reason,
            origin=origin,
            detail=detail or {},
        )
        for resident in residents
    ]
    write_audit_blocking(connection, events)


def audit_shown(
    connection: Connection, action: str, residents: Iterable[UUID] | None = None
) -> None:
    """Write of whom (public ids) a command shows something; None: no one in particular."""
    if residents is None:
        audit_command(connection, action)
    else:
        shown = {"residents": list(dict.fromkeys(residents))}
        keys = connection.execute(_QUERIES["keys_of"], shown).fetchall()
        audit_command(connection, action, (key for (key,) in keys))


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
    Between two anchors the heads are noted in a file beside it, much more often.
    """

    def __init__(self, home: Path) -> None:
        self._key = secret(home, "audit_key").encode()
        self._file = home / "audit" / "anchors.jsonl"
        self._witness = Witness(self._key, home / "audit")
        self._anchored = _Anchored()

    def witness(self, connection: Connection) -> list[int]:
        """Note the heads outside the database; return the chains that went back: were cut off."""
        with translated(), connection.transaction():
            heads = _heads(connection)
        return self._witness.note(heads)

    def anchor(self, connection: Connection) -> int:
        """Anchor the heads that moved; return how many did."""
        with translated(), connection.transaction():
            connection.execute(_QUERIES["lock_anchors"])
            self._anchored = _anchored_since(connection, self._anchored)
            moved = text_heads(
                {
                    chain: (seq, hash_)
                    for chain, (seq, hash_) in _heads(connection).items()
                    if self._anchored.heads.get(chain, (0, b""))[0] != seq
                }
            )
            if not moved:
                return 0
            at = datetime.now(UTC)
            mac = mac_of(self._key, self._anchored.mac, _microseconds(at), moved)
            connection.execute(
                _QUERIES["add_anchor"], {"at": at, "heads": Jsonb(moved), "mac": mac}
            )
        self._note(SignedHeads(at_us=_microseconds(at), heads=moved, mac=mac))
        return len(moved)

    def verify(self, connection: Connection) -> Verified:
        """Hash every row again, follow every chain, and hold the chains against all that is known.

        It sees one moment, in a transaction of its own: one that is open on the connection is
        committed first. The files are read before it: what they know of was committed by then.
        """
        connection.commit()
        witnessed, forged_note = self._witness.noted()
        in_file = list(signed_lines(self._file))
        with translated(), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            anchors = list(_anchors(connection))
            heads = _heads(connection)
            begins = {
                chain: (seq, bytes(hash_))
                for chain, seq, hash_ in connection.execute(_QUERIES["pruned"])
            }
            anchored = _marks([*anchors, *(line for line in in_file if not isinstance(line, int))])
            marks = _with_notes(anchored, witnessed)
            with connection.cursor(name="verify") as rows:
                rows.itersize = _FETCH_ROWS
                rows.execute(_QUERIES["rows"])
                count, unwitnessed, damage = _followed(rows, heads, begins, marks)
        damage += _pruned_too_much(begins, anchored, datetime.now(UTC))
        damage = [*self._forged(anchors), *damage, *_forged_files(in_file, anchors, forged_note)]
        return Verified(rows=count, anchors=len(anchors), unwitnessed=unwitnessed, damage=damage)

    def prune(self, connection: Connection, before: datetime) -> int:
        """Remove whole segments that are anchored and older than `before`; return how many rows."""
        with translated(), connection.transaction():
            connection.execute(_QUERIES["lock_anchors"])
            ends: dict[int, tuple[int, bytes]] = {}
            for anchor in _anchors(connection):
                if anchor.at_us >= _microseconds(before):
                    break
                ends |= anchor.as_heads()
            for chain, (seq, hash_) in ends.items():
                parameters = {"chain": chain, "seq": seq, "hash": hash_}
                connection.execute(_QUERIES["mark_pruned"], parameters)
            return connection.execute(_QUERIES["prune"]).rowcount

    def _forged(self, anchors: Iterable[SignedHeads]) -> Iterator[Damage]:
        """Return the first anchor that does not continue the one before it."""
        previous = b""
        for number, anchor in enumerate(anchors, 1):
            expected = mac_of(self._key, previous, anchor.at_us, anchor.heads)
            if not hmac.compare_digest(expected, anchor.mac):
                yield _damaged("an anchor is forged or gone", number)
                return
            previous = anchor.mac

    def _note(self, anchor: SignedHeads) -> None:
        folder = self._file.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with turn(folder):
            append_line(self._file, anchor.line())


def _followed(
    rows: Iterable[TupleRow],
    heads: Heads,
    begins: Heads,
    marks: Mapping[int, Mapping[int, _Mark]],
) -> tuple[int, int, list[Damage]]:
    """Follow every chain through the rows, which stand in the order (chain, seq).

    Returns how many rows there are, how many of them no mark knows of, and the damage.
    """
    at: dict[int, tuple[int, bytes]] = {}
    damage: dict[int, Damage] = {}
    last_id: dict[int, int] = {}
    known_to = {chain: max(of_chain, default=0) for chain, of_chain in marks.items()}
    count = unwitnessed = 0
    for chain, seq, audit_id, hash_, text in rows:
        count += 1
        unwitnessed += seq > known_to.get(chain, 0)
        begin = begins.get(chain, _NOTHING)
        if chain in damage or seq <= begin[0]:
            continue
        last_id[chain] = audit_id
        last_seq, last_hash = at.get(chain, begin)
        what = _wrong(last_hash, text, bytes(hash_), marks.get(chain, {}).get(seq))
        if seq != last_seq + 1:
            what = f"removed; the next row there is audit_id {audit_id}"
            damage[chain] = Damage(what=what, chain=chain, seq=last_seq + 1, audit_id=None)
        elif what is not None:
            damage[chain] = Damage(what=what, chain=chain, seq=seq, audit_id=audit_id)
        at[chain] = (seq, bytes(hash_))
    for chain in {*heads, *marks, *at} - {*damage}:
        last = at.get(chain, begins.get(chain, _NOTHING))
        head = heads.get(chain, _NOTHING)
        end = max([head[0], *marks.get(chain, {})])
        if last[0] < end:
            what, seq = "removed from the end", last[0] + 1
        elif last != head:
            what, seq = "the chain's head was changed", last[0]
        else:
            continue
        damage[chain] = Damage(what=what, chain=chain, seq=seq, audit_id=None)
    ordered = sorted(damage.values(), key=lambda one: (last_id.get(one.chain, 0), one.chain))
    return count, unwitnessed, ordered


def _wrong(last_hash: bytes, text: str, hash_: bytes, mark: _Mark | None) -> str | None:
    """Return what is wrong with a row; None: nothing."""
    if hashlib.sha256(last_hash + text.encode()).digest() != hash_:
        return "changed"
    if mark is not None and mark.hash != hash_:
        return "written anew: an anchor knows another"
    return None


def _heads(connection: Connection) -> Heads:
    return {
        chain: (seq, bytes(hash_)) for chain, seq, hash_ in connection.execute(_QUERIES["heads"])
    }


def _anchors(connection: Connection) -> Iterator[SignedHeads]:
    for at, heads, mac in connection.execute(_QUERIES["anchors"]):
        yield SignedHeads(at_us=_microseconds(at), heads=heads, mac=bytes(mac))


def _anchored_since(connection: Connection, before: _Anchored) -> _Anchored:
    """Read on behind the anchors that are known; all of them where the last of those is not there any more."""
    found: _Anchored | None = before
    with connection.cursor(name="anchors") as rows:
        rows.execute(_QUERIES["anchors_from"], {"first": before.number})
        if before.number and [row[::2] for row in rows.fetchmany(1)] != [
            (before.number, before.mac)
        ]:
            found = None
        else:
            heads = dict(before.heads)
            for number, said, mac in rows:
                heads |= SignedHeads(at_us=0, heads=said, mac=mac).as_heads()
                found = _Anchored(number=number, mac=bytes(mac), heads=heads)
    return _anchored_since(connection, _Anchored()) if found is None else found


def _marks(anchors: Iterable[SignedHeads]) -> dict[int, dict[int, _Mark]]:
    """Return what anchors say: chain -> number -> mark; of two that speak of a row, the first."""
    marks: dict[int, dict[int, _Mark]] = {}
    for anchor in anchors:
        for chain, (seq, hash_) in anchor.as_heads().items():
            mark = _Mark(hash=hash_, at_us=anchor.at_us)
            marks.setdefault(chain, {}).setdefault(seq, mark)
    return marks


def _with_notes(
    anchored: Mapping[int, Mapping[int, _Mark]], notes: Heads
) -> dict[int, dict[int, _Mark]]:
    """Return the marks of anchors and those that only a note knows of."""
    marks = {chain: dict(of_chain) for chain, of_chain in anchored.items()}
    for chain, (seq, hash_) in notes.items():
        marks.setdefault(chain, {}).setdefault(seq, _Mark(hash=hash_, at_us=0))
    return marks


def _forged_files(
    in_file: Iterable[SignedHeads | int], anchors: Iterable[SignedHeads], forged_note: int | None
) -> Iterator[Damage]:
    """Return the first anchor that only its file knows, and the first line that is not ours."""
    known = {anchor.mac: anchor for anchor in anchors}
    for number, line in enumerate(in_file, 1):
        if isinstance(line, int) or known.get(line.mac, line) != line:
            yield _damaged("a line of anchors.jsonl is forged", number)
            break
        if line.mac not in known:
            yield _damaged("an anchor is gone from the database: anchors.jsonl has it", number)
            break
    if forged_note is not None:
        yield _damaged("a line of heads.jsonl is forged", forged_note)


def _damaged(what: str, number: int) -> Damage:
    """Return damage of no chain: of an anchor or a line of a file."""
    return Damage(what=what, chain=-1, seq=number, audit_id=None)


def _pruned_too_much(
    begins: Heads,
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
