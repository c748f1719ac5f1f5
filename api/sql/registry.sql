-- Who is measured by what: entering and listing it (api.registry, api.archive).
-- Parameters that are arrays go together by place. Opaque ids outside, integer keys inside.

-- name: add_homes
-- Enter homes by their public ids; those that are there stay as they are.
INSERT INTO home (public_id)
SELECT unnest(%(homes)s::uuid[])
ON CONFLICT (public_id) DO NOTHING

-- name: add_residents
-- Enter residents by their public ids; those that are there stay as they are.
INSERT INTO resident (public_id)
SELECT unnest(%(residents)s::uuid[])
ON CONFLICT (public_id) DO NOTHING
RETURNING resident_id

-- name: unknown_home
-- One of the given homes that is not entered.
SELECT given.home
FROM unnest(%(homes)s::uuid[]) AS given (home)
LEFT JOIN home ON home.public_id = given.home
WHERE home.home_id IS NULL
LIMIT 1

-- name: unknown_resident
-- One of the given residents who is not entered.
SELECT given.resident
FROM unnest(%(residents)s::uuid[]) AS given (resident)
LEFT JOIN resident ON resident.public_id = given.resident
WHERE resident.resident_id IS NULL
LIMIT 1

-- name: unknown_device
-- One of the given devices that is not entered.
SELECT given.device
FROM unnest(%(devices)s::text[]) AS given (device)
LEFT JOIN device ON device.address = given.device
WHERE device.device_id IS NULL
LIMIT 1

-- name: add_hubs
-- Enter hubs; those that are there stay as they are.
INSERT INTO hub (name, home_id)
SELECT given.name, home.home_id
FROM unnest(%(names)s::text[], %(homes)s::uuid[]) AS given (name, home)
JOIN home ON home.public_id = given.home
ON CONFLICT (name) DO NOTHING

-- name: hub_elsewhere
-- One of the given hubs that is in another home, with that home.
SELECT given.name, home.public_id
FROM unnest(%(names)s::text[], %(homes)s::uuid[]) AS given (name, home)
JOIN hub USING (name)
JOIN home USING (home_id)
WHERE home.public_id <> given.home
LIMIT 1

-- name: add_devices
-- Enter devices; those that are there stay as they are.
INSERT INTO device (address, home_id, model)
SELECT given.address, home.home_id, given.model
FROM unnest(%(addresses)s::text[], %(homes)s::uuid[], %(models)s::text[])
    AS given (address, home, model)
JOIN home ON home.public_id = given.home
ON CONFLICT (address) DO NOTHING

-- name: device_elsewhere
-- One of the given devices that is in another home, with that home.
SELECT given.address, home.public_id
FROM unnest(%(addresses)s::text[], %(homes)s::uuid[]) AS given (address, home)
JOIN device USING (address)
JOIN home USING (home_id)
WHERE home.public_id <> given.home
LIMIT 1

-- name: set_models
-- Note the models that are given and differ from what was known.
UPDATE device
SET model = given.model
FROM unnest(%(addresses)s::text[], %(models)s::text[]) AS given (address, model)
WHERE device.address = given.address
    AND given.model IS NOT NULL
    AND device.model IS DISTINCT FROM given.model

-- name: move_device
-- Put a device into another home.
UPDATE device
SET home_id = home.home_id
FROM home
WHERE device.address = %(address)s
    AND home.public_id = %(home)s
    AND device.home_id <> home.home_id

-- name: lock_links
-- Those who change links take turns; readers are not held up.
LOCK TABLE link IN SHARE ROW EXCLUSIVE MODE

-- name: link_in_the_way
-- One link in force that overlaps one of the given and does not say the same. OFFSET 0: one look
-- along the index for each; the planner, without statistics right after a bulk, would compare all.
SELECT
    given.address AS device, there.user_slot, resident.public_id AS resident,
    lower(there.during) AS starts_at, upper(there.during) AS ends_at
FROM unnest(
    %(devices)s::text[], %(user_slots)s::smallint[], %(residents)s::uuid[],
    %(starts)s::timestamptz[], %(ends)s::timestamptz[]
) AS given (address, user_slot, resident, starts_at, ends_at)
JOIN device USING (address)
CROSS JOIN LATERAL (
    SELECT link.user_slot, link.resident_id, link.during
    FROM link
    WHERE link.device_id = device.device_id
        AND link.user_slot = given.user_slot
        AND link.superseded_at IS NULL
        AND link.during && tstzrange(given.starts_at, given.ends_at)
    OFFSET 0
) AS there
JOIN resident USING (resident_id)
WHERE resident.public_id <> given.resident
    OR NOT there.during @> tstzrange(given.starts_at, given.ends_at)
