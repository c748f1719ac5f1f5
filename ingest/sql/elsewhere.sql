-- Readings of lent devices (ingest.elsewhere).

-- name: waiting
-- What other homes' hubs heard of these devices, as the records were on the wire, and when.
SELECT content, received_at
FROM quarantine
WHERE device = ANY (%(devices)s::bigint[])
    AND state = 'waiting'
    AND kind = %(kind)s
    AND reason = %(reason)s
ORDER BY quarantine_id DESC
LIMIT %(limit)s

-- name: forget
-- Workers remember readings of these residents that are not theirs.
WITH noted AS (
    INSERT INTO registry_change (kind, key)
    SELECT 4, resident_id FROM unnest(%(residents)s::integer[]) AS given (resident_id)
)
SELECT pg_notify('hearth_registry', '')

-- name: stored_at_home
-- What is stored of the given records and not decided about: the row's key, when it was measured
-- (milliseconds), how long after that the own hub had it, and when the other home's had.
SELECT
    m.device_id, m.user_slot, m.sign, (extract(epoch FROM m.identity_time) * 1000000)::bigint,
    (extract(epoch FROM m.measured_at) * 1000)::bigint, m.received_after_s, given.heard_ms
FROM (
    SELECT device_id, user_slot, sign, identity_ms, content_hash, min(heard_ms) AS heard_ms
    FROM unnest(
        %(device_id)s::integer[], %(user_slot)s::smallint[], %(sign)s::smallint[],
        %(identity_ms)s::bigint[], %(content_hash)s::integer[], %(heard_ms)s::bigint[]
    ) AS record (device_id, user_slot, sign, identity_ms, content_hash, heard_ms)
    GROUP BY device_id, user_slot, sign, identity_ms, content_hash
) AS given
CROSS JOIN LATERAL (
    SELECT *
    FROM measurement
    WHERE device_id = given.device_id
        AND user_slot = given.user_slot
        AND sign = given.sign
        AND identity_time = timestamp '1970-01-01' + given.identity_ms * interval '1 ms'
        AND measured_at BETWEEN %(from_at)s AND %(to_at)s
    OFFSET 0 -- a look-up by index for each
) AS m
WHERE m.content_hash = given.content_hash
    AND m.flags & %(decided)s = 0
    AND NOT EXISTS ( -- somebody made the period another's
        SELECT
        FROM attribution AS a
        JOIN correction AS c USING (correction_id)
        WHERE a.device_id = m.device_id
            AND a.user_slot = m.user_slot
            AND a.sign = m.sign
            AND a.identity_time = m.identity_time
            AND a.measured_at = m.measured_at
            AND c.kind = 'reassign'
            AND NOT EXISTS (SELECT FROM correction AS u WHERE u.undoes = c.correction_id)
    )

-- name: hold_slot
-- Nobody settles the slot meanwhile (attribution.sql).
SELECT pg_advisory_xact_lock(18503, hashint8((%(device_id)s::bigint << 8) | %(user_slot)s))

-- name: add_correction
-- That readings of a slot turned out to be measured in another home.
INSERT INTO correction (kind, actor, reason, device_id, user_slot, resident_id, readings)
VALUES (
    'elsewhere', %(actor)s, %(reason)s, %(device_id)s, %(user_slot)s, 0, %(readings)s
)
RETURNING correction_id, (extract(epoch FROM date_trunc('milliseconds', now())) * 1000)::bigint

-- name: remember
-- Keep whose the readings were thought to be; return it, with sign and time (milliseconds).
INSERT INTO attribution (
    measured_at, identity_time, believed_from, believed_until, correction_id, device_id,
    resident_id, next_resident_id, user_slot, sign, flags
)
SELECT
    m.measured_at, m.identity_time, m.stored_at, date_trunc('milliseconds', now()),
    %(correction_id)s, m.device_id, m.resident_id, 0, m.user_slot, m.sign, m.flags
FROM unnest(%(sign)s::smallint[], %(identity_us)s::bigint[], %(measured_ms)s::bigint[])
    AS given (sign, identity_us, measured_ms)
CROSS JOIN LATERAL (
    SELECT *
    FROM measurement
    WHERE device_id = %(device_id)s
        AND user_slot = %(user_slot)s
        AND sign = given.sign
        AND identity_time = timestamp '1970-01-01' + given.identity_us * interval '1 us'
        AND measured_at = timestamptz '1970-01-01Z' + given.measured_ms * interval '1 ms'
    OFFSET 0 -- a look-up by index for each
) AS m
RETURNING resident_id, sign, (extract(epoch FROM measured_at) * 1000)::bigint

-- name: nobodys
-- The remembered readings are nobody's. Times are bounded once more, for the chunks.
UPDATE measurement AS m
SET
    resident_id = 0, stored_at = date_trunc('milliseconds', now()),
    flags = (m.flags & %(kept_flags)s) | %(elsewhere)s
FROM attribution AS a
WHERE a.correction_id = %(correction_id)s
    AND m.device_id = %(device_id)s
    AND m.user_slot = %(user_slot)s
    AND m.measured_at BETWEEN %(from_at)s AND %(to_at)s
    AND m.sign = a.sign
    AND m.identity_time = a.identity_time
    AND m.measured_at = a.measured_at
