-- A resident's measurements in buckets, for charts (api.series). {code}: of one sign; {means}, {lows},
-- {highs}: `aggregate` of each of its quantities. Artefacts are counted and otherwise left out. Buckets
-- begin and end by the clock of the zone; those of a day or longer at its midnight, whatever the zone
-- does to its clock that day.

-- name: of_sign
-- One sign's buckets.
SELECT
    {code}::smallint AS sign,
    time_bucket(%(width)s::interval, m.measured_at, %(zone)s) AS begins_at,
    count(*) AS count,
    count(*) FILTER (WHERE m.flags & %(artefact)s <> 0) AS artefacts,
    ARRAY[{means}]::float8[] AS means,
    ARRAY[{lows}]::float8[] AS lows,
    ARRAY[{highs}]::float8[] AS highs
FROM access.measurement m
WHERE m.resident_id = (SELECT resident_id FROM resident WHERE public_id = %(resident)s)
    AND m.sign = {code}
    AND m.measured_at >= %(from_at)s
    AND m.measured_at < %(to_at)s
GROUP BY begins_at

-- name: aggregate
-- One quantity of a bucket, without artefacts.
{aggregate}(m.{quantity}) FILTER (WHERE m.flags & %(artefact)s = 0)
