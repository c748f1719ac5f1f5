-- Bulk exports (api.fhir.export). Whose an export is, is asked with every statement.

-- name: begin
-- Enter an export, unless so many are under way already.
INSERT INTO fhir_export (account, principal, request, kinds, since)
SELECT %(account)s, %(principal)s, %(request)s, %(kinds)s::text[], %(since)s::timestamptz
WHERE (SELECT count(*) FROM fhir_export WHERE state = 'running') < %(running_max)s
RETURNING export_id

-- name: read
-- One export of an account.
SELECT
    export_id, request, state, started_at, residents_done, residents_all, counts, finished_at, error,
    files_of
FROM fhir_export
WHERE export_id = %(export)s AND account = %(account)s

-- name: cancel
-- Cancel an export of an account, finished or not.
UPDATE fhir_export
SET state = 'cancelled', finished_at = now()
WHERE export_id = %(export)s AND account = %(account)s AND state <> 'cancelled'
RETURNING export_id

-- name: claim
-- Take the oldest export that nobody works on; whoever had it before notes nothing any more.
UPDATE fhir_export
SET lease = lease + 1, leased_until = now() + make_interval(secs => %(lease_s)s)
WHERE export_id = (
    SELECT export_id
    FROM fhir_export
    WHERE state = 'running' AND leased_until < now()
    ORDER BY started_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING
    export_id, lease, files_of, principal, kinds, since, behind, residents_done, residents_all, sizes,
    counts

-- name: release
-- Let another worker have it at once: this one ends.
UPDATE fhir_export SET leased_until = '-infinity'
WHERE export_id = %(export)s AND lease = %(lease)s

-- name: progress
-- Note how far it is; no row: it was cancelled meanwhile, or is another worker's.
UPDATE fhir_export
SET behind = %(behind)s, residents_done = %(done)s, residents_all = %(all)s, sizes = %(sizes)s,
    counts = %(counts)s, files_of = %(lease)s,
    leased_until = now() + make_interval(secs => %(lease_s)s)
WHERE export_id = %(export)s AND state = 'running' AND lease = %(lease)s
RETURNING export_id

-- name: finish
-- It is complete, or has failed and says why; no row: it was cancelled meanwhile, or is another worker's.
UPDATE fhir_export
SET state = CASE WHEN %(error)s::text IS NULL THEN 'complete' ELSE 'failed' END,
    error = %(error)s, finished_at = now()
WHERE export_id = %(export)s AND state = 'running' AND lease = %(lease)s
RETURNING export_id

-- name: forget
-- Forget exports that ended long ago, so many at once.
DELETE FROM fhir_export
WHERE export_id IN (
    SELECT export_id
    FROM fhir_export
    WHERE finished_at < now() - make_interval(days => %(days)s)
    LIMIT %(rows)s
)
RETURNING export_id

-- name: kept
-- Exports whose files are to be kept; the others' are removed.
SELECT export_id
FROM fhir_export
WHERE state = 'running'
    OR state = 'complete' AND finished_at > now() - make_interval(hours => %(hours)s)
