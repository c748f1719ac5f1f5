-- What statistics and alerts read (api.clinical), through the doors of the schema access.

-- name: readings
-- A resident's readings of some days, all signs.
SELECT m.sign, (extract(epoch FROM m.measured_at) * 1000)::bigint, m.flags, {quantities}
FROM access.measurement m
WHERE m.resident_id = ANY (SELECT r.resident_id FROM resident r WHERE r.public_id = %(resident)s)
    AND m.sign = ANY(%(signs)s)
    AND m.measured_at >= %(from_at)s AND m.measured_at < %(to_at)s

-- name: alerts
-- Alerts of those whom the transaction may read, newest first, behind one. Null does not filter.
SELECT
    public_id AS id, resident, rule, title, source, version, stage, state, is_note, started_at, last_at,
    cleared_at, alarm_at, raised_at, changed_at, readings
FROM access.alert
WHERE (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
    AND (
        %(after)s::uuid IS NULL
        OR (started_at, alert_id) < (
            SELECT place.started_at, place.alert_id FROM access.alert place
            WHERE place.public_id = %(after)s
        )
    )
ORDER BY started_at DESC, alert_id DESC
LIMIT %(limit)s

-- name: alert
-- One alert.
SELECT
    public_id AS id, resident, rule, title, source, version, stage, state, is_note, started_at, last_at,
    cleared_at, alarm_at, raised_at, changed_at, readings
FROM access.alert
WHERE public_id = %(alert)s

-- name: events
-- What happened to an alert, and what people said.
SELECT e.at, e.actor, e.what, e.note
FROM access.alert_event e
JOIN access.alert a USING (alert_id)
WHERE a.public_id = %(alert)s
ORDER BY e.event_id

-- name: settle
-- Acknowledge or resolve an alert.
SELECT access.settle_alert(%(alert)s, %(reader)s, %(state)s, %(note)s)
