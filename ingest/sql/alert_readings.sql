-- Readings as rules need them (ingest.alerts.readings).

-- name: readings
-- Milliseconds are exact in a float64, and so are resident keys.
SELECT
    m.resident_id, (extract(epoch FROM m.measured_at) * 1000)::bigint, m.flags, {quantities}
FROM measurement m
WHERE m.resident_id = ANY(%(residents)s) AND m.sign = %(sign)s AND m.measured_at >= %(from_at)s
