-- One flush is one transaction of these statements and of COPY (ingest.store).

-- name: committed_batches
-- What became of those of the given batches that were committed before: the receipt they had, and what they held.
SELECT given.hub_id, given.epoch, given.sequence, b.stored, b.duplicate, b.quarantined, b.checksum
FROM unnest(%(hub_id)s::integer[], %(epoch)s::bigint[], %(sequence)s::bigint[])
    AS given (hub_id, epoch, sequence)
CROSS JOIN LATERAL (
    SELECT stored, duplicate, quarantined, checksum
    FROM batch
    WHERE hub_id = given.hub_id AND epoch = given.epoch AND sequence = given.sequence
    OFFSET 0 -- a look-up by index for each, whatever the planner thinks of the numbers
) AS b

-- name: take_blocks
-- Numbers of blocks of batch ids that are this worker's alone.
SELECT nextval('batch_block') FROM generate_series(1, %(blocks)s)

-- name: lock_homes
-- Take turns with other workers in the homes where two hubs can hear one device.
SELECT pg_advisory_xact_lock(%(space)s, home_id)
FROM unnest(%(home_id)s::integer[]) AS given (home_id)

-- name: keep_payload
-- A payload that no decoder reads.
INSERT INTO quarantine (
    batch_id, hub_id, device, source, kind, reason, decoder, received_at, clock_offset_ms,
    utc_offset, content_bytes, content, message
)
VALUES (
    %(batch_id)s, %(hub_id)s, %(device)s, %(source)s, %(kind)s, %(reason)s, %(decoder)s,
    %(received_at)s, %(clock_offset_ms)s, %(utc_offset)s, %(content_bytes)s, %(content)s,
    %(message)s
)

-- name: keep_message
-- A message that is no batch, or not the one of its number; the same message again is only counted.
INSERT INTO quarantine (
    hub_id, kind, reason, received_at, content_bytes, content, digest, message
)
VALUES (
    (SELECT hub_id FROM hub WHERE name = %(hub)s), 3, %(reason)s, %(received_at)s,
    %(content_bytes)s, %(content)s, %(digest)s, %(message)s
)
ON CONFLICT (hub_id, digest) WHERE kind = 3 DO UPDATE SET seen = quarantine.seen + 1
