-- The reader of a transaction (api.archive). What it decides and writes stands in the schema `access`.

-- name: begin
-- Decide, audit, and note for this transaction what it may read.
SELECT resident, admitted, why
FROM access.begin(
    %(reader)s, %(session)s, %(action)s, %(needs)s, %(whom)s, %(reason)s, %(origin)s
)

-- name: vouch
-- Whether an account may still ask in its session.
SELECT access.vouch(%(reader)s, %(session)s)

-- name: account_of
-- Who an account is that another issuer vouches for.
SELECT public_id, role, resident FROM access.account_of(%(issuer)s, %(subject)s)

-- name: break_glass
-- Open access in an emergency, for a time, told to the resident.
SELECT admitted, why, expires_at
FROM access.break_glass(%(reader)s, %(session)s, %(resident)s, %(reason)s, %(origin)s)

-- name: object
-- Say or withdraw what a resident does not consent to.
SELECT access.object(
    %(reader)s, %(session)s, %(resident)s, %(sign)s::smallint, %(account)s, %(object)s, %(origin)s
)

-- name: objections
-- What a resident does not consent to.
SELECT objection.public_id AS id, objection.sign, objection.account, objection.recorded_at
FROM access.objection
JOIN resident USING (resident_id)
WHERE resident.public_id = %(resident)s
ORDER BY objection.recorded_at, objection.public_id

-- name: audit
-- Who looked at a resident's data, the latest first, behind one of them.
SELECT
    audit.audit_id AS id, audit.at, audit.action, audit.reason, audit.origin, audit.actor,
    audit.login, audit.role, audit.detail
FROM access.audit
JOIN resident USING (resident_id)
WHERE resident.public_id = %(resident)s
    AND (%(after)s::bigint IS NULL OR audit.audit_id < %(after)s)
ORDER BY audit.audit_id DESC
LIMIT %(limit)s

-- name: notices
-- What the reader is to be told, the latest first, behind one of them.
SELECT notice_id AS id, kind, at, detail
FROM access.notice
WHERE %(after)s::bigint IS NULL OR notice_id < %(after)s
ORDER BY notice_id DESC
LIMIT %(limit)s
