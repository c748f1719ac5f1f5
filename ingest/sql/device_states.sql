-- How hubs get on with devices (ingest.device_states).

-- name: put
-- What hubs tell now. Within a run of a hub's process the uptime says what is newer; a trouble that becomes another
-- is the same trouble still. A hub has a say in the devices of its own home only.
INSERT INTO hub_device AS known (hub_id, device_id, trouble, hub_started_at, hub_uptime_s)
SELECT h.hub_id, d.device_id, told.trouble, told.started_at, told.uptime_s
FROM unnest(
    %(hub)s::text[], %(device)s::text[], %(trouble)s::text[], %(started_at)s::timestamptz[],
    %(uptime_s)s::double precision[]
) AS told (hub, device, trouble, started_at, uptime_s)
JOIN hub h ON h.name = told.hub AND h.revoked_at IS NULL
JOIN device d ON d.address = told.device AND d.home_id = h.home_id
ORDER BY h.hub_id, d.device_id
ON CONFLICT (hub_id, device_id) DO UPDATE
SET
    trouble = excluded.trouble,
    since = CASE
        WHEN (known.trouble IS NULL) = (excluded.trouble IS NULL) THEN known.since
        ELSE excluded.since
    END,
    told_at = excluded.told_at, hub_started_at = excluded.hub_started_at,
    hub_uptime_s = excluded.hub_uptime_s
WHERE known.hub_started_at <> excluded.hub_started_at OR known.hub_uptime_s < excluded.hub_uptime_s
