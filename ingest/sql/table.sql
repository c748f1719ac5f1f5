-- The measurement table (ingest.table).

-- name: look_up_by_index
-- Each look-up is an index scan of its own: the planner's guess for the arrays would be a whole
-- table scan, and ChunkAppend starts anew for each look-up. For this transaction.
SELECT set_config('timescaledb.enable_chunk_append', 'off', true)

-- name: already_stored
-- What the store has with the given device times: of each key (device, slot, sign) those of its
-- times that are stored, with what tells the same reading from another (content and measured_at), and
-- how late it was received.
WITH given_times AS (
    SELECT place, array_agg(timestamp '1970-01-01' + identity_ms * interval '1 ms') AS times
    FROM unnest(%(place)s::integer[], %(identity_ms)s::bigint[]) AS given (place, identity_ms)
    GROUP BY place
)
SELECT
    keys.place, (extract(epoch FROM m.identity_time) * 1000)::bigint, m.content_hash,
    (extract(epoch FROM m.measured_at) * 1000)::bigint, m.received_after_s
FROM unnest(%(device_id)s::integer[], %(user_slot)s::smallint[], %(sign)s::smallint[])
    WITH ORDINALITY AS keys (device_id, user_slot, sign, place)
JOIN given_times USING (place)
CROSS JOIN LATERAL (
    SELECT identity_time, content_hash, measured_at, received_after_s
    FROM measurement
    WHERE device_id = keys.device_id
        AND user_slot = keys.user_slot
        AND sign = keys.sign
        AND identity_time = ANY (given_times.times)
        AND measured_at BETWEEN %(from_at)s AND %(to_at)s
    OFFSET 0 -- keeps it a look-up for each key
) AS m

-- name: newest_stored
-- The latest device time that is stored of each device, from a time of measurement on: the last of each of its
-- slots and signs, which are found one behind the other along the index.
SELECT given.device_id, (extract(epoch FROM max(slot.identity_time)) * 1000)::bigint
FROM unnest(%(device_id)s::integer[]) AS given (device_id)
CROSS JOIN LATERAL (
    WITH RECURSIVE slot AS (
        (
            SELECT m.user_slot, m.sign, m.identity_time
            FROM measurement AS m
            WHERE m.device_id = given.device_id AND m.measured_at >= %(from_at)s
            ORDER BY m.user_slot DESC, m.sign DESC, m.identity_time DESC
            LIMIT 1
        )
        UNION ALL
        SELECT before.user_slot, before.sign, before.identity_time
        FROM slot
        CROSS JOIN LATERAL (
            SELECT m.user_slot, m.sign, m.identity_time
            FROM measurement AS m
            WHERE m.device_id = given.device_id
                AND (m.user_slot, m.sign) < (slot.user_slot, slot.sign)
                AND m.measured_at >= %(from_at)s
            ORDER BY m.user_slot DESC, m.sign DESC, m.identity_time DESC
            LIMIT 1
        ) AS before
    )
    SELECT identity_time FROM slot
) AS slot
GROUP BY given.device_id

-- name: already_heard
-- Which of the given broadcasts are stored, as another hub heard them: same device, same content (its
-- number among it), about the same time.
SELECT given.place
FROM unnest(
    %(place)s::bigint[], %(device_id)s::integer[], %(user_slot)s::smallint[], %(sign)s::smallint[],
    %(identity_ms)s::bigint[], %(content_hash)s::integer[]
) AS given (place, device_id, user_slot, sign, identity_ms, content_hash)
CROSS JOIN LATERAL (
    SELECT FROM measurement AS m
    WHERE m.device_id = given.device_id
        AND m.user_slot = given.user_slot
        AND m.sign = given.sign
        AND m.identity_time BETWEEN
            timestamp '1970-01-01' + (given.identity_ms - %(window_ms)s) * interval '1 ms'
            AND timestamp '1970-01-01' + (given.identity_ms + %(window_ms)s) * interval '1 ms'
        AND m.content_hash = given.content_hash
        AND m.measured_at BETWEEN %(from_at)s AND %(to_at)s
    LIMIT 1
) AS m

-- name: received_earlier
-- The first reception of a reading counts. Whether it was measured elsewhere is then to be asked anew:
-- what is nobody's is due for whom a link names.
WITH given AS (
    SELECT device_id, user_slot, sign, identity_ms, measured_ms, min(received_ms) AS received_ms
    FROM unnest(
        %(device_id)s::integer[], %(user_slot)s::smallint[], %(sign)s::smallint[],
        %(identity_ms)s::bigint[], %(measured_ms)s::bigint[], %(received_ms)s::bigint[]
    ) AS reading (device_id, user_slot, sign, identity_ms, measured_ms, received_ms)
    GROUP BY device_id, user_slot, sign, identity_ms, measured_ms
), updated AS (
    UPDATE measurement AS m
    SET
        received_after_s = (given.received_ms - given.measured_ms) / 1000.0,
        flags = m.flags & ~%(elsewhere)s::smallint
    FROM given
    WHERE m.device_id = given.device_id
        AND m.user_slot = given.user_slot
        AND m.sign = given.sign
        AND m.identity_time = timestamp '1970-01-01' + given.identity_ms * interval '1 ms'
        AND m.measured_at = timestamptz '1970-01-01Z' + given.measured_ms * interval '1 ms'
        AND m.measured_at BETWEEN %(from_at)s AND %(to_at)s
        AND m.received_after_s > (given.received_ms - given.measured_ms) / 1000.0
    RETURNING m.device_id, m.user_slot, m.resident_id
)
INSERT INTO attribution_due (device_id, user_slot)
SELECT DISTINCT device_id, user_slot FROM updated WHERE resident_id = 0
