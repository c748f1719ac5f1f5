-- Links do not change under a transaction that attributes readings (ingest.guard).

-- name: hold_links
-- Until this transaction ends, whoever changes links or re-attributes readings waits.
SELECT pg_advisory_xact_lock_shared(18502, 0)

-- name: changed_behind
-- Links of devices (kind 3) and readings of residents (kind 4) that changed behind a snapshot. A
-- statement of its own, behind the lock: its snapshot sees what committed while we waited.
SELECT DISTINCT kind, key
FROM registry_change
WHERE xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
    AND xid < pg_snapshot_xmax(pg_current_snapshot())
    AND kind IN (3, 4)
    AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
