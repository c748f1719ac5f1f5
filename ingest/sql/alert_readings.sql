-- Readings as rules need them (ingest.alerts.readings).

-- name: readings
-- One text of bytes that is an array as it stands, since no column is null; a row by itself costs the client more
-- than its reading costs the server.
SELECT string_agg(
    int4send(m.resident_id) || timestamptz_send(m.measured_at) || int4send(m.flags::integer) || {quantities}, '')
FROM measurement m
WHERE m.resident_id = ANY(%(residents)s::integer[]) AND m.sign = %(sign)s AND m.measured_at >= %(from_at)s
