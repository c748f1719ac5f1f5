-- A resident's measurements (api.archive). {quantities}: the columns of all quantities; {order} and
-- {beyond}: DESC and <, or ASC and >.
--
-- Each sign is read by itself along the index measurement_of_resident, chunk after chunk, and stops
-- after a page, with those that were measured in the same instant as its last; then the pages are
-- merged. The resident comes first: no row says that there is none, a row of nulls that there are
-- no measurements.

-- name: page
-- The measurements of one resident next to a place, in the order of the unique key.
SELECT found.*, device.address
FROM resident
LEFT JOIN LATERAL (
    SELECT one_sign.*
    FROM unnest(%(signs)s::smallint[]) AS wanted (code)
    CROSS JOIN LATERAL (
        SELECT
            measured_at, device_id, user_slot, sign, identity.us AS identity_us, stored_at,
            received_after_s, utc_offset, time_quality, unit_set, digits, status, flags,
            {quantities}
        FROM measurement
        CROSS JOIN LATERAL (
            SELECT (extract(epoch FROM identity_time) * 1000000)::bigint
        ) AS identity (us)
        WHERE resident_id = resident.resident_id
            AND sign = wanted.code
            AND measured_at >= %(from_at)s
            AND measured_at < %(to_at)s
            AND measured_at {beyond}= %(measured_at)s
            AND (measured_at, device_id, user_slot, sign, identity.us) {beyond}
                (%(measured_at)s, %(device_id)s, %(user_slot)s, %(sign)s, %(identity_us)s)
        ORDER BY measured_at {order}
        FETCH FIRST (%(limit)s) ROWS WITH TIES
    ) AS one_sign
    ORDER BY
        measured_at {order}, device_id {order}, user_slot {order}, sign {order},
        identity_us {order}
    LIMIT %(limit)s
) AS found ON true
LEFT JOIN device USING (device_id)
WHERE resident.public_id = %(resident)s
ORDER BY
    measured_at {order}, device_id {order}, user_slot {order}, sign {order}, identity_us {order}

-- name: latest
-- Of each sign the latest measurement, by when it was measured, and the latest that is no artefact:
-- two rows, which are the same one where the latest is none.
SELECT found.*, device.address
FROM resident
LEFT JOIN LATERAL (
    SELECT DISTINCT ON (wanted.code, without_artefact) one_sign.*
    FROM unnest(%(signs)s::smallint[]) AS wanted (code)
    CROSS JOIN (VALUES (false), (true)) AS kind (without_artefact)
    CROSS JOIN LATERAL (
        SELECT
            measured_at, device_id, user_slot, sign, identity.us AS identity_us, stored_at,
            received_after_s, utc_offset, time_quality, unit_set, digits, status, flags,
            {quantities}
        FROM measurement
        CROSS JOIN LATERAL (
            SELECT (extract(epoch FROM identity_time) * 1000000)::bigint
        ) AS identity (us)
        WHERE resident_id = resident.resident_id
            AND sign = wanted.code
            AND NOT (without_artefact AND flags & %(artefact)s <> 0)
        ORDER BY measured_at DESC
        FETCH FIRST ROW WITH TIES
    ) AS one_sign
    ORDER BY
        wanted.code, without_artefact, measured_at DESC, device_id DESC, user_slot DESC,
        identity_us DESC
) AS found ON true
LEFT JOIN device USING (device_id)
WHERE resident.public_id = %(resident)s
