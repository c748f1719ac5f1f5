-- The registry of the links bench (bench.links): so many devices, a slot each, half of them passed on.

-- name: bare
-- The store's own guard is not what is measured, and would take most of the time of filling it.
ALTER TABLE link DROP CONSTRAINT link_one_resident_at_a_time

-- name: quiet_links
-- Filled in one go and read whole.
ALTER TABLE link DISABLE TRIGGER USER

-- name: quiet_devices
-- The same.
ALTER TABLE device DISABLE TRIGGER USER

-- name: home
-- One home has them all.
INSERT INTO home DEFAULT VALUES

-- name: residents
-- A resident for each ten devices.
INSERT INTO resident SELECT FROM generate_series(1, %(devices)s / 10 + 2)

-- name: devices
-- Devices whose address is their number.
INSERT INTO device (address, home_id)
SELECT regexp_replace(upper(lpad(to_hex(g), 12, '0')), '(..)(?!$)', '\1:', 'g'), 1
FROM generate_series(1, %(devices)s) AS g

-- name: links
-- Two links a device: one resident's up to a day, another's from then on.
INSERT INTO link (device_id, user_slot, resident_id, during)
SELECT
    g, 255, g %% (%(devices)s / 10) + 1 + part,
    CASE part
        WHEN 0 THEN tstzrange(NULL, '2026-01-01Z'::timestamptz + g %% 300 * interval '1 day')
        ELSE tstzrange('2026-01-01Z'::timestamptz + g %% 300 * interval '1 day', NULL)
    END
FROM generate_series(1, %(devices)s) AS g
CROSS JOIN generate_series(0, 1) AS part

-- name: loud_links
-- From here on changes are noted again.
ALTER TABLE link ENABLE TRIGGER USER

-- name: analyze
-- As a database that has been up for a while.
ANALYZE link
