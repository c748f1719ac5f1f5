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

-- name: disagreeing_batches
-- Batches whose terms are not what the tables hold: the proof, row by row.
WITH stored AS (
    SELECT batch_id, sum(rows) AS rows
    FROM (
        SELECT batch_id, count(*) AS rows FROM measurement GROUP BY batch_id
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
    AND (b.stored <> coalesce(stored.rows, 0) OR b.quarantined <> coalesce(kept.rows, 0))
LIMIT 100

-- name: rejected
-- Messages that were no batch, and how often they came.
SELECT count(*), coalesce(sum(seen), 0)::bigint FROM quarantine WHERE kind = 3

-- name: stored_signs
-- Of the given signs, those with at least one measurement.
SELECT sign
FROM unnest(%(signs)s::smallint[]) AS given (sign)
WHERE EXISTS (SELECT FROM measurement m WHERE m.sign = given.sign)
