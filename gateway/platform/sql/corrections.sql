-- What follows when stored readings get another owner (gateway.platform.corrections).

-- name: forget_posteriors
-- Of readings that a correction decided about.
DELETE FROM posterior
USING attribution AS a
WHERE a.correction_id = %(correction_id)s
    AND posterior.device_id = a.device_id
    AND posterior.user_slot = a.user_slot
    AND posterior.sign = a.sign
    AND posterior.identity_time = a.identity_time
    AND posterior.measured_at = a.measured_at

-- name: make_due
-- What is derived from the readings of these residents is to be derived again: workers forget what
-- they remember of them, what is unusual is looked at anew, and shared devices too.
WITH spans AS (
    SELECT * FROM unnest(
        %(residents)s::integer[], %(signs)s::smallint[], %(oldest_ms)s::bigint[],
        %(newest_ms)s::bigint[]
    ) AS given (resident_id, sign, oldest_ms, newest_ms)
), due AS (
    INSERT INTO baseline_due (resident_id, sign, from_at, to_at)
    SELECT
        resident_id, sign, to_timestamp(oldest_ms / 1000.0), to_timestamp(newest_ms / 1000.0)
    FROM spans
), shared AS (
    INSERT INTO attribution_due (device_id, user_slot)
    SELECT DISTINCT device_id, user_slot
    FROM shared_link
    WHERE superseded_at IS NULL
        AND (
            resident_id IN (SELECT resident_id FROM spans)
            OR (device_id = %(device_id)s AND user_slot = %(user_slot)s)
        )
), noted AS (
    INSERT INTO registry_change (kind, key)
    SELECT DISTINCT 4, resident_id FROM spans
)
SELECT pg_notify('hearth_registry', '')
