-- Measurements for FHIR (api.fhir.store), through the doors of the schema `access`
-- (ingest/sql/fhir.sql). {columns}: what api.fhir.observations reads of a row; {direction}: ascending
-- or descending.

-- name: page
-- One resident's rows from a place on.
SELECT {columns}
FROM public.resident AS whose
CROSS JOIN LATERAL access.observations_{direction}(
    whose.resident_id, %(signs)s::smallint[], %(sent_masks)s::bigint[], %(not_sent)s::bigint[],
    %(status_bits)s::integer[], %(retracted)s::integer[], %(preliminary)s::integer[],
    %(statuses)s::text[], %(devices)s::text[], %(from_at)s, %(to_at)s, %(of_stored)s::boolean[],
    %(starts_from)s::timestamptz[], %(starts_before)s::timestamptz[],
    %(ends_from)s::timestamptz[], %(ends_before)s::timestamptz[], %(either)s::boolean[],
    %(measured_at)s, %(device_id)s, %(user_slot)s::smallint, %(sign)s::smallint,
    %(identity_us)s::bigint, %(limit)s
) AS found
WHERE whose.public_id = %(resident)s

-- name: last
-- Of each part the latest rows by when they were measured; the part's place at the end of the row.
-- {columns_of_last}: the columns, of a composite.
SELECT {columns_of_last}, last.part
FROM public.resident AS whose
CROSS JOIN LATERAL access.last_observations(
    whose.resident_id, %(signs)s::smallint[], %(sent_masks)s::bigint[], %(not_sent)s::bigint[],
    %(status_bits)s::integer[], %(retracted)s::integer[], %(preliminary)s::integer[],
    %(statuses)s::text[], %(devices)s::text[], %(from_at)s, %(to_at)s, %(of_stored)s::boolean[],
    %(starts_from)s::timestamptz[], %(starts_before)s::timestamptz[],
    %(ends_from)s::timestamptz[], %(ends_before)s::timestamptz[], %(either)s::boolean[], %(limit)s
) AS last
WHERE whose.public_id = %(resident)s

-- name: count
-- How many Observations a search finds.
SELECT access.count_observations(
    whose.resident_id, %(signs)s::smallint[], %(sent_masks)s::bigint[], %(not_sent)s::bigint[],
    %(status_bits)s::integer[], %(retracted)s::integer[], %(preliminary)s::integer[],
    %(statuses)s::text[], %(devices)s::text[], %(from_at)s, %(to_at)s, %(of_stored)s::boolean[],
    %(starts_from)s::timestamptz[], %(starts_before)s::timestamptz[],
    %(ends_from)s::timestamptz[], %(ends_before)s::timestamptz[], %(either)s::boolean[]
)
FROM public.resident AS whose
WHERE whose.public_id = %(resident)s

-- name: statistics
-- Of each given quantity: how many values, mean, least, greatest, standard deviation (of the sample),
-- first and last time; without artefacts. {quantity}: the column, by the place in the given arrays.
SELECT
    wanted.part, count(value.number), avg(value.number), min(value.number), max(value.number),
    stddev_samp(value.number), min(value.measured_at), max(value.measured_at)
FROM unnest(%(signs)s::smallint[], %(columns)s::text[]) WITH ORDINALITY
    AS wanted (code, column_name, part)
LEFT JOIN LATERAL (
    SELECT found.measured_at, {quantity} AS number
    FROM access.measurement AS found
    JOIN public.resident AS whose USING (resident_id)
    WHERE whose.public_id = %(resident)s
        AND found.sign = wanted.code
        AND found.measured_at >= %(from_at)s
        AND found.measured_at < %(to_at)s
        AND found.flags & %(artefact)s = 0
) AS value ON value.number IS NOT NULL
GROUP BY wanted.part
ORDER BY wanted.part

-- name: excluded
-- Of each given sign: how many measurements of the time are artefacts, which statistics leave out.
SELECT wanted.code, count(found.measured_at)
FROM unnest(%(signs)s::smallint[]) AS wanted (code)
LEFT JOIN (
    access.measurement AS found
    JOIN public.resident AS whose
        ON whose.resident_id = found.resident_id AND whose.public_id = %(resident)s
)
    ON found.sign = wanted.code
    AND found.measured_at >= %(from_at)s
    AND found.measured_at < %(to_at)s
    AND found.flags & %(artefact)s <> 0
GROUP BY wanted.code

-- name: owner
-- Whose a row of a unique key is; null: there is none.
SELECT access.resident_of(
    %(measured_at)s, %(device_id)s, %(user_slot)s::smallint, %(sign)s::smallint,
    %(identity_us)s::bigint
)

-- name: one
-- One row by its unique key.
SELECT {columns}
FROM access.observation AS found
WHERE found.device_id = %(device_id)s
    AND found.user_slot = %(user_slot)s::smallint
    AND found.sign = %(sign)s::smallint
    AND found.measured_at = %(measured_at)s
    AND found.identity_us = %(identity_us)s::bigint

-- name: all
-- All rows of one resident that were stored or changed since a time, oldest first.
SELECT {columns}
FROM access.observation AS found
JOIN public.resident AS whose USING (resident_id)
WHERE whose.public_id = %(resident)s
    AND found.stored_at >= %(since)s
ORDER BY found.measured_at

-- name: devices
-- Devices by their addresses.
SELECT address, model, created_at
FROM device
WHERE address = ANY (%(addresses)s::text[])
ORDER BY address

-- name: devices_of_resident
-- The devices that are or were linked to one resident.
SELECT DISTINCT device.address, device.model, device.created_at
FROM link
JOIN resident USING (resident_id)
JOIN device USING (device_id)
WHERE resident.public_id = %(resident)s
    AND link.superseded_at IS NULL
ORDER BY device.address

-- name: hub
-- A hub by its name.
SELECT name, enrolled_at, revoked_at FROM hub WHERE name = %(name)s

-- name: patients
-- Residents in the order of their ids: all, or those given.
SELECT public_id::text, created_at
FROM resident
WHERE (%(ids)s::uuid[] IS NULL OR public_id = ANY (%(ids)s::uuid[]))
    AND (%(after)s::uuid IS NULL OR public_id > %(after)s)
ORDER BY public_id
LIMIT %(limit)s

-- name: audit
-- Who did what to one resident's data, the newest first, before one of the acts.
SELECT audit_id, at, actor, action, reason, origin, detail, resident::text
FROM access.audited
WHERE resident = %(resident)s
    AND (%(before)s::bigint IS NULL OR audit_id < %(before)s)
ORDER BY audit_id DESC
LIMIT %(limit)s

-- name: stored_at
-- One resident's rows that were stored or changed at one moment, the latest first.
SELECT {columns}
FROM access.observation AS found
JOIN public.resident AS whose USING (resident_id)
WHERE whose.public_id = %(resident)s
    AND found.sign = ANY (%(signs)s::smallint[])
    AND found.measured_at >= %(from_at)s
    AND found.measured_at <= %(to_at)s
    AND found.stored_at = %(stored_at)s
ORDER BY found.measured_at DESC
LIMIT %(limit)s
