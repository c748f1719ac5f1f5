-- What is usual for residents, from the store (ingest.baselines). {quantities}: the sign's columns.

-- name: newest
-- The newest readings of each resident's sign, artefacts left out.
SELECT recent.*
FROM unnest(%(residents)s::integer[]) AS given (resident_id)
CROSS JOIN LATERAL (
    SELECT resident_id, (extract(epoch FROM measured_at) * 1000)::bigint, {quantities}
    FROM measurement
    WHERE resident_id = given.resident_id
        AND sign = %(sign)s
        AND flags & %(artefact)s = 0
        AND measured_at >= %(from_at)s
    ORDER BY measured_at DESC
    LIMIT %(window)s
) AS recent

-- name: take_due
-- What is due, taken: the oldest notes, put together a resident's sign.
WITH taken AS (
    DELETE FROM baseline_due
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM baseline_due ORDER BY noted_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING resident_id, sign, from_at, to_at
)
SELECT
    sign, resident_id, min(from_at), max(to_at)
FROM taken
GROUP BY sign, resident_id
ORDER BY sign, resident_id

-- name: note_rest
-- What was too much to look at in one go.
INSERT INTO baseline_due (resident_id, sign, from_at, to_at)
SELECT given.resident_id, %(sign)s, given.from_at, given.to_at
FROM unnest(
    %(residents)s::integer[], %(from_at)s::timestamptz[], %(to_at)s::timestamptz[]
) AS given (resident_id, from_at, to_at)

-- name: all_due
-- Everything that is stored is due.
INSERT INTO baseline_due (resident_id, sign, from_at, to_at)
SELECT resident_id, sign, min(measured_at), max(measured_at)
FROM measurement
WHERE resident_id <> 0
GROUP BY resident_id, sign

-- name: around
-- Of each resident's sign the readings between two times, the window before and the window behind.
SELECT series.*
FROM unnest(
    %(residents)s::integer[], %(from_at)s::timestamptz[], %(to_at)s::timestamptz[]
) AS given (resident_id, from_at, to_at)
CROSS JOIN LATERAL (
    (
        SELECT
            resident_id, (extract(epoch FROM measured_at) * 1000)::bigint AS measured_ms,
            (extract(epoch FROM identity_time) * 1000)::bigint, device_id, user_slot, flags, false,
            {quantities}
        FROM measurement
        WHERE resident_id = given.resident_id
            AND sign = %(sign)s
            AND measured_at < given.from_at
            AND flags & %(artefact)s = 0
        ORDER BY measured_at DESC
        LIMIT %(window)s
    )
    UNION ALL
    (
        SELECT
            resident_id, (extract(epoch FROM measured_at) * 1000)::bigint,
            (extract(epoch FROM identity_time) * 1000)::bigint, device_id, user_slot, flags, true,
            {quantities}
        FROM measurement
        WHERE resident_id = given.resident_id
            AND sign = %(sign)s
            AND measured_at BETWEEN given.from_at AND given.to_at
            AND flags & %(artefact)s = 0
        ORDER BY measured_at
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT
            resident_id, (extract(epoch FROM measured_at) * 1000)::bigint,
            (extract(epoch FROM identity_time) * 1000)::bigint, device_id, user_slot, flags, true,
            {quantities}
        FROM measurement
        WHERE resident_id = given.resident_id
            AND sign = %(sign)s
            AND measured_at > given.to_at
            AND flags & %(artefact)s = 0
        ORDER BY measured_at
        LIMIT %(window)s
    )
) AS series

-- name: mark
-- Mark readings as unusual, or no longer. Nothing else of them changes.
UPDATE measurement AS m
SET flags = given.flags
FROM unnest(
    %(residents)s::integer[], %(measured_ms)s::bigint[], %(identity_ms)s::bigint[],
    %(devices)s::integer[], %(user_slots)s::smallint[], %(flags)s::smallint[]
) AS given (resident_id, measured_ms, identity_ms, device_id, user_slot, flags)
WHERE m.device_id = given.device_id
    AND m.user_slot = given.user_slot
    AND m.sign = %(sign)s
    AND m.identity_time = timestamp '1970-01-01' + given.identity_ms * interval '1 ms'
    AND m.measured_at = timestamptz '1970-01-01Z' + given.measured_ms * interval '1 ms'
    AND m.measured_at = ANY(%(times)s::timestamptz[])
    AND m.resident_id = given.resident_id

-- name: now_ms
-- The store's clock at the start of the transaction, milliseconds since 1970.
SELECT (extract(epoch FROM now()) * 1000)::bigint
