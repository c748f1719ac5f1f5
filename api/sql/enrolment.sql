-- Codes, certificates and revocations of hubs (api.enrolment). What the API's role may do itself are
-- the functions of the schema enrolment; the rest is the administrator's.

-- name: attempt
-- Count a try of a code; what proves it, or why it is good for nothing.
SELECT hub, verifier, why FROM enrolment.attempt(%(code)s, %(attempts_max)s)

-- name: complete
-- Note what a code was used for; false: it was used for another key, or closed.
SELECT enrolment.complete(
    %(code)s, %(key_digest)s, %(serial)s, %(valid_until)s, %(origin)s
)

-- name: renew
-- Note the next certificate of a hub; null, or why it gets none.
SELECT enrolment.renew(%(hub)s, %(former)s, %(serial)s, %(valid_until)s, %(origin)s)

-- name: home_of_hub
-- The home of a hub.
SELECT home.public_id FROM hub JOIN home USING (home_id) WHERE hub.name = %(hub)s

-- name: close_codes
-- Close the codes of a hub that are open: a newer one replaces them.
UPDATE enrolment.code SET closed_at = now()
FROM hub
WHERE hub.hub_id = code.hub_id AND hub.name = %(hub)s AND code.closed_at IS NULL

-- name: add_code
-- Enter a code for a hub.
INSERT INTO enrolment.code (code, hub_id, verifier, expires_at)
SELECT %(code)s, hub_id, %(verifier)s, now() + %(lifetime)s
FROM hub
WHERE name = %(hub)s
RETURNING expires_at

-- name: revoke_hub
-- Let a hub count no more; since when, null where there is no such hub.
UPDATE hub SET revoked_at = coalesce(revoked_at, now())
WHERE name = %(hub)s
RETURNING revoked_at

-- name: serials
-- The certificates of a hub that have not run out.
SELECT certificate.serial
FROM enrolment.certificate
JOIN hub USING (hub_id)
WHERE hub.name = %(hub)s AND certificate.valid_until > now()
