-- What was kept apart (ingest.quarantine). Filters that are null do not filter.

-- name: list
-- The newest first.
SELECT
    q.quarantine_id, q.quarantined_at, q.kind, q.reason, q.sign, q.detail, q.device, h.name AS hub,
    q.measured_at, q.received_at, q.decoder, q.state, q.seen, q.content_bytes, q.message
FROM quarantine q
LEFT JOIN hub h USING (hub_id)
WHERE (%(state)s::text IS NULL OR q.state = %(state)s)
    AND (%(reasons)s::smallint[] IS NULL OR q.reason = ANY(%(reasons)s))
    AND (%(device)s::bigint IS NULL OR q.device = %(device)s)
    AND (%(hub)s::text IS NULL OR h.name = %(hub)s)
    AND (%(ids)s::bigint[] IS NULL OR q.quarantine_id = ANY(%(ids)s))
    AND (%(since)s::timestamptz IS NULL OR q.quarantined_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR q.quarantined_at < %(until)s)
    AND (%(before)s::bigint IS NULL OR q.quarantine_id < %(before)s)
ORDER BY q.quarantine_id DESC
LIMIT %(limit)s

-- name: show
-- One entry with its bytes.
SELECT
    q.quarantine_id, q.quarantined_at, q.kind, q.reason, q.sign, q.detail, q.device, h.name AS hub,
    q.measured_at, q.received_at, q.decoder, q.state, q.seen, q.content_bytes, q.message,
    q.content, q.source, b.reference_at, q.resolved_at, q.resolved_by
FROM quarantine q
LEFT JOIN hub h USING (hub_id)
LEFT JOIN batch b USING (batch_id)
WHERE q.quarantine_id = %(quarantine_id)s

-- name: take_waiting
-- Entries to replay, locked; those that another replay has in hand are passed over.
SELECT
    q.quarantine_id, q.kind, q.device, q.source, q.clock_offset_ms, q.utc_offset, q.received_at,
    q.batch_id, q.content, b.reference_at, h.home_id, q.measured_at, q.placed_quality
FROM quarantine q
JOIN batch b USING (batch_id)
JOIN hub h ON h.hub_id = b.hub_id
WHERE q.state = 'waiting' AND q.kind IN (1, 2)
    AND q.quarantine_id > %(after)s
    AND (%(reasons)s::smallint[] IS NULL OR q.reason = ANY(%(reasons)s))
    AND (%(device)s::bigint IS NULL OR q.device = %(device)s)
    AND (%(hub)s::text IS NULL OR h.name = %(hub)s)
    AND (%(devices)s::bigint[] IS NULL OR q.device = ANY(%(devices)s))
    AND (%(ids)s::bigint[] IS NULL OR q.quarantine_id = ANY(%(ids)s))
    AND (%(since)s::timestamptz IS NULL OR q.quarantined_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR q.quarantined_at < %(until)s)
    AND (%(linked)s IS FALSE OR EXISTS (
        SELECT
        FROM device d
        JOIN (
            SELECT device_id, during FROM link WHERE superseded_at IS NULL
            UNION ALL
            SELECT device_id, during FROM shared_link WHERE superseded_at IS NULL
        ) AS l USING (device_id)
        WHERE ('x' || lpad(replace(d.address, ':', ''), 16, '0'))::bit(64)::bigint = q.device
            AND l.during @> q.measured_at
    ))
ORDER BY q.quarantine_id
LIMIT %(limit)s
FOR UPDATE OF q SKIP LOCKED

-- name: settle
-- Entries that a replay has stored, or found stored; the others keep waiting with their new reason.
UPDATE quarantine
SET
    state = CASE WHEN given.reason IS NULL THEN 'replayed' ELSE 'waiting' END,
    reason = coalesce(given.reason, quarantine.reason),
    resolved_at = CASE WHEN given.reason IS NULL THEN now() END,
    resolved_by = CASE WHEN given.reason IS NULL THEN %(by)s END
FROM unnest(%(quarantine_id)s::bigint[], %(reason)s::smallint[]) AS given (quarantine_id, reason)
WHERE quarantine.quarantine_id = given.quarantine_id

-- name: tell_workers
-- Workers forget how late the last reading of these devices is (ingest.newest).
WITH noted AS (
    INSERT INTO registry_change (kind, key)
    SELECT 2, device FROM unnest(%(devices)s::bigint[]) AS given (device)
)
SELECT pg_notify('hearth_registry', '')

-- name: account
-- Move what was replayed from one term of the ledger to another.
UPDATE batch
SET
    stored = batch.stored + given.stored,
    duplicate = batch.duplicate + given.duplicate,
    quarantined = batch.quarantined - given.stored - given.duplicate
FROM unnest(%(batch_id)s::bigint[], %(stored)s::integer[], %(duplicate)s::integer[])
    AS given (batch_id, stored, duplicate)
WHERE batch.batch_id = given.batch_id

-- name: discard
-- Give waiting entries up, the oldest first; their bytes stay, the ledger still counts them.
UPDATE quarantine
SET state = 'discarded', resolved_at = now(), resolved_by = %(by)s
WHERE quarantine_id IN (
    SELECT q.quarantine_id
    FROM quarantine q
    LEFT JOIN hub h USING (hub_id)
    WHERE q.state = 'waiting'
        AND (%(reasons)s::smallint[] IS NULL OR q.reason = ANY(%(reasons)s))
        AND (%(device)s::bigint IS NULL OR q.device = %(device)s)
        AND (%(hub)s::text IS NULL OR h.name = %(hub)s)
        AND (%(ids)s::bigint[] IS NULL OR q.quarantine_id = ANY(%(ids)s))
        AND (%(since)s::timestamptz IS NULL OR q.quarantined_at >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR q.quarantined_at < %(until)s)
    ORDER BY q.quarantine_id
    LIMIT %(limit)s
    FOR UPDATE OF q
)
RETURNING quarantine_id

-- name: now_ms
-- The store's clock at the start of the transaction, milliseconds since 1970.
SELECT (extract(epoch FROM now()) * 1000)::bigint
