-- What other gateways handed over through FHIR (ingest.inbox).

-- name: take_turn
-- One worker at a time reads the inbox; it goes with its connection.
SELECT pg_try_advisory_lock(18510, 0)

-- name: waiting
-- The next batches, without those that are on their way already.
SELECT inbox_id, hub, received_at, payload
FROM fhir_inbox
WHERE inbox_id <> ALL (%(taken)s::bigint[])
ORDER BY inbox_id
LIMIT %(limit)s

-- name: count
-- How many batches are there, those on their way too; the API keeps it at 10,000 at most.
SELECT count(*) FROM fhir_inbox

-- name: remove
-- Forget batches that are committed.
DELETE FROM fhir_inbox WHERE inbox_id = ANY (%(committed)s::bigint[])
