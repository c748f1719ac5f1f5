-- Readings as rules need them (ingest.alerts.readings).

-- name: readings
-- All columns are fixed in width and none is null, so that the stream is an array as it stands.
COPY (
    SELECT m.resident_id, m.measured_at, m.flags::integer, {quantities}
    FROM measurement m
    WHERE m.resident_id = ANY(%(residents)s::integer[]) AND m.sign = %(sign)s AND m.measured_at >= %(from_at)s
) TO STDOUT (FORMAT binary)
