-- What the live bench (bench.live) needs beside the residents and devices of bench/sql/api.sql.

-- name: links
-- Each device to its resident, for ever.
INSERT INTO link (device_id, user_slot, resident_id, during)
SELECT device_id, 255, 1 + (device_id - 1) / %(signs)s::integer, '(,)' FROM device

-- name: hub
-- The hub whose readings come.
INSERT INTO hub (hub_id, name, home_id)
OVERRIDING SYSTEM VALUE
VALUES (1, '0000000000000001', 1)
