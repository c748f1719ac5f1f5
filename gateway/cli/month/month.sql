-- What the archive has at the end of a simulated month (gateway.cli.month.score).

-- name: stored
-- Every measurement: device, slot, sign's own time, measured (milliseconds), quality, resident.
COPY (
    SELECT
        device_id, user_slot::integer, (extract(epoch FROM identity_time) * 1000)::bigint,
        (extract(epoch FROM measured_at) * 1000)::bigint, time_quality::integer, resident_id
    FROM measurement
) TO STDOUT (FORMAT BINARY)

-- name: devices
-- Devices by their address.
SELECT device_id, address FROM device

-- name: residents
-- Residents by their public id.
SELECT resident_id, public_id FROM resident

-- name: kept_apart
-- What waits in the quarantine: device, kind, reason, reception (milliseconds), a record's bytes.
SELECT device, kind, reason, (extract(epoch FROM received_at) * 1000)::bigint, content
FROM quarantine
WHERE state = 'waiting' AND kind IN (1, 2)
