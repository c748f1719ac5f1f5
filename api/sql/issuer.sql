-- The built-in issuer's own transactions (api.issuer.store); they run as hearth_issuer.

-- name: become
-- Who may read credentials, until the transaction ends.
SET LOCAL ROLE hearth_issuer

-- name: credential
-- What a person has to prove; the row is held, so that attempts for one account take turns.
SELECT
    a.account_id, a.public_id, a.login, a.role, r.public_id AS resident, a.scopes,
    c.password_hash, c.totp_secret, c.totp_last, c.failures, c.locked_until
FROM account AS a
JOIN issuer.credential AS c USING (account_id)
LEFT JOIN resident AS r USING (resident_id)
WHERE a.login = %(login)s AND a.role <> 'service' AND a.disabled_at IS NULL
FOR UPDATE OF c

-- name: failed
-- One more wrong attempt.
UPDATE issuer.credential
SET failures = %(failures)s, locked_until = %(locked_until)s
WHERE account_id = %(account)s

-- name: proved
-- A right one: the code's time step is used up.
UPDATE issuer.credential
SET failures = 0, locked_until = NULL, totp_last = greatest(totp_last, %(step)s)
WHERE account_id = %(account)s

-- name: client
-- Where a client may be sent back to.
SELECT redirect_uris FROM issuer.client WHERE client_id = %(client)s

-- name: add_code
-- An authorization code, by its hash.
INSERT INTO issuer.authorization_code
    (code_hash, account_id, client_id, redirect_uri, code_challenge, scope, nonce, expires_at)
VALUES (
    %(code)s, %(account)s, %(client)s, %(redirect_uri)s, %(challenge)s, %(scope)s, %(nonce)s,
    now() + %(lifetime)s
)

-- name: code
-- A code that is brought, with whom it is about; the row is held.
SELECT
    code.client_id, code.redirect_uri, code.code_challenge, code.scope, code.nonce,
    code.signed_in_at, code.expires_at > now() AS in_time, code.used_at IS NOT NULL AS used,
    code.session_id, a.account_id, a.public_id, a.login, a.role, r.public_id AS resident,
    a.disabled_at IS NULL AS enabled
FROM issuer.authorization_code AS code
JOIN account AS a USING (account_id)
LEFT JOIN resident AS r USING (resident_id)
WHERE code_hash = %(code)s
FOR UPDATE OF code

-- name: use_code
-- It is used up, for this session.
UPDATE issuer.authorization_code
SET used_at = now(), session_id = %(session)s
WHERE code_hash = %(code)s

-- name: begin_session
-- A sign-in.
INSERT INTO session (account_id, client, origin, expires_at)
VALUES (%(account)s, %(client)s, %(origin)s, now() + %(lifetime)s)
RETURNING session_id

-- name: revoke_session
-- From now on its tokens are worth nothing.
UPDATE session SET revoked_at = now() WHERE session_id = %(session)s AND revoked_at IS NULL

-- name: add_refresh
-- A refresh token, by its hash; not beyond its session.
INSERT INTO issuer.refresh_token (token_hash, session_id, scope, expires_at)
SELECT %(token)s, session_id, %(scope)s, least(now() + %(lifetime)s, expires_at)
FROM session
WHERE session_id = %(session)s

-- name: refresh
-- A refresh token that is brought; the row is held.
SELECT
    token.session_id, token.scope, token.used_at IS NOT NULL AS used,
    token.expires_at > now() AS in_time, session.client,
    session.revoked_at IS NULL AND session.expires_at > now() AND a.disabled_at IS NULL AS open,
    a.public_id, a.login, a.role, r.public_id AS resident
FROM issuer.refresh_token AS token
JOIN session USING (session_id)
JOIN account AS a USING (account_id)
LEFT JOIN resident AS r USING (resident_id)
WHERE token_hash = %(token)s
FOR UPDATE OF token

-- name: use_refresh
-- It is used up.
UPDATE issuer.refresh_token SET used_at = now() WHERE token_hash = %(token)s

-- name: service
-- A service and the keys it signs with.
SELECT a.public_id, a.login, a.role, NULL AS resident, a.scopes, c.jwks
FROM account AS a
JOIN issuer.credential AS c USING (account_id)
WHERE a.login = %(login)s AND a.role = 'service' AND a.disabled_at IS NULL

-- name: use_assertion
-- Note an assertion; no row where it was used before.
INSERT INTO issuer.assertion (assertion_hash, expires_at)
VALUES (%(assertion)s, %(expires_at)s)
ON CONFLICT DO NOTHING
RETURNING assertion_hash

-- name: forget_codes
-- What can do no harm any more goes.
DELETE FROM issuer.authorization_code WHERE expires_at < now() - interval '1 day'

-- name: forget_refresh
-- The same of refresh tokens, used ones too: they would revoke a session that has ended.
DELETE FROM issuer.refresh_token AS token
USING session
WHERE token.session_id = session.session_id AND session.expires_at < now()

-- name: forget_sessions
-- The same of sessions, some time after their end; each sign-in makes one, so these are few.
DELETE FROM session
WHERE session_id IN (
    SELECT session_id FROM session
    WHERE expires_at < now() - make_interval(days => %(days)s)
    ORDER BY expires_at
    LIMIT %(rows)s
)

-- name: forget_assertions
-- The same of assertions.
DELETE FROM issuer.assertion WHERE expires_at < now()
