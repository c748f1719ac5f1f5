-- The audit (gateway.platform.audit).

-- name: write
-- Write events, in their order.
INSERT INTO audit (actor, action, resident_id, reason, origin, detail)
SELECT given.actor, given.action, given.resident_id, given.reason, given.origin, given.detail
FROM unnest(
    %(actor)s::text[], %(action)s::text[], %(resident_id)s::integer[], %(reason)s::text[],
    %(origin)s::text[], %(detail)s::jsonb[]
) WITH ORDINALITY AS given (actor, action, resident_id, reason, origin, detail, place)
ORDER BY given.place

-- name: keys_of
-- The store's keys of residents.
SELECT resident_id FROM resident WHERE public_id = ANY (%(residents)s) ORDER BY resident_id

-- name: list
-- What was done, the latest first.
SELECT
    entry.at, entry.actor, entry.action, resident.public_id::text AS resident, entry.reason,
    entry.origin, entry.detail
FROM audit AS entry
LEFT JOIN resident USING (resident_id)
WHERE %(resident)s::uuid IS NULL OR resident.public_id = %(resident)s::uuid
ORDER BY entry.audit_id DESC
LIMIT %(limit)s

-- name: lock_anchors
-- Those who anchor or prune take turns.
SELECT pg_advisory_xact_lock(18507)

-- name: heads
-- The last row of each chain, as the chain itself has it.
SELECT chain, seq, hash FROM audit_chain

-- name: pruned
-- Where chains begin that do not begin with their first row any more.
SELECT chain, seq, hash FROM audit_pruned

-- name: anchors
-- All anchors in their order.
SELECT at, heads, mac FROM audit_anchor ORDER BY anchor_id

-- name: anchors_from
-- Anchors from one on, with their numbers.
SELECT anchor_id, heads, mac FROM audit_anchor WHERE anchor_id >= %(first)s ORDER BY anchor_id

-- name: add_anchor
-- One more.
INSERT INTO audit_anchor (at, heads, mac) VALUES (%(at)s, %(heads)s, %(mac)s)

-- name: rows
-- Every row with what its hash covers, chain by chain.
SELECT entry.chain, entry.seq, entry.audit_id, entry.hash, audit_text(entry)
FROM audit AS entry
ORDER BY entry.chain, entry.seq

-- name: mark_pruned
-- A chain begins behind this row from now on.
INSERT INTO audit_pruned (chain, seq, hash) VALUES (%(chain)s, %(seq)s, %(hash)s)
ON CONFLICT (chain) DO UPDATE SET
    seq = excluded.seq, hash = excluded.hash, pruned_at = now()
WHERE audit_pruned.seq < excluded.seq

-- name: prune
-- Remove what is before that.
DELETE FROM audit AS entry
USING audit_pruned
WHERE entry.chain = audit_pruned.chain AND entry.seq <= audit_pruned.seq
