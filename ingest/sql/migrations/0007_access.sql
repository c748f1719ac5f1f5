-- Who may see whom: accounts, care teams over time, consent, break-glass; and how the API's role,
-- hearth_api, is held to it. That role has no grant on measurement or its chunks.
--
-- A transaction of the API begins with access.begin, which decides, writes the audit, and notes for
-- the rest of the transaction whose values and records may be read; views and policies go by that.

DO $$
BEGIN
    CREATE ROLE hearth_api NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- roles are the server's, not the database's
END
$$;

CREATE SCHEMA access;
COMMENT ON SCHEMA access IS 'the API''s door to the archive: views and functions bound to its user';
GRANT USAGE ON SCHEMA access TO hearth_api;

CREATE TABLE account (
    account_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    login text NOT NULL UNIQUE CHECK (login ~ '^[a-z0-9][a-z0-9._-]{1,62}$'),
    role text NOT NULL
        CHECK (role IN ('resident', 'clinician', 'coordinator', 'administrator', 'service')),
    resident_id integer REFERENCES resident,
    scopes text[] NOT NULL DEFAULT '{}',
    issuer text,
    subject text,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    CONSTRAINT account_elsewhere UNIQUE (issuer, subject),
    CONSTRAINT account_issuer_and_subject CHECK ((issuer IS NULL) = (subject IS NULL)),
    CONSTRAINT account_of_resident CHECK ((role = 'resident') = (resident_id IS NOT NULL))
);
COMMENT ON TABLE account IS 'who may ask: people and services';
COMMENT ON COLUMN account.resident_id IS 'a resident''s own archive';
COMMENT ON COLUMN account.scopes IS 'the most that a service''s token may say';
COMMENT ON COLUMN account.issuer IS 'who else says who this is (OpenID Connect), with subject';

