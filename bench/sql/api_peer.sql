-- What the API asks the database for each kind of request, as pgbench scripts (bench.api): the same
-- statements by the same role. {reader}: the account of the API's token; {since}: the first instant.

-- name: pressure
-- 90 days of a resident's blood pressure.
\set r random(1, :residents)
SELECT *
FROM access.begin(
    '{reader}', NULL, 'measurement.read', 'values',
    ARRAY[('00000000-0000-4000-8000-' || lpad(to_hex(:r::integer), 12, '0'))::uuid], NULL, NULL) AS begun
LEFT JOIN LATERAL access.page_descending(
    begun.resident_id, '{pressure}', '{since}', 'infinity', 'infinity', 0, 0::smallint, 0::smallint, 0, 1001
) ON true;

-- name: latest
-- The latest of all signs.
\set r random(1, :residents)
SELECT *
FROM access.begin(
    '{reader}', NULL, 'measurement.latest', 'values',
    ARRAY[('00000000-0000-4000-8000-' || lpad(to_hex(:r::integer), 12, '0'))::uuid], NULL, NULL) AS begun
LEFT JOIN LATERAL access.latest(begun.resident_id, '{signs}', 1::smallint) ON true;

-- name: worklist
-- Who was last measured when.
BEGIN;
SELECT * FROM access.begin(
    '{reader}', NULL, 'worklist.read', 'worklist', NULL, NULL, NULL);
SELECT * FROM access.last_measured('{signs}', NULL, {worklist} + 1);
SELECT * FROM access.begin(
    '{reader}', NULL, 'worklist.read', 'worklist',
    ARRAY(SELECT public_id FROM resident ORDER BY public_id LIMIT {worklist}), NULL, NULL);
COMMIT;
