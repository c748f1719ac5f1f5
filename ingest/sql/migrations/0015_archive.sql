-- The resident's archive: who a measurement is of. What names a person is sealed (api/vault.py) and
-- found by keyed hash; what rules and statistics need stands in columns and names nobody.

ALTER TABLE resident
    ADD COLUMN merged_into integer REFERENCES resident,
    ADD COLUMN erased_at timestamptz;
COMMENT ON COLUMN resident.merged_into IS 'a double entry: everything of it is the other''s now';

CREATE TABLE resident_profile (
    resident_id integer PRIMARY KEY REFERENCES resident,
    updated_at timestamptz NOT NULL DEFAULT now(),
    birth_year smallint,
    sex smallint NOT NULL DEFAULT 0 CHECK (sex IN (0, 1, 2, 9)),
    height_cm real CHECK (height_cm BETWEEN 20 AND 280),
    clinic text,
    targets jsonb NOT NULL DEFAULT '{}',
    fingerprint bytea,
    national_id_mark bytea,
    health_card_mark bytea,
    name_mark bytea,
    sealed bytea
);
CREATE UNIQUE INDEX resident_by_national_id ON resident_profile (national_id_mark)
    WHERE national_id_mark IS NOT NULL;
CREATE UNIQUE INDEX resident_by_health_card ON resident_profile (health_card_mark)
    WHERE health_card_mark IS NOT NULL;
CREATE INDEX resident_by_name ON resident_profile (name_mark) WHERE name_mark IS NOT NULL;
COMMENT ON COLUMN resident_profile.sex IS 'GB/T 2261.1: 0 unknown, 1 male, 2 female, 9 unspecified';
COMMENT ON COLUMN resident_profile.targets IS
    'personal limits by quantity: {"systolic_mmhg": {"high": 130}}; they override those of a rule set';
COMMENT ON COLUMN resident_profile.fingerprint IS
    'keyed hash of the imported line: the same line again changes nothing';
COMMENT ON COLUMN resident_profile.sealed IS
    'name, national id, health card, date of birth: AES-256-GCM with the resident''s own key';

-- A table of its own, so that its backups can be kept for less long than all others: with the row gone
-- from them too, no copy of resident_profile.sealed can be opened.
CREATE TABLE resident_key (
    resident_id integer PRIMARY KEY REFERENCES resident,
    key_id smallint NOT NULL,
    wrapped bytea NOT NULL
);
CREATE INDEX resident_key_of_master ON resident_key (key_id);
COMMENT ON COLUMN resident_key.key_id IS 'the master key that wraps it: HEARTH_HOME/secrets/archive_key_N';

-- Double entries. What was moved is kept, so that it can be moved back exactly.
CREATE TABLE resident_merge (
    merge_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kept_id integer NOT NULL REFERENCES resident,
    gone_id integer NOT NULL REFERENCES resident,
    merged_at timestamptz NOT NULL DEFAULT now(),
    undone_at timestamptz,
    CHECK (kept_id <> gone_id)
);
CREATE UNIQUE INDEX resident_merged_once ON resident_merge (gone_id) WHERE undone_at IS NULL;

CREATE TABLE resident_merge_measurement (
    merge_id integer NOT NULL REFERENCES resident_merge,
    measured_at timestamptz NOT NULL,
    identity_time timestamp NOT NULL,
    device_id integer NOT NULL,
    user_slot smallint NOT NULL,
    sign smallint NOT NULL
);
CREATE INDEX measurement_of_merge ON resident_merge_measurement (merge_id);

CREATE TABLE resident_merge_link (
    merge_id integer NOT NULL REFERENCES resident_merge,
    old_link_id integer NOT NULL REFERENCES link,
    new_link_id integer NOT NULL REFERENCES link
);
CREATE INDEX link_of_merge ON resident_merge_link (merge_id);

-- What an erasure removed of each batch, so that the ledger still balances.
CREATE TABLE erased_measurement (
    batch_id bigint NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT now(),
    rows integer NOT NULL
);
CREATE INDEX erased_of_batch ON erased_measurement (batch_id);

