-- The measurement table (ingest.table).

-- name: look_up_by_index
-- Each look-up is an index scan of its own: the planner's guess for the arrays would be a whole
-- table scan, and ChunkAppend starts anew for each look-up. For this transaction.
SELECT set_config('timescaledb.enable_chunk_append', 'off', true)

-- name: already_stored
-- What the store has with the given device times: of each key (device, slot, sign) those of its
-- times that are stored, with what tells the same reading from another: content and measured_at.
WITH given_times AS (
    SELECT place, array_agg(timestamp '1970-01-01' + identity_ms * interval '1 ms') AS times
    FROM unnest(%(place)s::integer[], %(identity_ms)s::bigint[]) AS given (place, identity_ms)
    GROUP BY place
)
SELECT
    keys.place, (extract(epoch FROM m.identity_time) * 1000)::bigint, m.content_hash,
    (extract(epoch FROM m.measured_at) * 1000)::bigint
FROM unnest(%(device_id)s::integer[], %(user_slot)s::smallint[], %(sign)s::smallint[])
    WITH ORDINALITY AS keys (device_id, user_slot, sign, place)
JOIN given_times USING (place)
CROSS JOIN LATERAL (
    SELECT identity_time, content_hash, measured_at
    FROM measurement
    WHERE device_id = keys.device_id
        AND user_slot = keys.user_slot
        AND sign = keys.sign
        AND identity_time = ANY (given_times.times)
        AND measured_at BETWEEN %(from_at)s AND %(to_at)s
    OFFSET 0 -- keeps it a look-up for each key
) AS m
