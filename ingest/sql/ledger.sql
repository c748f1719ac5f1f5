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

-- name: proof
-- The proof, row by row: batches whose terms are not what the tables hold, and, in a last line without a
-- batch, how many batches rows name that the ledger does not know. Each table is read once. With
-- `since`, of the batches committed since, whose rows are not older than they are; with `hub`, of its own.
WITH asked AS MATERIALIZED (
    SELECT b.batch_id, b.hub_id, b.epoch, b.sequence, b.stored, b.quarantined
    FROM batch b
    JOIN hub h USING (hub_id)
    WHERE (%(hub)s::text IS NULL OR h.name = %(hub)s)
        AND (%(since)s::timestamptz IS NULL OR b.committed_at >= %(since)s)
),
stored AS MATERIALIZED (
    SELECT batch_id, sum(rows)::bigint AS rows
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
kept AS MATERIALIZED (
    SELECT batch_id, count(*) AS rows
    FROM quarantine
    WHERE state <> 'replayed' AND batch_id IS NOT NULL
    GROUP BY batch_id
)
(
    SELECT h.name, asked.epoch, asked.sequence, 0::bigint AS orphans
    FROM asked
    JOIN hub h USING (hub_id)
    LEFT JOIN stored USING (batch_id)
    LEFT JOIN kept USING (batch_id)
    WHERE asked.stored <> coalesce(stored.rows, 0) OR asked.quarantined <> coalesce(kept.rows, 0)
    LIMIT 100
)
UNION ALL
SELECT NULL, NULL, NULL, count(*)
FROM stored
LEFT JOIN batch b USING (batch_id)
WHERE b.batch_id IS NULL

-- name: rejected
-- Messages that were no batch, and how often they came.
SELECT count(*), coalesce(sum(seen), 0)::bigint FROM quarantine WHERE kind = 3

-- name: stored_signs
-- Of the given signs, those with at least one measurement.
SELECT sign
FROM unnest(%(signs)s::smallint[]) AS given (sign)
WHERE EXISTS (SELECT FROM measurement m WHERE m.sign = given.sign)
