-- The archive of the API bench (bench.api): residents with a device a sign, measured for a year.

-- name: residents
-- Residents whose public id is their number, so that a client knows them without asking.
INSERT INTO resident (resident_id, public_id)
OVERRIDING SYSTEM VALUE
SELECT g, ('00000000-0000-4000-8000-' || lpad(to_hex(g), 12, '0'))::uuid
FROM generate_series(%(first)s::integer, %(last)s::integer) AS g

-- name: homes
-- One home is enough.
INSERT INTO home (home_id) OVERRIDING SYSTEM VALUE VALUES (1) ON CONFLICT DO NOTHING

-- name: devices
-- A device a resident and sign.
INSERT INTO device (device_id, address, home_id)
OVERRIDING SYSTEM VALUE
SELECT g, regexp_replace(upper(lpad(to_hex(g), 12, '0')), '(..)(?!$)', '\1:', 'g'), 1
FROM generate_series(
    (%(first)s::integer - 1) * %(signs)s::integer + 1, %(last)s::integer * %(signs)s::integer
) AS g

-- name: week
-- One sign's measurements of a week, by resident: as many a day as {a_day}, at minutes of their own.
INSERT INTO measurement (
    measured_at, identity_time, stored_at, batch_id, digits, device_id, resident_id, status,
    content_hash, received_after_s, sign, user_slot, time_quality, utc_offset, unit_set, time_flags,
    flags, {quantities}
)
SELECT
    at, at, at, 1, 0, (r - 1) * %(signs)s::integer + %(place)s::integer, r, 0, n, 2.5,
    %(sign)s::smallint, 255, 1, 32, 0, 0, (random() < 0.03)::integer, {values}
FROM generate_series(%(first)s::integer, %(last)s::integer) AS r
CROSS JOIN generate_series(0, 7 * %(a_day)s::integer - 1) AS n
CROSS JOIN LATERAL (
    SELECT %(from_at)s::timestamptz
        + n * interval '24 hours' / %(a_day)s::integer
        + (r * 7919 %% 1800) * interval '1 second'
) AS t (at)

-- name: count
-- How many there are.
SELECT count(*) FROM measurement
