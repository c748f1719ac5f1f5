-- The reader of a transaction (api.archive). What it decides and writes stands in the schema `access`.

-- name: begin
-- Decide, audit, and note for this transaction what it may read.
SELECT resident, admitted, why
FROM access.begin(
    %(reader)s, %(session)s, %(action)s, %(needs)s, %(whom)s, %(reason)s, %(origin)s
)
