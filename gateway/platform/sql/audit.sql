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
