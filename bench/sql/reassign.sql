-- The store of the reassign bench (bench.reassign): devices of so many readings each, over months.

-- name: home
-- One home has them all.
INSERT INTO home DEFAULT VALUES

-- name: residents
-- A resident a device.
INSERT INTO resident SELECT FROM generate_series(1, %(devices)s)

-- name: devices
-- Devices whose address is their number.
INSERT INTO device (address, home_id)
SELECT regexp_replace(upper(lpad(to_hex(g), 12, '0')), '(..)(?!$)', '\1:', 'g'), 1
FROM generate_series(1, %(devices)s) AS g

-- name: links
-- Each device to its resident.
INSERT INTO link (device_id, user_slot, resident_id, during)
SELECT g, 255, g, '(,)' FROM generate_series(1, %(devices)s) AS g

-- name: measurements
-- A reading each half hour, 208 days of them: 30 chunks.
INSERT INTO measurement (
    measured_at, identity_time, stored_at, batch_id, digits, device_id, resident_id, status,
    content_hash, received_after_s, sign, user_slot, time_quality, utc_offset, unit_set, time_flags,
    flags, systolic_mmhg, diastolic_mmhg
)
SELECT
    at, at AT TIME ZONE 'UTC', now(), 1, 0, device, device, 0, 0, 1, 1, 255, 2, 32, 0, 0, 0, 120, 80
FROM generate_series(0, %(readings)s - 1) AS n
CROSS JOIN LATERAL (SELECT '2026-01-01Z'::timestamptz + n * interval '30 min' AS at) AS time
CROSS JOIN generate_series(1, %(devices)s) AS device

-- name: analyze
-- As a database that has been up for a while.
ANALYZE measurement
