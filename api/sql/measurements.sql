-- A resident's measurements (api.archive). {values}: those of the row's sign; {direction}:
-- ascending or descending. The functions of the schema `access` read along the index
-- measurement_of_resident, and only what the transaction's reader may see.

-- name: page
-- The measurements of one resident next to a place, in the order of the unique key.
SELECT
    measured_at, device_id, user_slot, sign, identity_time, stored_at,
    received_after_s, utc_offset, time_quality, unit_set, digits, status, flags, {values},
    device
FROM resident
CROSS JOIN LATERAL access.page_{direction}(
    resident.resident_id, %(signs)s, %(from_at)s, %(to_at)s, %(measured_at)s, %(device_id)s,
    %(user_slot)s::smallint, %(sign)s::smallint, %(identity_us)s, %(limit)s
) AS m
WHERE resident.public_id = %(resident)s

-- name: latest
-- Of each sign the latest measurement, by when it was measured, and the latest that is no artefact:
-- two rows, which are the same one where the latest is none.
SELECT
    measured_at, device_id, user_slot, sign, identity_time, stored_at,
    received_after_s, utc_offset, time_quality, unit_set, digits, status, flags, {values},
    device
FROM resident
CROSS JOIN LATERAL access.latest(
    resident.resident_id, %(signs)s, %(artefact)s::smallint
) AS m
WHERE resident.public_id = %(resident)s
