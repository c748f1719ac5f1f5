-- Accounts and care teams, as an administrator enters them (api.accounts); as the schema's owner.

-- name: add_account
-- Enter an account; no row where the login is taken.
INSERT INTO account (login, role, resident_id, scopes, issuer, subject)
VALUES (
    %(login)s, %(role)s,
    (SELECT resident_id FROM resident WHERE public_id = %(resident)s), %(scopes)s, %(issuer)s,
    %(subject)s
)
ON CONFLICT (login) DO NOTHING
RETURNING account_id, public_id

-- name: set_credential
-- What the account has to prove from now on; former failures and locks are forgotten.
INSERT INTO issuer.credential (account_id, password_hash, totp_secret, jwks)
VALUES (%(account)s, %(password_hash)s, %(totp_secret)s, %(jwks)s)
ON CONFLICT (account_id) DO UPDATE SET
    password_hash = excluded.password_hash, totp_secret = excluded.totp_secret,
    jwks = excluded.jwks, totp_last = 0, failures = 0, locked_until = NULL, changed_at = now()

-- name: account
-- One account.
SELECT
    a.account_id, a.public_id, a.login, a.role, r.public_id AS resident, a.scopes, a.disabled_at,
    c.totp_secret IS NOT NULL AS has_totp, a.issuer
FROM account AS a
LEFT JOIN resident AS r USING (resident_id)
LEFT JOIN issuer.credential AS c USING (account_id)
WHERE a.login = %(login)s

-- name: list_accounts
-- All accounts by their logins.
SELECT
    a.public_id AS id, a.login, a.role, r.public_id AS resident, a.scopes, a.created_at,
    a.disabled_at, c.totp_secret IS NOT NULL AS has_totp,
    CASE WHEN c.locked_until > now() THEN c.locked_until END AS locked_until
FROM account AS a
LEFT JOIN resident AS r USING (resident_id)
LEFT JOIN issuer.credential AS c USING (account_id)
ORDER BY a.login

-- name: set_disabled
-- Disable an account, or let it in again.
UPDATE account
SET disabled_at = CASE WHEN %(disabled)s THEN coalesce(disabled_at, now()) END
WHERE account_id = %(account)s

-- name: list_sessions
-- An account's sign-ins that still stand.
SELECT session_id AS id, client, origin, created_at, expires_at
FROM session
WHERE account_id = %(account)s AND revoked_at IS NULL AND expires_at > now()
ORDER BY created_at

-- name: revoke_sessions
-- One session, or all of the account.
UPDATE session
SET revoked_at = now()
WHERE account_id = %(account)s AND revoked_at IS NULL
    AND (%(session)s::uuid IS NULL OR session_id = %(session)s)

-- name: void_codes
-- Codes of sign-ins before now that nobody has redeemed: else they would open a session yet.
DELETE FROM issuer.authorization_code WHERE account_id = %(account)s AND used_at IS NULL

-- name: open_session
-- A session that a command opens.
INSERT INTO session (account_id, client, origin, expires_at)
VALUES (%(account)s, %(client)s, %(origin)s, now() + %(lifetime)s)
RETURNING session_id

-- name: add_care_team
-- Enter a care team; one that is there stays.
INSERT INTO care_team (name) VALUES (%(name)s) ON CONFLICT (name) DO NOTHING

-- name: care_team
-- One care team's key.
SELECT care_team_id FROM care_team WHERE name = %(name)s

-- name: list_care_teams
-- Care teams with how many are in them now.
SELECT
    care_team.public_id AS id, care_team.name,
    (
        SELECT count(*) FROM care_team_member AS m
        WHERE m.care_team_id = care_team.care_team_id AND m.during @> now()
    ) AS members,
    (
        SELECT count(*) FROM care_team_resident AS r
        WHERE r.care_team_id = care_team.care_team_id AND r.during @> now()
    ) AS residents
FROM care_team
ORDER BY care_team.name

-- name: add_member
-- An account is in a care team; what is said already stays.
INSERT INTO care_team_member (care_team_id, account_id, during)
SELECT %(team)s, %(account)s, tstzrange(%(starts_at)s, %(ends_at)s)
WHERE NOT EXISTS (
    SELECT FROM care_team_member
    WHERE care_team_id = %(team)s AND account_id = %(account)s
        AND during @> tstzrange(%(starts_at)s, %(ends_at)s)
)

-- name: end_member
-- It is not any more.
UPDATE care_team_member
SET during = tstzrange(lower(during), %(at)s)
WHERE care_team_id = %(team)s AND account_id = %(account)s AND during @> %(at)s::timestamptz

-- name: add_residents
-- Residents are in a care team's care; what is said already stays.
INSERT INTO care_team_resident (care_team_id, resident_id, during)
SELECT %(team)s, resident.resident_id, tstzrange(%(starts_at)s, %(ends_at)s)
FROM resident
WHERE resident.public_id = ANY (%(residents)s)
    AND NOT EXISTS (
        SELECT FROM care_team_resident AS cared
        WHERE cared.care_team_id = %(team)s AND cared.resident_id = resident.resident_id
            AND cared.during @> tstzrange(%(starts_at)s, %(ends_at)s)
    )
RETURNING resident_id

-- name: end_resident
-- One is not any more.
UPDATE care_team_resident AS cared
SET during = tstzrange(lower(cared.during), %(at)s)
FROM resident
WHERE cared.care_team_id = %(team)s AND resident.resident_id = cared.resident_id
    AND resident.public_id = %(resident)s AND cared.during @> %(at)s::timestamptz
RETURNING cared.resident_id

-- name: unknown_resident
-- One of the given residents who is not entered.
SELECT given.resident
FROM unnest(%(residents)s::uuid[]) AS given (resident)
LEFT JOIN resident ON resident.public_id = given.resident
WHERE resident.resident_id IS NULL
LIMIT 1

-- name: add_client
-- A client of the authorization code grant; entering it again changes where it may be sent back to.
INSERT INTO issuer.client (client_id, redirect_uris) VALUES (%(client)s, %(redirect_uris)s)
ON CONFLICT (client_id) DO UPDATE SET redirect_uris = excluded.redirect_uris

-- name: list_clients
-- All clients.
SELECT client_id AS client, redirect_uris FROM issuer.client ORDER BY client_id
