-- Of the archive as a whole (api.archive).

-- name: lacking_columns
-- Those of the given columns that the measurement table does not have; all where there is no table.
SELECT name
FROM unnest(%(columns)s::text[]) AS wanted (name)
WHERE NOT EXISTS (
    SELECT
    FROM pg_attribute
    WHERE attrelid = to_regclass('measurement') AND attname = wanted.name AND NOT attisdropped
)

-- name: schema_version
-- The migration that was applied last, 0 before the first.
SELECT coalesce(max(version), 0) FROM schema_migration

-- name: ledger
-- What became of what each hub published, in the order of their names, after one of them.
SELECT
    hub.name AS hub,
    count(terms.epoch) AS epochs,
    coalesce(sum(terms.batches), 0)::bigint AS batches,
    coalesce(sum(terms.missing), 0)::bigint AS missing,
    coalesce(sum(terms.published), 0)::bigint AS published,
    coalesce(sum(terms.stored), 0)::bigint AS stored,
    coalesce(sum(terms.duplicate), 0)::bigint AS duplicate,
    coalesce(sum(terms.quarantined), 0)::bigint AS quarantined,
    coalesce(bool_and(terms.missing = 0 AND terms.accounted), true) AS balanced,
    max(terms.last_committed_at) AS last_committed_at
FROM (
    SELECT hub_id, name
    FROM hub
    WHERE %(after)s::text IS NULL OR name > %(after)s
    ORDER BY name
    LIMIT %(limit)s
) AS hub
LEFT JOIN LATERAL (
    SELECT
        epoch, count(*) AS batches, max(sequence) - count(*) AS missing,
        sum(published) AS published, sum(stored) AS stored, sum(duplicate) AS duplicate,
        sum(quarantined) AS quarantined, max(committed_at) AS last_committed_at,
        sum(published) = sum(stored) + sum(duplicate) + sum(quarantined) AS accounted
    FROM batch
    WHERE batch.hub_id = hub.hub_id
    GROUP BY epoch
) AS terms ON true
GROUP BY hub.name
ORDER BY hub.name