LIMIT 1

-- name: add_links
-- Enter links; what a link in force says already stays as it is. OFFSET 0: as above.
INSERT INTO link (device_id, user_slot, resident_id, during)
SELECT DISTINCT
    device.device_id, given.user_slot, resident.resident_id,
    tstzrange(given.starts_at, given.ends_at)
FROM unnest(
    %(devices)s::text[], %(user_slots)s::smallint[], %(residents)s::uuid[],
    %(starts)s::timestamptz[], %(ends)s::timestamptz[]
) AS given (address, user_slot, resident, starts_at, ends_at)
JOIN device USING (address)
JOIN resident ON resident.public_id = given.resident
WHERE NOT EXISTS (
    SELECT
    FROM link
    WHERE link.device_id = device.device_id
        AND link.user_slot = given.user_slot
        AND link.superseded_at IS NULL
        AND link.during @> tstzrange(given.starts_at, given.ends_at)
    OFFSET 0
)
RETURNING resident_id

-- name: add_shared_links
-- Enter who shares a slot; what stands already stays as it is. OFFSET 0: as above.
INSERT INTO shared_link (device_id, user_slot, resident_id, during, usual)
SELECT DISTINCT
    device.device_id, given.user_slot, resident.resident_id,
    tstzrange(given.starts_at, given.ends_at), given.usual
FROM unnest(
    %(devices)s::text[], %(user_slots)s::smallint[], %(residents)s::uuid[],
    %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(usual)s::double precision[]
) AS given (address, user_slot, resident, starts_at, ends_at, usual)
JOIN device USING (address)
JOIN resident ON resident.public_id = given.resident
WHERE NOT EXISTS (
    SELECT
    FROM shared_link AS there
    WHERE there.device_id = device.device_id
        AND there.user_slot = given.user_slot
        AND there.resident_id = resident.resident_id
        AND there.superseded_at IS NULL
        AND there.during @> tstzrange(given.starts_at, given.ends_at)
        AND (given.usual IS NULL OR there.usual = given.usual)
    OFFSET 0
)
RETURNING resident_id

-- name: restate_shared_links
-- Those that say something else of what is usual are superseded; the new ones take their place.
WITH restated AS (
    UPDATE shared_link AS there
    SET superseded_at = now()
    FROM unnest(
        %(devices)s::text[], %(user_slots)s::smallint[], %(residents)s::uuid[],
        %(usual)s::double precision[]
    ) AS given (address, user_slot, resident, usual)
    JOIN device USING (address)
    JOIN resident ON resident.public_id = given.resident
    WHERE there.device_id = device.device_id
        AND there.user_slot = given.user_slot
        AND there.resident_id = resident.resident_id
        AND there.superseded_at IS NULL
        AND given.usual IS NOT NULL
        AND there.usual IS DISTINCT FROM given.usual
    RETURNING there.device_id, there.user_slot, there.resident_id, there.during, given.usual
)
INSERT INTO shared_link (device_id, user_slot, resident_id, during, usual)
SELECT device_id, user_slot, resident_id, during, usual FROM restated
RETURNING resident_id

-- name: end_shared_link
-- The sharing of a resident that reaches beyond a moment ends there; one that begins later never was.
WITH ended AS (
    UPDATE shared_link AS there
    SET superseded_at = now()
    FROM device, resident
    WHERE device.address = %(device)s
        AND resident.public_id = %(resident)s
        AND there.device_id = device.device_id
        AND there.user_slot = %(user_slot)s
        AND there.resident_id = resident.resident_id
        AND there.superseded_at IS NULL
        AND NOT there.during << tstzrange(%(at)s, NULL)
    RETURNING there.device_id, there.user_slot, there.resident_id, there.during, there.usual
),
kept AS (
    INSERT INTO shared_link (device_id, user_slot, resident_id, during, usual)
    SELECT device_id, user_slot, resident_id, during * tstzrange(NULL, %(at)s), usual
    FROM ended
    WHERE NOT isempty(during * tstzrange(NULL, %(at)s))
)
SELECT resident_id FROM ended

-- name: list_shared_links
-- Who shares which slot, of one device or one resident where they are given.
SELECT
    device.address AS device, there.user_slot, resident.public_id AS resident,
    lower(there.during) AS starts_at, upper(there.during) AS ends_at, there.usual
