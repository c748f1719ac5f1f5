"""Changing the master key: every resident's data key is wrapped anew; what it seals stays sealed."""

from __future__ import annotations

from collections.abc import Callable

from api.resident_import import QUERIES
from api.vault import IdentityVault
from gateway.platform.postgres import Connection, translated

KEYS_AT_ONCE = 10_000
"""Keys that are wrapped anew in one transaction."""


def rewrap_keys(
    connection: Connection, vault: IdentityVault, progress: Callable[[int], None]
) -> int:
    """Wrap the keys that an older master key wraps with the newest; returns how many there were.

    Raises:
        UsageError: an older master key is missing; it is needed until this has run to its end.
    """
    done = 0
    while True:
        with translated(), connection.transaction():
            rows = connection.execute(
                QUERIES["keys_to_wrap"], {"key_id": vault.key_id, "limit": KEYS_AT_ONCE}
            ).fetchall()
            if not rows:
                return done
            connection.execute(
                QUERIES["rewrap_keys"],
                {
                    "key_id": vault.key_id,
                    "residents": [resident_id for _resident, resident_id, *_key in rows],
                    "wrapped": [
                        vault.rewrap(resident, key_id, wrapped)
                        for resident, _resident_id, key_id, wrapped in rows
                    ],
                },
            )
        done += len(rows)
        progress(done)
