-- Lanes and workers as advisory locks: (18501, lane) exclusive, (18500, 0) shared by all workers. Others of
-- this family: (18502, 0) links held still (guard.sql), (18503, slot) settling (attribution.sql), (18504, bucket)
-- lent devices (guard.sql), (18506, chain) and (18507, 0) the audit, (18509, 0) the turn of the alerts service (alerts.sql), (18510, 0) the inbox (inbox.sql).

-- name: enter
-- Enter as a worker.
SELECT pg_advisory_lock_shared(18500, 0)

-- name: count_workers
-- How many workers there are.
SELECT count(DISTINCT pid)
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 18500 AND objid = 0 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: acquire
-- Take a lane, if it is free.
SELECT pg_try_advisory_lock(18501, %(lane)s)

-- name: release
-- Give a lane back.
SELECT pg_advisory_unlock(18501, %(lane)s)
