-- The built-in issuer: credentials, clients, codes, refresh tokens. They are another role's,
-- hearth_issuer: the API becomes it for the issuer's own transactions and reads none of this else.
-- What a bearer holds (codes, tokens) is kept as its SHA-256 only.

DO $$
BEGIN
    CREATE ROLE hearth_issuer NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- roles are the server's, not the database's
END
$$;
DO $$
BEGIN
    IF NOT pg_has_role('hearth_api', 'hearth_issuer', 'MEMBER') THEN
        GRANT hearth_issuer TO hearth_api WITH INHERIT FALSE, SET TRUE;
    END IF;
EXCEPTION
    WHEN unique_violation OR internal_error THEN NULL;  -- another database's migration is doing it
END
$$;

CREATE SCHEMA issuer;
GRANT USAGE ON SCHEMA issuer TO hearth_issuer;

CREATE TABLE issuer.credential (
    account_id integer PRIMARY KEY REFERENCES account,
    password_hash text,
    totp_secret bytea,
    totp_last bigint NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    jwks jsonb,
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN issuer.credential.password_hash IS 'argon2id, with its parameters';
COMMENT ON COLUMN issuer.credential.totp_secret IS
    'AES-256-GCM under a key outside the database; null: no second factor';
COMMENT ON COLUMN issuer.credential.totp_last IS 'the time step of the last code, which no code repeats';
COMMENT ON COLUMN issuer.credential.jwks IS 'the public keys of a service (RFC 7523)';

CREATE TABLE issuer.client (
    client_id text PRIMARY KEY CHECK (client_id ~ '^[a-z0-9][a-z0-9._-]{1,62}$'),
    redirect_uris text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE issuer.client IS 'public clients of the authorization code grant';
COMMENT ON COLUMN issuer.client.redirect_uris IS
    'compared exactly; of http://127.0.0.1 any port is taken (RFC 8252, 7.3); /PATH: at this API';
INSERT INTO issuer.client (client_id, redirect_uris) VALUES
    ('hearth-cli', '{http://127.0.0.1/signed-in}'),
    ('hearth-web', '{/signed-in}');

CREATE TABLE issuer.authorization_code (
    code_hash bytea PRIMARY KEY,
    account_id integer NOT NULL REFERENCES account,
    client_id text NOT NULL,
    redirect_uri text NOT NULL,
    code_challenge text NOT NULL,
    scope text NOT NULL,
    nonce text,
    signed_in_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    session_id uuid REFERENCES session ON DELETE CASCADE
);
COMMENT ON COLUMN issuer.authorization_code.session_id IS
    'what its use began: revoked when it is used again (RFC 6749, 4.1.2)';

CREATE TABLE issuer.refresh_token (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES session ON DELETE CASCADE,
    scope text NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX refresh_token_of_session ON issuer.refresh_token (session_id);
COMMENT ON TABLE issuer.refresh_token IS
    'each is good once; one that is used again revokes its session (RFC 9700, 4.14.2)';

CREATE TABLE issuer.assertion (
    assertion_hash bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE issuer.assertion IS 'client assertions that were used (RFC 7523, 3)';

GRANT SELECT ON account, resident, session, issuer.client TO hearth_issuer;
GRANT INSERT, UPDATE (revoked_at) ON session TO hearth_issuer;
GRANT SELECT, UPDATE (totp_last, failures, locked_until) ON issuer.credential TO hearth_issuer;
GRANT SELECT, INSERT, DELETE, UPDATE ON
    issuer.authorization_code, issuer.refresh_token, issuer.assertion TO hearth_issuer;
GRANT INSERT (actor, action, resident_id, reason, origin, detail) ON audit TO hearth_issuer;
CREATE POLICY of_issuer ON resident FOR SELECT TO hearth_issuer USING (true);
