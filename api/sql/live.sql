-- What those who follow live are given (api.live_reads).

-- name: watched
-- Whom the reader of this transaction may see: whose changes to look out for.
SELECT resident_id, public_id
FROM resident
WHERE %(residents)s::uuid[] IS NULL OR public_id = ANY(%(residents)s)
LIMIT %(limit)s

-- name: begin_each
-- Decide and audit for many readers: pairs of a reader and whom the news is of.
SELECT reader, resident, withheld
FROM access.begin_each(
    %(readers)s, %(sessions)s, %(origins)s, 'measurement.live', %(whom)s, %(reader_of)s
)

-- name: news
-- The measurements that the given changes stored or re-attributed, of whom this transaction may read.
SELECT
    m.measured_at, m.device_id, m.user_slot, m.sign,
    (extract(epoch FROM m.identity_time) * 1000000)::bigint AS identity_us, m.stored_at,
    m.received_after_s, m.utc_offset, m.time_quality, m.unit_set, m.digits, m.status, m.flags,
    {values}, m.device, changed.number, m.resident_id
FROM unnest(
    %(number)s::integer[], %(resident)s::integer[], %(sign)s::smallint[],
    %(oldest_at)s::timestamptz[], %(newest_at)s::timestamptz[], %(stored_at)s::timestamptz[]
) AS changed (number, resident_id, sign, oldest_at, newest_at, stored_at)
CROSS JOIN LATERAL (
    SELECT m.*
    FROM access.measurement AS m
    WHERE m.resident_id = changed.resident_id
        AND m.sign = changed.sign
        AND m.measured_at >= changed.oldest_at
        AND m.measured_at <= changed.newest_at
        AND m.stored_at = changed.stored_at
) AS m
ORDER BY changed.number, m.measured_at
LIMIT %(limit)s