-- Answers of writes that bore an idempotency key, to be given again.
CREATE TABLE idempotent_answer (
    principal text NOT NULL,
    key text NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT now(),
    request_digest bytea NOT NULL,
    status smallint NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotent_answer_age ON idempotent_answer (answered_at);

-- What the API's role may see and do of this, row by row (schema access).
GRANT SELECT ON resident_profile, resident_key TO hearth_api;
ALTER TABLE resident_profile ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON resident_profile FOR SELECT TO hearth_api USING (
    resident_id = ANY ((SELECT access.recorded())::integer[]) OR (SELECT access.sees('record'))
);
ALTER TABLE resident_key ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON resident_key FOR SELECT TO hearth_api USING (
    resident_id = ANY ((SELECT access.recorded())::integer[]) OR (SELECT access.sees('record'))
);
GRANT SELECT (
    quarantine_id, batch_id, device, received_at, measured_at, quarantined_at, resolved_at, hub_id,
    content_bytes, seen, kind, reason, sign, state
) ON quarantine TO hearth_api;
ALTER TABLE quarantine ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_reader ON quarantine FOR SELECT TO hearth_api
    USING ((SELECT access.sees('equipment')));
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotent_answer TO hearth_api;
GRANT SELECT ON change TO hearth_api;

-- Two more things to ask for: changing links, and a resident's targets.
ALTER TABLE access.permission DROP CONSTRAINT permission_needs_check;
ALTER TABLE access.permission ADD CONSTRAINT permission_needs_check CHECK (needs IN (
    'values', 'record', 'audit', 'worklist', 'equipment', 'operations', 'links', 'targets'
));
INSERT INTO access.permission (role, needs, everyone) VALUES
    ('clinician', 'targets', false),
    ('service', 'targets', true),
    ('coordinator', 'links', false),
    ('administrator', 'links', true),
    ('service', 'links', true);
INSERT INTO access.scope (needs, pattern) VALUES
    ('links', '^hearth/links$'),
    ('targets', '^hearth/targets$');

-- Who bears a number or a name, by its keyed hash, whoever may see them: their opaque ids only. A
-- double entry leads to the entry it was merged into. For break-glass too, so not bound to the reader
-- but to there being one (access.begin), whose search is audited.
CREATE FUNCTION access.find_resident(
    _national_id bytea, _health_card bytea, _name bytea, _limit integer
) RETURNS TABLE (resident uuid, resident_id integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF coalesce(pg_catalog.current_setting('hearth.recorded', true), '') = '' THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH RECURSIVE entry AS (
        SELECT r.resident_id, r.merged_into
        FROM resident_profile AS p
        JOIN resident AS r USING (resident_id)
        WHERE p.national_id_mark = _national_id
            OR p.health_card_mark = _health_card
            OR p.name_mark = _name
        UNION
        SELECT r.resident_id, r.merged_into
        FROM entry
        JOIN resident AS r ON r.resident_id = entry.merged_into
    )
    SELECT DISTINCT r.public_id, r.resident_id
    FROM entry
    JOIN resident AS r USING (resident_id)
    WHERE entry.merged_into IS NULL
    ORDER BY r.public_id
    LIMIT _limit;
END
$$;

-- Writes: each begins by itself (access.begin decides and audits) and returns what that said; where
-- it was admitted, `done` tells whether there was anything to write to.

-- Set a resident's own limits; with `_before`, only in place of these.
CREATE FUNCTION access.set_targets(
    _reader uuid, _session uuid, _origin text, _resident uuid, _targets jsonb, _before jsonb
) RETURNS TABLE (admitted boolean, why text, done boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    verdict record;
    is_set boolean := false;
BEGIN
    SELECT b.* INTO verdict FROM access.begin(
        _reader, _session, 'targets.write', 'targets', ARRAY[_resident], NULL, _origin
    ) AS b;
    IF verdict.admitted THEN
        INSERT INTO resident_profile AS known (resident_id, targets)
        VALUES (verdict.resident_id, _targets)
        ON CONFLICT (resident_id) DO UPDATE SET targets = excluded.targets, updated_at = now()
        WHERE _before IS NULL OR known.targets = _before;
        is_set := FOUND;
    END IF;
    RETURN QUERY SELECT verdict.admitted, verdict.why, is_set;
END
$$;

-- Link a slot of a device to a resident. What a link in force says already stays.
CREATE FUNCTION access.add_link(
    _reader uuid, _session uuid, _origin text, _resident uuid, _device text, _user_slot smallint,
    _starts_at timestamptz, _ends_at timestamptz
) RETURNS TABLE (admitted boolean, why text, done boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    verdict record;
    what integer;
BEGIN
    SELECT b.* INTO verdict FROM access.begin(
        _reader, _session, 'link.add', 'links', ARRAY[_resident], NULL, _origin
    ) AS b;
    SELECT device_id INTO what FROM device WHERE address = _device;
    IF verdict.admitted AND what IS NOT NULL THEN
        LOCK TABLE link IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO link (device_id, user_slot, resident_id, during)
        SELECT what, _user_slot, verdict.resident_id, tstzrange(_starts_at, _ends_at)
        WHERE NOT EXISTS (
            SELECT
            FROM link
            WHERE device_id = what AND user_slot = _user_slot
                AND resident_id = verdict.resident_id AND superseded_at IS NULL
                AND during @> tstzrange(_starts_at, _ends_at)
        );
    END IF;
    RETURN QUERY SELECT verdict.admitted, verdict.why, what IS NOT NULL;
END
$$;

-- End the link of a slot to a resident at a moment. One that ended before stays as it is.
CREATE FUNCTION access.end_link(
    _reader uuid, _session uuid, _origin text, _resident uuid, _device text, _user_slot smallint,
    _at timestamptz
) RETURNS TABLE (admitted boolean, why text, done boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    verdict record;
    ended link;
BEGIN
    SELECT b.* INTO verdict FROM access.begin(
        _reader, _session, 'link.end', 'links', ARRAY[_resident], NULL, _origin
    ) AS b;
    IF verdict.admitted THEN
        LOCK TABLE link IN SHARE ROW EXCLUSIVE MODE;
        SELECT link.* INTO ended
        FROM link
        JOIN device USING (device_id)
        WHERE device.address = _device AND link.user_slot = _user_slot
            AND link.resident_id = verdict.resident_id AND link.superseded_at IS NULL
            AND (lower_inf(link.during) OR lower(link.during) < _at)
        ORDER BY lower(link.during) DESC NULLS LAST
        LIMIT 1;
        IF ended.link_id IS NOT NULL AND (upper_inf(ended.during) OR upper(ended.during) > _at) THEN
            UPDATE link SET superseded_at = now() WHERE link_id = ended.link_id;
            INSERT INTO link (device_id, user_slot, resident_id, during)
            VALUES (
                ended.device_id, ended.user_slot, ended.resident_id,
                tstzrange(lower(ended.during), _at)
            );
        END IF;
    END IF;
    RETURN QUERY SELECT verdict.admitted, verdict.why, ended.link_id IS NOT NULL;
END
$$;

-- Begin for many readers at once, those who follow live: decided and audited for each pair of a reader
-- and a resident as access.begin does one by one (tests/integration/test_api_live.py holds the two
-- together), in one statement. One row for each pair that is admitted, with the signs that are withheld
-- from this reader. For the rest of the transaction the values of all of them can be read; each goes to
-- whom it was given.
CREATE FUNCTION access.begin_each(
    _readers uuid[], _sessions uuid[], _origins text[], _action text, _whom uuid[],
    _reader_of integer[]
) RETURNS TABLE (reader integer, resident integer, withheld bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    readers integer[];
    residents integer[];
    verdicts text[];
BEGIN
    WITH me AS (
        SELECT given.place::integer AS reader, given.origin, known.*
        FROM unnest(_readers, _sessions, _origins)
            WITH ORDINALITY AS given (id, session, origin, place)
        CROSS JOIN LATERAL access.known(given.id, given.session) AS known
        WHERE known.account_id IS NOT NULL
    ),
    mine AS (
        SELECT
            me.*, may.everyone,
            CASE
                WHEN may.role IS NULL THEN 'role'
                WHEN me.role = 'service' AND NOT EXISTS (
                    SELECT FROM access.scope, unnest(me.scopes) AS own (name)
                    WHERE needs = 'values' AND name ~ pattern
                ) THEN 'scope'
            END AS barred
        FROM me
        LEFT JOIN access.permission AS may ON may.role = me.role AND may.needs = 'values'
    ),
    judged AS (
        SELECT
            mine.reader, r.resident_id, mine.origin,
            CASE mine.role WHEN 'service' THEN 'service:' ELSE 'user:' END || mine.public_id AS actor,
            CASE
                WHEN mine.barred IS NOT NULL THEN mine.barred
                WHEN mine.role = 'resident' THEN
                    CASE WHEN r.resident_id = mine.resident_id THEN 'own' ELSE 'other' END
                WHEN mine.everyone THEN
                    CASE mine.role WHEN 'service' THEN 'service' ELSE 'administration' END
                WHEN mine.role = 'clinician' AND EXISTS (
                    SELECT FROM break_glass AS glass
                    WHERE glass.account_id = mine.account_id
                        AND glass.resident_id = r.resident_id
                        AND glass.expires_at > now()
                ) THEN 'break_glass'
                WHEN EXISTS (
                    SELECT FROM objection
                    WHERE objection.resident_id = r.resident_id
                        AND objection.account_id = mine.account_id
                        AND objection.withdrawn_at IS NULL
                ) THEN 'refused'
                WHEN EXISTS (
                    SELECT FROM care_team_member AS member
                    JOIN care_team_resident AS cared USING (care_team_id)
                    WHERE member.account_id = mine.account_id
                        AND member.during @> now()
                        AND cared.resident_id = r.resident_id
                        AND cared.during @> now()
                ) THEN 'care_team'
                ELSE 'outside'
            END AS verdict
        FROM (SELECT DISTINCT p.reader, p.id FROM unnest(_reader_of, _whom) AS p (reader, id)) AS pair
        JOIN mine USING (reader)
        JOIN resident AS r ON r.public_id = pair.id
    ),
    audited AS (
        INSERT INTO audit (actor, action, resident_id, origin, detail)
        SELECT
            actor, _action, resident_id, origin,
            jsonb_build_object(
                CASE
                    WHEN verdict IN ('own', 'care_team', 'break_glass', 'administration', 'service')
                        THEN 'by'
                    ELSE 'refused'
                END,
                verdict
            )
        FROM judged
    )
    SELECT
        coalesce(array_agg(j.reader), '{}'), coalesce(array_agg(j.resident_id), '{}'),
        coalesce(array_agg(j.verdict), '{}')
    INTO readers, residents, verdicts
    FROM judged AS j
    WHERE j.verdict IN ('own', 'care_team', 'break_glass', 'administration', 'service');
    PERFORM access.note(residents, '{}', '{}', '');
    RETURN QUERY
    SELECT
        given.reader, given.resident,
        CASE
            WHEN given.verdict IN ('care_team', 'service') THEN (
                SELECT coalesce(array_agg(given.resident::bigint << 16 | o.sign), '{}')
                FROM objection AS o
                WHERE o.resident_id = given.resident AND o.sign IS NOT NULL
                    AND o.withdrawn_at IS NULL
            )
            ELSE '{}'
        END
    FROM unnest(readers, residents, verdicts) AS given (reader, resident, verdict);
END
$$;

REVOKE EXECUTE ON FUNCTION
    access.find_resident, access.set_targets, access.add_link, access.end_link, access.begin_each
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    access.find_resident, access.set_targets, access.add_link, access.end_link, access.begin_each
    TO hearth_api;

-- When each of the residents whom this transaction may list was last measured, a row a sign; nulls where
-- never. No values: what is withheld is left out all the same.
CREATE FUNCTION access.last_measured(_signs smallint[], _after uuid, _limit integer)
RETURNS TABLE (resident uuid, sign smallint, measured_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT r.public_id, wanted.code, last.measured_at
    FROM (
        SELECT r.resident_id, r.public_id
        FROM resident AS r
        WHERE (r.resident_id = ANY (access.recorded()) OR access.sees('record'))
            AND (_after IS NULL OR r.public_id > _after)
            AND r.merged_into IS NULL
            AND r.erased_at IS NULL
        ORDER BY r.public_id
        LIMIT _limit
    ) AS r
    CROSS JOIN unnest(_signs) AS wanted (code)
    LEFT JOIN LATERAL (
        SELECT m.measured_at
        FROM measurement AS m
        WHERE m.resident_id = r.resident_id
            AND m.sign = wanted.code
            AND (r.resident_id::bigint << 16 | wanted.code) <> ALL (access.withheld())
        ORDER BY m.measured_at DESC
        LIMIT 1
    ) AS last ON true
    ORDER BY r.public_id;
END
$$;
REVOKE EXECUTE ON FUNCTION access.last_measured FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.last_measured TO hearth_api;
