-- Readings of lent devices (ingest.elsewhere).

-- name: heard_elsewhere
-- What other homes' hubs heard of these devices, as the records were on the wire, and when.
SELECT content, received_at
FROM quarantine
WHERE device = ANY (%(devices)s::bigint[])
    AND state = 'waiting'
    AND kind = %(kind)s
    AND reason = %(reason)s
ORDER BY quarantine_id DESC
LIMIT %(limit)s
