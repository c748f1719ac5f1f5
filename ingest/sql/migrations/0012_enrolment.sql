-- How hubs come by their certificates: one-time codes, and what was issued. The API's role, which
-- answers hubs, has no grant on these tables: it calls the functions below, which decide and audit.

CREATE SCHEMA enrolment;
COMMENT ON SCHEMA enrolment IS 'one-time codes and certificates of hubs';
GRANT USAGE ON SCHEMA enrolment TO hearth_api;

CREATE TABLE enrolment.code (
    code text PRIMARY KEY CHECK (code ~ '^[0-9a-f]{16}$'),
    hub_id integer NOT NULL REFERENCES hub,
    verifier bytea NOT NULL CHECK (octet_length(verifier) = 32),
    made_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    key_digest bytea,
    closed_at timestamptz
);
CREATE INDEX code_of_hub ON enrolment.code (hub_id) WHERE closed_at IS NULL;
COMMENT ON COLUMN enrolment.code.code IS 'what the code is called; no secret';
COMMENT ON COLUMN enrolment.code.verifier IS
    'the public half of a key that follows from the code''s secret: proves it, does not tell it';
COMMENT ON COLUMN enrolment.code.key_digest IS
    'SHA-256 of the key that it was used for: the same hub may ask again, should its answer be lost';
COMMENT ON COLUMN enrolment.code.closed_at IS 'used, or replaced by a newer one, or its hub revoked';

CREATE TABLE enrolment.certificate (
    serial text PRIMARY KEY CHECK (serial ~ '^[0-9a-f]{1,40}$'),
    hub_id integer NOT NULL REFERENCES hub,
    issued_at timestamptz NOT NULL DEFAULT now(),
    valid_until timestamptz NOT NULL
);
CREATE INDEX certificate_of_hub ON enrolment.certificate (hub_id, valid_until);
COMMENT ON TABLE enrolment.certificate IS 'what was issued to hubs: what a revocation has to name';

-- Count a try of a code, and return what proves it. `why` is null where it may be used: unknown,
-- closed, expired, exhausted otherwise. Commit before looking at the proof: a try counts.
CREATE FUNCTION enrolment.attempt(_code text, _attempts_max integer)
RETURNS TABLE (hub text, verifier bytea, why text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    entry enrolment.code;
    hub_name text;
BEGIN
    UPDATE enrolment.code SET attempts = attempts + 1
    WHERE code = _code AND attempts <= _attempts_max
    RETURNING * INTO entry;
    IF NOT FOUND THEN
        RETURN QUERY SELECT NULL::text, NULL::bytea, 'unknown'::text;
        RETURN;
    END IF;
    SELECT name INTO hub_name FROM hub WHERE hub_id = entry.hub_id;
    RETURN QUERY SELECT
        hub_name,
        entry.verifier,
        CASE
            WHEN entry.attempts > _attempts_max THEN 'exhausted'
            WHEN entry.expires_at <= now() THEN 'expired'
            WHEN entry.closed_at IS NOT NULL AND entry.key_digest IS NULL THEN 'closed'
        END;
END
$$;

-- Note that a code was used for a key and what was issued; false where another key was faster, or
-- the code was closed meanwhile. The hub counts (again) from now on.
CREATE FUNCTION enrolment.complete(
    _code text, _key_digest bytea, _serial text, _valid_until timestamptz, _origin text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    entry enrolment.code;
    hub_name text;
BEGIN
    UPDATE enrolment.code
    SET closed_at = coalesce(closed_at, now()), key_digest = _key_digest
    WHERE code = _code AND expires_at > now()
        AND (closed_at IS NULL OR key_digest = _key_digest)
    RETURNING * INTO entry;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE hub SET enrolled_at = now(), revoked_at = NULL
    WHERE hub_id = entry.hub_id
    RETURNING name INTO hub_name;
    INSERT INTO enrolment.certificate (serial, hub_id, valid_until)
    VALUES (_serial, entry.hub_id, _valid_until);
    INSERT INTO audit (actor, action, origin, detail)
    VALUES (
        'hub:' || hub_name, 'hub.enrol', _origin,
        jsonb_build_object('hub', hub_name, 'code', _code, 'certificate', _serial)
    );
    RETURN true;
END
$$;

-- Note the next certificate of a hub; null, or why it gets none: unknown, revoked. The row lock makes
-- a revocation that is under way come first, or find this certificate.
CREATE FUNCTION enrolment.renew(
    _hub text, _former text, _serial text, _valid_until timestamptz, _origin text
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    entry hub;
BEGIN
    SELECT * INTO entry FROM hub WHERE name = _hub FOR SHARE;
    IF NOT FOUND THEN
        RETURN 'unknown';
    ELSIF entry.revoked_at IS NOT NULL
        OR NOT EXISTS (
            SELECT FROM enrolment.certificate AS former
            WHERE former.serial = _former AND former.hub_id = entry.hub_id
                AND former.issued_at >= entry.enrolled_at
        )
    THEN
        RETURN 'revoked';
    END IF;
    INSERT INTO enrolment.certificate (serial, hub_id, valid_until)
    VALUES (_serial, entry.hub_id, _valid_until);
    INSERT INTO audit (actor, action, origin, detail)
    VALUES (
        'hub:' || _hub, 'hub.renew', _origin,
        jsonb_build_object('hub', _hub, 'former', _former, 'certificate', _serial)
    );
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA enrolment FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA enrolment TO hearth_api;
