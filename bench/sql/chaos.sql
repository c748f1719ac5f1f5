-- What the store holds at the end, for the comparison (bench.chaos.findings), and faults in it.

-- name: stored
-- Every row: its device, its device time, its value.
SELECT
    ('x' || lpad(replace(d.address, ':', ''), 16, '0'))::bit(64)::bigint,
    (extract(epoch FROM m.identity_time) * 1000)::bigint, m.body_temperature_celsius
FROM measurement m
JOIN device d USING (device_id)

-- name: quarantined
-- Everything that waits: kind, device, bytes.
SELECT kind, device, content FROM quarantine WHERE state = 'waiting' AND kind IN (1, 2)

-- name: reasons
-- Why it waits.
SELECT reason, count(*) FROM quarantine WHERE state = 'waiting' GROUP BY reason

-- name: published
-- What the ledger says each hub has published.
SELECT h.name, sum(b.published)::bigint FROM batch b JOIN hub h USING (hub_id) GROUP BY h.name

-- name: make_probe
-- A table to write to when the disk is full.
CREATE TABLE IF NOT EXISTS chaos_probe (content text)

-- name: fill_probe
-- Four megabytes that cannot be compressed away.
INSERT INTO chaos_probe
SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 131072) AS g GROUP BY g % 512

-- name: empty_probe
-- Give them back.
TRUNCATE chaos_probe
