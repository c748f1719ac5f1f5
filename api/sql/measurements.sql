-- A resident's measurements (api.archive). {values}: those of the row's sign; {direction}:
-- ascending or descending. The functions of the schema `access` read along the index
-- measurement_of_resident, and only what the transaction's reader may see.
--
-- One statement decides, audits and reads: access.begin is asked first, since the rest depends on its
-- row, and that row comes by itself, with a refusal or none, where there are no measurements.

-- name: page
-- The measurements of one resident next to a place, in the order of the unique key.
SELECT
    measured_at, device_id, user_slot, sign, identity_time, stored_at,
    received_after_s, utc_offset, time_quality, unit_set, digits, status, flags, {values},
    device, CASE WHEN NOT begun.admitted THEN begun.why END AS refusal
FROM access.begin(
    %(reader)s, %(session)s, %(action)s, %(needs)s, %(whom)s, %(reason)s, %(origin)s
) AS begun
LEFT JOIN LATERAL access.page_{direction}(
    begun.resident_id, %(signs)s, %(from_at)s, %(to_at)s, %(measured_at)s, %(device_id)s,
    %(user_slot)s::smallint, %(sign)s::smallint, %(identity_us)s, %(limit)s
) AS m ON true

-- name: latest
-- Of each sign the latest measurement, by when it was measured, and the latest that is no artefact:
-- two rows, which are the same one where the latest is none.
SELECT
    measured_at, device_id, user_slot, sign, identity_time, stored_at,
    received_after_s, utc_offset, time_quality, unit_set, digits, status, flags, {values},
    device, CASE WHEN NOT begun.admitted THEN begun.why END AS refusal
FROM access.begin(
    %(reader)s, %(session)s, %(action)s, %(needs)s, %(whom)s, %(reason)s, %(origin)s
) AS begun
LEFT JOIN LATERAL access.latest(
    begun.resident_id, %(signs)s, %(artefact)s::smallint
) AS m ON true
