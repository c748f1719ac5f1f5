-- The registry as binary COPY streams of fixed-size columns (ingest.registry).

-- name: hubs
-- Enrolled hubs that are not revoked: id as a number, key, home.
COPY (
    SELECT ('x' || name)::bit(64)::bigint, hub_id, home_id
    FROM hub
    WHERE revoked_at IS NULL
) TO STDOUT (FORMAT BINARY)

-- name: revoked_hubs
-- Hubs that count no more: id as a number.
COPY (
    SELECT ('x' || name)::bit(64)::bigint
    FROM hub
    WHERE revoked_at IS NOT NULL
) TO STDOUT (FORMAT BINARY)

-- name: devices
-- Devices: address as a number, key, home.
COPY (
    SELECT ('x' || lpad(replace(address, ':', ''), 16, '0'))::bit(64)::bigint, device_id, home_id
    FROM device
) TO STDOUT (FORMAT BINARY)

-- name: shared_homes
-- Homes that ever had more than one hub.
COPY (SELECT home_id FROM hub GROUP BY home_id HAVING count(*) > 1) TO STDOUT (FORMAT BINARY)

-- name: links
-- Links in force: device and slot as one key, from, to (milliseconds, to exclusive), resident.
COPY (
    SELECT
        (device_id::bigint << 8) | user_slot,
        coalesce((extract(epoch FROM nullif(lower(during), '-infinity')) * 1000)::bigint, -(1::bigint << 62)),
        coalesce((extract(epoch FROM nullif(upper(during), 'infinity')) * 1000)::bigint, 1::bigint << 62),
        resident_id
    FROM link
    WHERE superseded_at IS NULL
) TO STDOUT (FORMAT BINARY)
