-- The feed of changes (gateway.platform.changes).

-- name: record
-- Note what this transaction stored or re-attributed.
INSERT INTO change (stored_at, resident_id, sign, oldest_ms, newest_ms)
VALUES (to_timestamp(%(stored_at_ms)s::double precision / 1000), %(resident)s, %(sign)s, %(oldest_ms)s, %(newest_ms)s)

-- name: read
-- The changes behind a place, none of them with an earlier one still to come; arrays as the bytes that they are.
SELECT
    transaction_id::text::bigint, change_id, stored_at, array_send(resident_id), array_send(sign),
    array_send(oldest_ms), array_send(newest_ms)
FROM change
WHERE (transaction_id, change_id) > (%(transaction)s::text::xid8, %(change)s)
    AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY transaction_id, change_id
LIMIT %(limit)s

-- name: end
-- The place behind all changes that have settled.
SELECT transaction_id::text::bigint, change_id
FROM change
WHERE transaction_id < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY transaction_id DESC, change_id DESC
LIMIT 1

-- name: is_whole
-- Whether this server has given the transaction of a place its number, and nothing behind it is forgotten.
-- Changes of a transaction that a server before this one counted are not ours to read.
SELECT
    %(transaction)s::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    AND coalesce(
        (
            SELECT (transaction_id, change_id) <= (%(transaction)s::text::xid8, %(change)s)
            FROM change
            WHERE transaction_id < pg_snapshot_xmax(pg_current_snapshot())
            ORDER BY transaction_id, change_id
            LIMIT 1
        ),
        true
    )

-- name: prune
-- Forget changes that everybody has had time to read, so many at once.
DELETE FROM change
WHERE (transaction_id, change_id) IN (
    SELECT transaction_id, change_id
    FROM change
    WHERE stored_at < now() - %(days)s * interval '1 day'
    ORDER BY stored_at
    LIMIT %(rows)s
)
