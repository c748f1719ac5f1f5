-- Residents as people: finding them, their profile, writes (api.people, api.links).

-- name: find
-- Whoever bears one of these marks, and whether the reader may see them.
SELECT
    found.resident, visible.resident_id IS NOT NULL AS visible, p.sealed, k.key_id, k.wrapped
FROM access.find_resident(%(national_id)s, %(health_card)s, %(name)s, %(limit)s) AS found
LEFT JOIN resident AS visible USING (resident_id)
LEFT JOIN resident_profile AS p USING (resident_id)
LEFT JOIN resident_key AS k USING (resident_id)

-- name: profile
-- What the archive knows of one resident.
SELECT
    p.birth_year, p.sex, p.height_cm, p.clinic, p.targets, p.sealed, k.key_id, k.wrapped,
    r.erased_at, kept.public_id
FROM resident AS r
LEFT JOIN resident_profile AS p USING (resident_id)
LEFT JOIN resident_key AS k USING (resident_id)
LEFT JOIN resident AS kept ON kept.resident_id = r.merged_into
WHERE r.public_id = %(resident)s

-- name: set_targets
-- Set a resident's own limits.
SELECT admitted, why, done
FROM access.set_targets(
    %(reader)s, %(session)s, %(origin)s, %(resident)s, %(targets)s, %(before)s
)

-- name: add_link
-- Link a slot of a device to a resident.
SELECT admitted, why, done
FROM access.add_link(
    %(reader)s, %(session)s, %(origin)s, %(resident)s, %(device)s, %(user_slot)s::smallint,
    %(starts_at)s, %(ends_at)s
)

-- name: end_link
-- End the link of a slot to a resident.
SELECT admitted, why, done
FROM access.end_link(
    %(reader)s, %(session)s, %(origin)s, %(resident)s, %(device)s, %(user_slot)s::smallint,
    %(at)s
)

-- name: list_links
-- Links in force of whom the reader may see, in the order of their keys, after one of them.
SELECT
    l.link_id AS id, d.address AS device, l.user_slot, r.public_id AS resident,
    lower(l.during) AS starts_at, upper(l.during) AS ends_at
FROM link AS l
JOIN device AS d USING (device_id)
JOIN resident AS r USING (resident_id)
WHERE l.superseded_at IS NULL
    AND l.link_id > coalesce(%(after)s::integer, 0)
    AND (%(device)s::text IS NULL OR d.address = %(device)s)
    AND (%(resident)s::uuid IS NULL OR r.public_id = %(resident)s)
ORDER BY l.link_id
LIMIT %(limit)s

-- name: list_quarantine
-- What is kept apart, the newest first, before one of them; without its content.
SELECT
    q.quarantine_id AS id, q.kind, q.reason, q.sign, q.state, h.name AS hub,
    q.device, q.received_at, q.measured_at, q.quarantined_at, q.resolved_at, q.seen
FROM quarantine AS q
LEFT JOIN hub AS h USING (hub_id)
WHERE (%(after)s::bigint IS NULL OR q.quarantine_id < %(after)s)
    AND (%(state)s::text IS NULL OR q.state = %(state)s)
    AND (%(reason)s::smallint IS NULL OR q.reason = %(reason)s)
ORDER BY q.quarantine_id DESC
LIMIT %(limit)s

-- name: last_measured
-- When each resident of the reader was last measured.
SELECT resident, sign, measured_at
FROM access.last_measured(%(signs)s, %(after)s, %(limit)s)

-- name: every_measurement
-- All measurements of one resident, the oldest first, for whoever owns the schema.
SELECT
    m.measured_at, m.device_id, m.user_slot, m.sign,
    (extract(epoch FROM m.identity_time) * 1000000)::bigint AS identity_us, m.stored_at,
    m.received_after_s, m.utc_offset, m.time_quality, m.unit_set, m.digits, m.status, m.flags,
    {values}, d.address
FROM measurement AS m
LEFT JOIN device AS d USING (device_id)
WHERE m.resident_id = %(resident_id)s
ORDER BY m.measured_at

-- name: unassigned
-- Readings that wait for a person and may be the resident's, from behind a place.
SELECT measured_at, device_id, user_slot, sign, identity_us, device, probability
FROM access.unassigned(
    %(resident)s, %(limit)s, %(measured_us)s::bigint, %(device_id)s::integer,
    %(user_slot)s::smallint, %(sign)s::smallint, %(identity_us)s::bigint
)

-- name: claim
-- Say whose readings are.
SELECT admitted, why, done
FROM access.claim(
    %(reader)s, %(session)s, %(origin)s, %(resident)s, %(reason)s, %(measured_us)s::bigint[],
    %(devices)s::integer[], %(user_slots)s::smallint[], %(signs)s::smallint[],
    %(identity_us)s::bigint[]
)