CREATE TABLE session (
    session_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id integer NOT NULL REFERENCES account,
    client text NOT NULL,
    origin text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX session_of_account ON session (account_id);
COMMENT ON TABLE session IS 'a sign-in; its tokens are worth nothing once it is revoked';

CREATE TABLE care_team (
    care_team_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN care_team.name IS 'of the organisation, such as a clinic''s; of no person';

CREATE TABLE care_team_member (
    care_team_id integer NOT NULL REFERENCES care_team,
    account_id integer NOT NULL REFERENCES account,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    CONSTRAINT care_team_member_once EXCLUDE USING gist (
        account_id WITH =, care_team_id WITH =, during WITH &&
    )
);
CREATE INDEX care_team_of_member ON care_team_member (account_id, care_team_id);

CREATE TABLE care_team_resident (
    care_team_id integer NOT NULL REFERENCES care_team,
    resident_id integer NOT NULL REFERENCES resident,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    CONSTRAINT care_team_resident_once EXCLUDE USING gist (
        resident_id WITH =, care_team_id WITH =, during WITH &&
    )
);
CREATE INDEX care_team_of_resident ON care_team_resident (resident_id, care_team_id);
CREATE INDEX resident_of_care_team ON care_team_resident (care_team_id);

-- What a resident does not consent to; in force while it is not withdrawn.
CREATE TABLE objection (
    objection_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    resident_id integer NOT NULL REFERENCES resident,
    sign smallint,
    account_id integer REFERENCES account,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz,
    CONSTRAINT objection_to_one_thing CHECK (num_nonnulls(sign, account_id) = 1)
);
CREATE INDEX objection_of_resident ON objection (resident_id) WHERE withdrawn_at IS NULL;
COMMENT ON COLUMN objection.sign IS 'a sign that is withheld from everyone else';
COMMENT ON COLUMN objection.account_id IS 'a clinician who is refused';

CREATE TABLE break_glass (
    break_glass_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id integer NOT NULL REFERENCES account,
    resident_id integer NOT NULL REFERENCES resident,
    reason text NOT NULL CHECK (length(reason) BETWEEN 5 AND 500),
    opened_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX break_glass_of_account ON break_glass (account_id, resident_id, expires_at);
COMMENT ON TABLE break_glass IS
    'a clinician''s access outside the care team or against consent, with a reason, for a time';

-- What someone is to be told: a resident, or (resident_id null) whoever reads the audit.
CREATE TABLE notice (
    notice_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resident_id integer REFERENCES resident,
    kind text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX notice_of_resident ON notice (resident_id, notice_id DESC);
COMMENT ON COLUMN notice.detail IS 'opaque ids and times, and the reason that was given';

-- Which role may ask for what at all.
CREATE TABLE access.permission (
    role text NOT NULL,
    needs text NOT NULL CHECK (needs IN (
        'values', 'record', 'audit', 'worklist', 'equipment', 'operations'
    )),
    everyone boolean NOT NULL DEFAULT false,
    PRIMARY KEY (role, needs)
);
COMMENT ON COLUMN access.permission.everyone IS 'of all residents, without a care team';
INSERT INTO access.permission (role, needs, everyone) VALUES
    ('resident', 'values', false),
    ('resident', 'record', false),
    ('resident', 'audit', false),
    ('clinician', 'values', false),
    ('clinician', 'record', false),
    ('clinician', 'worklist', false),
    ('coordinator', 'record', false),
    ('coordinator', 'worklist', false),
    ('coordinator', 'equipment', true),
    ('administrator', 'record', true),
    ('administrator', 'audit', true),
    ('administrator', 'equipment', true),
    ('administrator', 'operations', true),
    ('service', 'values', true),
    ('service', 'record', true),
    ('service', 'audit', true),
    ('service', 'worklist', true),
    ('service', 'equipment', true),
    ('service', 'operations', true);

-- Which of a service's scopes (SMART App Launch 2.0, "Scopes for requesting FHIR Resources") admits
-- it to what.
CREATE TABLE access.scope (
    needs text PRIMARY KEY,
    pattern text NOT NULL
);
INSERT INTO access.scope (needs, pattern) VALUES
    ('values', '^system/(\*|Observation)\.(\*|[cud]*[rs][a-z]*)(\?.+)?$'),
    ('record', '^system/(\*|Patient)\.(\*|[cud]*[rs][a-z]*)(\?.+)?$'),
    ('audit', '^system/(\*|AuditEvent)\.(\*|[cud]*[rs][a-z]*)(\?.+)?$'),
    ('worklist', '^system/(\*|Observation)\.(\*|[cud]*[rs][a-z]*)(\?.+)?$'),
    ('equipment', '^system/(\*|Device)\.(\*|[cud]*[rs][a-z]*)(\?.+)?$'),
    ('operations', '^hearth/operations$');

-- What access.begin noted for this transaction.
CREATE FUNCTION access.readable() RETURNS integer[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(pg_catalog.current_setting('hearth.readable', true), ''), '{}')::integer[]
$$;
COMMENT ON FUNCTION access.readable() IS 'whose values this transaction may read';

CREATE FUNCTION access.withheld() RETURNS bigint[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(pg_catalog.current_setting('hearth.withheld', true), ''), '{}')::bigint[]
$$;
COMMENT ON FUNCTION access.withheld() IS
    'signs that it may not read nevertheless: the resident''s key << 16 | the sign''s code';

CREATE FUNCTION access.recorded() RETURNS integer[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(pg_catalog.current_setting('hearth.recorded', true), ''), '{}')::integer[]
$$;
COMMENT ON FUNCTION access.recorded() IS 'whose record (not values) this transaction may read';

CREATE FUNCTION access.account() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT nullif(pg_catalog.current_setting('hearth.account', true), '')::integer
$$;
COMMENT ON FUNCTION access.account() IS 'who reads in this transaction: the key of the account';

CREATE FUNCTION access.sees(what text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT what = ANY (
        string_to_array(pg_catalog.current_setting('hearth.everyone', true), ',')
    ) IS TRUE
$$;
COMMENT ON FUNCTION access.sees(text) IS
    'whether this transaction may read all of a kind: record, equipment; or what is audited';

-- The account that may ask in this session, null where there is none: disabled, revoked, signed out.
-- (plpgsql keeps its plan; a function in SQL that is not inlined is planned at every call.)
CREATE FUNCTION access.known(_reader uuid, _session uuid) RETURNS account
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    found_account account;
BEGIN
    SELECT * INTO found_account FROM account WHERE public_id = _reader AND disabled_at IS NULL;
    IF _session IS NULL THEN
        IF found_account.role = 'service' OR found_account.issuer IS NOT NULL THEN
            RETURN found_account;
        END IF;
    ELSIF EXISTS (
        SELECT FROM session
        WHERE session_id = _session AND account_id = found_account.account_id
            AND revoked_at IS NULL AND expires_at > now()
    ) THEN
        RETURN found_account;
    END IF;
    RETURN NULL;
END
$$;

-- Decide, audit, and note what this transaction may read. One row a resident asked for, with why it
-- is admitted (own, care_team, break_glass, administration, service) or what is in the way (unknown,
-- other, outside, refused, role, scope, account). `_whom` null: no one resident, but all that the reader
-- may see; one row. What is in the way leaves nothing readable, whatever the caller does about it.
CREATE FUNCTION access.begin(
    _reader uuid, _session uuid, _action text, _needs text, _whom uuid[], _reason text,
    _origin text
) RETURNS TABLE (resident uuid, resident_id integer, admitted boolean, why text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    me account;
    may access.permission;
    barred text;
    found_ids integer[];
    found_whom uuid[];
    verdicts text[];
    open_ids integer[];
    withheld_pairs bigint[];
    actor text;
BEGIN
    me := access.known(_reader, _session);
    PERFORM pg_catalog.set_config('hearth.account', coalesce(me.account_id::text, ''), true);
    IF me.account_id IS NULL THEN
        PERFORM access.note('{}', '{}', '{}', '');
        RETURN QUERY SELECT NULL::uuid, NULL::integer, false, 'account'::text;
        RETURN;
    END IF;
    actor := CASE me.role WHEN 'service' THEN 'service:' ELSE 'user:' END || me.public_id;
    SELECT * INTO may FROM access.permission WHERE role = me.role AND needs = _needs;
    IF NOT FOUND THEN
        barred := 'role';
    ELSIF me.role = 'service' AND NOT EXISTS (
        SELECT FROM access.scope, unnest(me.scopes) AS mine (name)
        WHERE needs = _needs AND name ~ pattern
    ) THEN
        barred := 'scope';
    END IF;

    IF _whom IS NOT NULL THEN
        SELECT array_agg(id ORDER BY place), array_agg(key ORDER BY place),
            array_agg(coalesce(barred, verdict) ORDER BY place)
        INTO found_whom, found_ids, verdicts
        FROM (
            SELECT given.id, given.place, r.resident_id AS key,
                CASE
                    WHEN me.role = 'resident' THEN
                        CASE WHEN r.resident_id = me.resident_id THEN 'own' ELSE 'other' END
                    WHEN r.resident_id IS NULL THEN 'unknown'
                    WHEN may.everyone THEN
                        CASE me.role WHEN 'service' THEN 'service' ELSE 'administration' END
                    WHEN me.role = 'clinician' AND EXISTS (
                        SELECT FROM break_glass AS glass
                        WHERE glass.account_id = me.account_id
                            AND glass.resident_id = r.resident_id
                            AND glass.expires_at > now()
                    ) THEN 'break_glass'
                    WHEN EXISTS (
                        SELECT FROM objection
                        WHERE objection.resident_id = r.resident_id
                            AND objection.account_id = me.account_id
                            AND objection.withdrawn_at IS NULL
                    ) THEN 'refused'
                    WHEN EXISTS (
                        SELECT FROM care_team_member AS member
                        JOIN care_team_resident AS cared USING (care_team_id)
                        WHERE member.account_id = me.account_id
                            AND member.during @> now()
                            AND cared.resident_id = r.resident_id
                            AND cared.during @> now()
                    ) THEN 'care_team'
                    ELSE 'outside'
                END AS verdict
            FROM unnest(_whom) WITH ORDINALITY AS given (id, place)
            LEFT JOIN resident AS r ON r.public_id = given.id
        ) AS judged;
    ELSIF barred IS NULL AND NOT may.everyone THEN
        -- All whom the reader may see.
        SELECT array_agg(r.public_id), array_agg(r.resident_id),
            array_agg(CASE me.role WHEN 'resident' THEN 'own' ELSE 'care_team' END)
        INTO found_whom, found_ids, verdicts
        FROM resident AS r
        WHERE r.resident_id = me.resident_id
            OR r.resident_id IN (
                SELECT cared.resident_id
                FROM care_team_member AS member
                JOIN care_team_resident AS cared USING (care_team_id)
                WHERE member.account_id = me.account_id
                    AND member.during @> now() AND cared.during @> now()
            ) AND NOT EXISTS (
                SELECT FROM objection
                WHERE objection.resident_id = r.resident_id
                    AND objection.account_id = me.account_id
                    AND objection.withdrawn_at IS NULL
            );
    ELSIF barred IS NULL AND _needs = 'values' THEN
        barred := 'everyone';  -- values of all residents: only by naming them, so that each is told
    END IF;

    SELECT coalesce(array_agg(key), '{}') INTO open_ids
    FROM unnest(found_ids, verdicts) AS judged (key, verdict)
    WHERE verdict IN ('own', 'care_team', 'break_glass', 'administration', 'service');
    SELECT coalesce(array_agg(objection.resident_id::bigint << 16 | objection.sign), '{}')
    INTO withheld_pairs
    FROM unnest(found_ids, verdicts) AS judged (key, verdict)
    JOIN objection ON objection.resident_id = judged.key
    WHERE verdict IN ('care_team', 'service')
        AND objection.sign IS NOT NULL AND objection.withdrawn_at IS NULL;
    PERFORM access.note(
        CASE WHEN _needs = 'values' THEN open_ids ELSE '{}' END,
        withheld_pairs,
        CASE WHEN _needs IN ('equipment', 'operations') THEN '{}' ELSE open_ids END,
        CASE
            WHEN barred IS NULL AND may.everyone AND _needs IN ('equipment', 'worklist')
                THEN 'equipment,record'
            WHEN barred IS NULL AND (_needs = 'audit' OR may.everyone AND _whom IS NULL)
                THEN _needs
            ELSE ''
        END
    );

    IF _whom IS NULL AND (_needs <> 'values' OR found_ids IS NULL) THEN
        INSERT INTO audit (actor, action, reason, origin, detail)
        VALUES (
            actor, _action, _reason, _origin,
            CASE WHEN barred IS NULL THEN '{}' ELSE jsonb_build_object('refused', barred) END
        );
        RETURN QUERY SELECT NULL::uuid, NULL::integer, barred IS NULL, coalesce(barred, 'all');
    ELSE
        INSERT INTO audit (actor, action, resident_id, reason, origin, detail)
        SELECT actor, _action, key, _reason, _origin,
            jsonb_build_object(
                CASE WHEN key = ANY (open_ids) THEN 'by' ELSE 'refused' END, verdict
            )
        FROM unnest(found_ids, verdicts) WITH ORDINALITY AS judged (key, verdict, place)
        ORDER BY place;
        RETURN QUERY
        SELECT judged.id, judged.key, coalesce(judged.key = ANY (open_ids), false), judged.verdict
        FROM unnest(found_whom, found_ids, verdicts) WITH ORDINALITY
            AS judged (id, key, verdict, place)
        ORDER BY place;
    END IF;
END
$$;

CREATE FUNCTION access.note(
    _readable integer[], _withheld bigint[], _recorded integer[], _everyone text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('hearth.readable', _readable::text, true);
    PERFORM pg_catalog.set_config('hearth.withheld', _withheld::text, true);
    PERFORM pg_catalog.set_config('hearth.recorded', _recorded::text, true);
    PERFORM pg_catalog.set_config('hearth.everyone', _everyone, true);
END
$$;

-- A clinician's way to a resident outside the care team, or against consent, in an emergency: with a
-- reason, for an hour, told to the resident and to whoever reads the audit.
CREATE FUNCTION access.break_glass(
    _reader uuid, _session uuid, _resident uuid, _reason text, _origin text
) RETURNS TABLE (admitted boolean, why text, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    me account := access.known(_reader, _session);
    whom resident;
    until constant timestamptz := now() + interval '1 hour';
    said jsonb;
BEGIN
    SELECT * INTO whom FROM resident WHERE public_id = _resident;
    CASE
        WHEN me.account_id IS NULL THEN why := 'account';
        WHEN me.role <> 'clinician' THEN why := 'role';
        WHEN whom.resident_id IS NULL THEN why := 'unknown';
        ELSE why := 'break_glass';
    END CASE;
    admitted := why = 'break_glass';
    expires_at := CASE WHEN admitted THEN until END;
    IF me.account_id IS NOT NULL THEN
        INSERT INTO audit (actor, action, resident_id, reason, origin, detail)
        VALUES (
            CASE me.role WHEN 'service' THEN 'service:' ELSE 'user:' END || me.public_id,
            'break_glass.open', whom.resident_id, _reason, _origin,
            jsonb_build_object(CASE WHEN admitted THEN 'by' ELSE 'refused' END, why)
        );
    END IF;
    IF admitted THEN
        INSERT INTO break_glass (account_id, resident_id, reason, expires_at)
        VALUES (me.account_id, whom.resident_id, _reason, until);
        said := jsonb_build_object(
            'account', me.public_id, 'resident', _resident, 'reason', _reason, 'expires_at', until
        );
        INSERT INTO notice (resident_id, kind, detail)
        VALUES (whom.resident_id, 'break_glass', said), (NULL, 'break_glass', said);
    END IF;
    RETURN NEXT;
END
$$;

-- What a resident does not consent to: withhold a sign, refuse a clinician. Only the resident's own
-- account may say so. Saying it again changes nothing; `_object` false withdraws it.
CREATE FUNCTION access.object(
    _reader uuid, _session uuid, _resident uuid, _sign smallint, _account uuid, _object boolean,
    _origin text
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    me account := access.known(_reader, _session);
    refused integer := (SELECT account_id FROM account WHERE public_id = _account);
    why text;
BEGIN
    CASE
        WHEN me.account_id IS NULL THEN RETURN 'account';
        WHEN me.role <> 'resident' THEN why := 'role';
        WHEN me.resident_id IS DISTINCT FROM
            (SELECT resident_id FROM resident WHERE public_id = _resident) THEN why := 'other';
        WHEN _account IS NOT NULL AND refused IS NULL THEN why := 'nobody';
        ELSE why := 'own';
    END CASE;
    INSERT INTO audit (actor, action, resident_id, origin, detail)
    VALUES (
        'user:' || me.public_id,
        CASE WHEN _object THEN 'consent.withhold' ELSE 'consent.give' END,
        (SELECT resident_id FROM resident WHERE public_id = _resident), _origin,
        jsonb_build_object('sign', _sign, 'account', _account)
            || CASE why WHEN 'own' THEN '{}' ELSE jsonb_build_object('refused', why) END
    );
    IF why <> 'own' THEN
        RETURN why;
    END IF;
    IF _object THEN
        INSERT INTO objection (resident_id, sign, account_id)
        SELECT me.resident_id, _sign, refused
        WHERE NOT EXISTS (
            SELECT FROM objection
            WHERE resident_id = me.resident_id AND withdrawn_at IS NULL
                AND sign IS NOT DISTINCT FROM _sign AND account_id IS NOT DISTINCT FROM refused
        );
    ELSE
        UPDATE objection SET withdrawn_at = now()
        WHERE resident_id = me.resident_id AND withdrawn_at IS NULL
            AND sign IS NOT DISTINCT FROM _sign AND account_id IS NOT DISTINCT FROM refused;
    END IF;
    RETURN why;
END
$$;

-- Who looked, for whoever may read the audit of these residents.
CREATE VIEW access.audit WITH (security_barrier) AS
SELECT
    entry.audit_id, entry.at, entry.resident_id, entry.action, entry.reason, entry.origin,
    entry.detail, entry.actor, who.login, who.role
FROM public.audit AS entry
LEFT JOIN public.account AS who
    ON who.public_id = substring(entry.actor FROM '^(?:user|service):([0-9a-f-]{36})$')::uuid
WHERE entry.resident_id = ANY ((SELECT access.recorded())::integer[])
    AND (SELECT access.sees('audit'));

CREATE VIEW access.objection WITH (security_barrier) AS
SELECT told.public_id, told.resident_id, told.sign, who.public_id AS account, told.recorded_at
FROM public.objection AS told
LEFT JOIN public.account AS who USING (account_id)
WHERE told.withdrawn_at IS NULL
    AND told.resident_id = ANY ((SELECT access.recorded())::integer[])
    AND (SELECT access.sees('audit'));

CREATE VIEW access.notice WITH (security_barrier) AS
SELECT told.notice_id, told.resident_id, told.kind, told.at, told.detail
FROM public.notice AS told
WHERE (SELECT access.sees('audit'))
    AND CASE
        WHEN told.resident_id IS NULL THEN (
            SELECT permission.everyone
            FROM access.permission JOIN public.account USING (role)
            WHERE account_id = (SELECT access.account()) AND needs = 'audit'
        )
        ELSE told.resident_id = ANY ((SELECT access.recorded())::integer[])
    END;

-- Who an account is that another issuer vouches for.
CREATE FUNCTION access.account_of(_issuer text, _subject text)
RETURNS TABLE (public_id uuid, role text, resident uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT a.public_id, a.role, r.public_id
    FROM account AS a LEFT JOIN resident AS r USING (resident_id)
    WHERE a.issuer = _issuer AND a.subject = _subject AND a.disabled_at IS NULL
$$;

-- Whether an account may still ask in its session, where nothing of a resident is read.
CREATE FUNCTION access.vouch(_reader uuid, _session uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT (access.known(_reader, _session)).account_id IS NOT NULL
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA access FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA access TO hearth_api;
REVOKE EXECUTE ON FUNCTION access.note, access.known FROM hearth_api;
GRANT SELECT ON access.audit, access.objection, access.notice TO hearth_api;
GRANT INSERT (actor, action, resident_id, reason, origin, detail) ON audit TO hearth_api;
GRANT SELECT ON audit_chain, audit_anchor TO hearth_api;
GRANT INSERT ON audit_anchor TO hearth_api;

-- The ordinary tables that the API reads itself, row by row (the schema's owner is not held by this).
GRANT SELECT ON resident, home, hub, device, link, batch, schema_migration TO hearth_api;
ALTER TABLE resident ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON resident FOR SELECT TO hearth_api USING (
    resident_id = ANY ((SELECT access.recorded())::integer[]) OR (SELECT access.sees('record'))
);
ALTER TABLE link ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON link FOR SELECT TO hearth_api USING (
    resident_id = ANY ((SELECT access.recorded())::integer[]) OR (SELECT access.sees('record'))
);
ALTER TABLE device ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON device FOR SELECT TO hearth_api USING (
    (SELECT access.sees('equipment'))
    OR EXISTS (SELECT FROM link WHERE link.device_id = device.device_id)  -- as policies show links
);
ALTER TABLE home ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON home FOR SELECT TO hearth_api USING ((SELECT access.sees('equipment')));
ALTER TABLE hub ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON hub FOR SELECT TO hearth_api USING ((SELECT access.sees('equipment')));
ALTER TABLE batch ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON batch FOR SELECT TO hearth_api USING ((SELECT access.sees('equipment')));