FROM shared_link AS there
JOIN device USING (device_id)
JOIN resident USING (resident_id)
WHERE there.superseded_at IS NULL
    AND (%(device)s::text IS NULL OR device.address = %(device)s)
    AND (%(resident)s::uuid IS NULL OR resident.public_id = %(resident)s)
ORDER BY device.address, there.user_slot, lower(there.during) NULLS FIRST, resident.public_id
LIMIT %(limit)s

-- name: link_to_end
-- The link that covers a moment or, where none does, the last one before it.
SELECT
    link.link_id, device.address AS device, link.user_slot, resident.public_id AS resident,
    lower(link.during) AS starts_at, upper(link.during) AS ends_at
FROM link
JOIN device USING (device_id)
JOIN resident USING (resident_id)
WHERE device.address = %(device)s
    AND link.user_slot = %(user_slot)s
    AND link.superseded_at IS NULL
    AND (lower_inf(link.during) OR lower(link.during) <= %(at)s)
ORDER BY lower(link.during) DESC NULLS LAST
LIMIT 1

-- name: supersede_link
-- A link is not changed: what was believed stays known, with the time until which it was.
UPDATE link SET superseded_at = now() WHERE link_id = %(link_id)s

-- name: count_open_links
-- How many links of a device, or shares in it, reach beyond a moment.
SELECT count(*)
FROM (
    SELECT device_id, during, superseded_at FROM link
    UNION ALL
    SELECT device_id, during, superseded_at FROM shared_link
) AS link
JOIN device USING (device_id)
WHERE device.address = %(address)s
    AND link.superseded_at IS NULL
    AND (upper_inf(link.during) OR upper(link.during) > %(at)s)

-- name: list_homes
-- Homes in the order of their ids, after one of them.
SELECT
    home.public_id AS id, home.created_at,
    (SELECT count(*) FROM hub WHERE hub.home_id = home.home_id) AS hubs,
    (SELECT count(*) FROM device WHERE device.home_id = home.home_id) AS devices
FROM home
WHERE %(after)s::uuid IS NULL OR home.public_id > %(after)s
ORDER BY home.public_id
LIMIT %(limit)s

-- name: list_residents
-- Residents in the order of their ids, after one of them.
SELECT public_id AS id, created_at
FROM resident
WHERE %(after)s::uuid IS NULL OR public_id > %(after)s
ORDER BY public_id
LIMIT %(limit)s

-- name: list_hubs
-- Hubs in the order of their names, after one of them; of one home where it is given.
SELECT hub.name, home.public_id AS home, hub.enrolled_at, hub.revoked_at
FROM hub
JOIN home USING (home_id)
WHERE (%(home)s::uuid IS NULL OR home.public_id = %(home)s)
    AND (%(after)s::text IS NULL OR hub.name > %(after)s)
ORDER BY hub.name
LIMIT %(limit)s

-- name: list_devices
-- Devices in the order of their addresses, after one of them; of one home where it is given.
SELECT device.address, home.public_id AS home, device.model, device.created_at
FROM device
JOIN home USING (home_id)
WHERE (%(home)s::uuid IS NULL OR home.public_id = %(home)s)
    AND (%(after)s::text IS NULL OR device.address > %(after)s)
ORDER BY device.address
LIMIT %(limit)s

-- name: list_links
-- Links in force, of one device or one resident where they are given.
SELECT
    device.address AS device, link.user_slot, resident.public_id AS resident,
    lower(link.during) AS starts_at, upper(link.during) AS ends_at
FROM link
JOIN device USING (device_id)
JOIN resident USING (resident_id)
WHERE link.superseded_at IS NULL
    AND (%(device)s::text IS NULL OR device.address = %(device)s)
    AND (%(resident)s::uuid IS NULL OR resident.public_id = %(resident)s)
ORDER BY device.address, link.user_slot, lower(link.during) NULLS FIRST
LIMIT %(limit)s

-- name: resident_with_links
-- One resident, once for each link in force; once with nulls where there is none.
SELECT
    resident.created_at, device.address, link.user_slot, lower(link.during), upper(link.during)
FROM resident
LEFT JOIN (link JOIN device USING (device_id))
    ON link.resident_id = resident.resident_id AND link.superseded_at IS NULL
WHERE resident.public_id = %(resident)s
ORDER BY device.address, link.user_slot, lower(link.during) NULLS FIRST
