-- Links do not change under a transaction that attributes readings (ingest.guard).

-- name: hold_links
-- Until this transaction ends, whoever changes links or re-attributes readings waits.
SELECT pg_advisory_xact_lock_shared(18502, 0)

-- name: changed_behind
-- Devices whose links changed behind a snapshot. A statement of its own, behind the lock: its snapshot
-- sees what committed while we waited.
SELECT DISTINCT key
FROM registry_change
WHERE xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
    AND xid < pg_snapshot_xmax(pg_current_snapshot())
    AND kind = 3
    AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)

-- name: hold_devices
-- By buckets of devices: whoever brings another home's records of them is alone with whoever stores
-- late readings of their own home.
SELECT CASE
    WHEN alone THEN pg_advisory_xact_lock(18504, bucket)
    ELSE pg_advisory_xact_lock_shared(18504, bucket)
END
FROM unnest(%(buckets)s::integer[], %(alone)s::boolean[]) AS given (bucket, alone)
