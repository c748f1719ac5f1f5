-- The ledger and its proof (ingest.ledger).

-- name: by_hub
-- Per hub and epoch: the terms, and how many sequences are missing below the highest.
SELECT
    h.name, b.epoch, count(*), max(b.sequence) - count(*), sum(b.published)::bigint,
    sum(b.stored)::bigint, sum(b.duplicate)::bigint, sum(b.quarantined)::bigint,
    max(b.committed_at)
FROM batch b
JOIN hub h USING (hub_id)
WHERE %(hub)s::text IS NULL OR h.name = %(hub)s
GROUP BY h.name, b.epoch
ORDER BY h.name, max(b.committed_at)

-- name: gaps
-- The sequences below the highest that never came, as ranges.
SELECT name, epoch, before + 1, sequence - 1
FROM (
    SELECT
        h.name, b.epoch, b.sequence,
        lag(b.sequence, 1, 0::bigint) OVER (
            PARTITION BY b.hub_id, b.epoch ORDER BY b.sequence
        ) AS before
    FROM batch b
    JOIN hub h USING (hub_id)
    WHERE %(hub)s::text IS NULL OR h.name = %(hub)s
) AS numbered
WHERE sequence > before + 1
ORDER BY name, epoch, sequence
LIMIT 1000

-- name: disagreeing_batches
-- Batches whose terms are not what the tables hold: the proof, row by row. With `since`, of the
-- batches committed since: their rows are not older than they are.
WITH stored AS (
    SELECT batch_id, sum(rows) AS rows
    FROM (
        SELECT batch_id, count(*) AS rows
        FROM measurement
        WHERE %(since)s::timestamptz IS NULL OR stored_at >= %(since)s
        GROUP BY batch_id
        UNION ALL
        SELECT batch_id, rows FROM erased_measurement
    ) AS held
    GROUP BY batch_id
),
kept AS (
    SELECT batch_id, count(*) AS rows
    FROM quarantine
    WHERE state <> 'replayed' AND batch_id IS NOT NULL
    GROUP BY batch_id
)
SELECT h.name, b.epoch, b.sequence
FROM batch b
JOIN hub h USING (hub_id)
LEFT JOIN stored USING (batch_id)
LEFT JOIN kept USING (batch_id)
WHERE (%(hub)s::text IS NULL OR h.name = %(hub)s)
    AND (%(since)s::timestamptz IS NULL OR b.committed_at >= %(since)s)
    AND (b.stored <> coalesce(stored.rows, 0) OR b.quarantined <> coalesce(kept.rows, 0))
LIMIT 100

-- name: orphans
-- Rows that belong to no batch of the ledger.
SELECT count(*)
FROM (SELECT DISTINCT batch_id FROM measurement) AS known
WHERE NOT EXISTS (SELECT FROM batch b WHERE b.batch_id = known.batch_id)

-- name: rejected
-- Messages that were no batch, and how often they came.
SELECT count(*), coalesce(sum(seen), 0)::bigint FROM quarantine WHERE kind = 3

-- name: stored_signs
-- Of the given signs, those with at least one measurement.
SELECT sign
FROM unnest(%(signs)s::smallint[]) AS given (sign)
WHERE EXISTS (SELECT FROM measurement m WHERE m.sign = given.sign)
