-- The decision who may read whom (schema access), derived anew at each migration: access.begin for one
-- reader, access.begin_each for those who follow live, and the rule that is part of both.

-- name: verdict
-- Why a reader (me, an account; may, what its role permits) is admitted to a resident (r), or what is in
-- the way. It is made part of the statements: a function would be called for each resident.
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
END

-- name: begin
-- Decide, audit, and note what this transaction may read. One row a resident asked for, with why it
-- is admitted (own, care_team, break_glass, administration, service) or what is in the way (unknown,
-- other, outside, refused, role, scope, account). `_whom` null: no one resident, but all that the reader
-- may see; one row. What is in the way leaves nothing readable, whatever the caller does about it.
CREATE OR REPLACE FUNCTION access.begin(
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
        PERFORM access.note('{{}}', '{{}}', '{{}}', '');
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
                {verdict} AS verdict
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

    SELECT coalesce(array_agg(key), '{{}}') INTO open_ids
    FROM unnest(found_ids, verdicts) AS judged (key, verdict)
    WHERE verdict IN ('own', 'care_team', 'break_glass', 'administration', 'service');
    SELECT coalesce(array_agg(objection.resident_id::bigint << 16 | objection.sign), '{{}}')
    INTO withheld_pairs
    FROM unnest(found_ids, verdicts) AS judged (key, verdict)
    JOIN objection ON objection.resident_id = judged.key
    WHERE verdict IN ('care_team', 'service')
        AND objection.sign IS NOT NULL AND objection.withdrawn_at IS NULL;
    PERFORM access.note(
        CASE WHEN _needs = 'values' THEN open_ids ELSE '{{}}' END,
        withheld_pairs,
        CASE WHEN _needs IN ('equipment', 'operations') THEN '{{}}' ELSE open_ids END,
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
            CASE WHEN barred IS NULL THEN '{{}}' ELSE jsonb_build_object('refused', barred) END
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
$$

-- name: begin_each
-- Begin for many readers at once, those who follow live: decided and audited for each pair of a reader
-- and a resident as access.begin does one by one, in one statement. One row for each pair that is admitted, with the signs that are withheld
-- from this reader. For the rest of the transaction the values of all of them can be read; each goes to
-- whom it was given.
CREATE OR REPLACE FUNCTION access.begin_each(
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
            me.reader, r.resident_id, me.origin,
            CASE me.role WHEN 'service' THEN 'service:' ELSE 'user:' END || me.public_id AS actor,
            CASE
                WHEN me.barred IS NOT NULL THEN me.barred
                ELSE {verdict}
            END AS verdict
        FROM (SELECT DISTINCT p.reader, p.id FROM unnest(_reader_of, _whom) AS p (reader, id)) AS pair
        JOIN mine AS me USING (reader)
        CROSS JOIN LATERAL (SELECT me.everyone) AS may
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
        coalesce(array_agg(j.reader), '{{}}'), coalesce(array_agg(j.resident_id), '{{}}'),
        coalesce(array_agg(j.verdict), '{{}}')
    INTO readers, residents, verdicts
    FROM judged AS j
    WHERE j.verdict IN ('own', 'care_team', 'break_glass', 'administration', 'service');
    PERFORM access.note(residents, '{{}}', '{{}}', '');
    RETURN QUERY
    SELECT
        given.reader, given.resident,
        CASE
            WHEN given.verdict IN ('care_team', 'service') THEN (
                SELECT coalesce(array_agg(given.resident::bigint << 16 | o.sign), '{{}}')
                FROM objection AS o
                WHERE o.resident_id = given.resident AND o.sign IS NOT NULL
                    AND o.withdrawn_at IS NULL
            )
            ELSE '{{}}'
        END
    FROM unnest(readers, residents, verdicts) AS given (reader, resident, verdict);
END
$$
