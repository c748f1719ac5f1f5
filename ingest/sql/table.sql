-- The measurement table (ingest.table).

-- name: already_stored
-- Of the given identities, those that are stored, with what tells the same reading from another:
-- its content and when it was measured.
SELECT given.place, m.content_hash, (extract(epoch FROM m.measured_at) * 1000)::bigint
FROM unnest(
    %(device_id)s::integer[], %(user_slot)s::smallint[], %(sign)s::smallint[],
    %(identity_ms)s::bigint[], %(measured_ms)s::bigint[]
) WITH ORDINALITY AS given (device_id, user_slot, sign, identity_ms, measured_ms, place)
CROSS JOIN LATERAL (
    SELECT content_hash, measured_at
    FROM measurement
    WHERE device_id = given.device_id
        AND user_slot = given.user_slot
        AND sign = given.sign
        AND identity_time = timestamp '1970-01-01' + given.identity_ms * interval '1 ms'
        AND measured_at BETWEEN
            timestamptz '1970-01-01+00' + (given.measured_ms - %(window_ms)s) * interval '1 ms'
            AND timestamptz '1970-01-01+00' + (given.measured_ms + %(window_ms)s) * interval '1 ms'
) AS m
