-- Records that could not be placed in time, and what places them (ingest.retime).

-- name: take_unplaced
-- The records of a device that wait for a time, locked, oldest first.
SELECT q.quarantine_id, q.received_at, q.content, d.device_id
FROM quarantine q
JOIN device d ON ('x' || lpad(replace(d.address, ':', ''), 16, '0'))::bit(64)::bigint = q.device
WHERE q.state = 'waiting' AND q.kind = 1 AND q.device = %(device)s AND q.reason = ANY(%(reasons)s)
    AND q.quarantine_id > %(after)s
ORDER BY q.quarantine_id
LIMIT %(limit)s
FOR UPDATE OF q

-- name: facts
-- What is known of a device's clock: device time, true time and reception (all in milliseconds) of its
-- stored readings that a hub has placed by the device's clock, in a range of device time.
SELECT
    (extract(epoch FROM m.identity_time) * 1000)::bigint,
    (extract(epoch FROM m.measured_at) * 1000)::bigint,
    (extract(epoch FROM m.measured_at) * 1000 + m.received_after_s * 1000)::bigint
FROM measurement m
WHERE m.device_id = %(device_id)s
    AND m.identity_time BETWEEN %(from_time)s AND %(to_time)s
    AND m.time_quality = ANY(%(qualities)s)
    AND m.time_flags & 3 = %(time_type)s
ORDER BY m.identity_time
LIMIT %(limit)s

-- name: place
-- Give records their time; what they hold stays as it came.
UPDATE quarantine
SET measured_at = given.measured_at, placed_quality = %(quality)s
FROM unnest(%(quarantine_id)s::bigint[], %(measured_at)s::timestamptz[])
    AS given (quarantine_id, measured_at)
WHERE quarantine.quarantine_id = given.quarantine_id
