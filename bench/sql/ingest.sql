-- The registry of the ingest bench (bench.ingest): hubs of so many devices, each its resident's.

-- name: homes
-- A home a hub.
INSERT INTO home SELECT FROM generate_series(1, %(hubs)s)

-- name: hubs
-- Hubs named by their number.
INSERT INTO hub (name, home_id) SELECT lpad(to_hex(g), 16, '0'), g FROM generate_series(1, %(hubs)s) AS g

-- name: residents
-- A resident a device.
INSERT INTO resident SELECT FROM generate_series(1, %(hubs)s * %(devices)s)

-- name: devices
-- Devices whose address is their number.
INSERT INTO device (address, home_id)
SELECT
    regexp_replace(upper(lpad(to_hex(g), 12, '0')), '(..)(?!$)', '\1:', 'g'),
    (g - 1) / %(devices)s + 1
FROM generate_series(1, %(hubs)s * %(devices)s) AS g

-- name: links
-- Each device to its resident, for ever.
INSERT INTO link (device_id, user_slot, resident_id, during)
SELECT g, 255, g, '(,)' FROM generate_series(1, %(hubs)s * %(devices)s) AS g
