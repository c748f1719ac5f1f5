-- Readings that another home's hub had first are nobody's until a person says whose (ingest.elsewhere).

COMMENT ON COLUMN measurement.flags IS
    'bit 0: artefact, left out of averages; 1: unusual for the resident; 2: attributed by the household''s history; 3: by a person; 4: another home''s hub had it first';
COMMENT ON COLUMN measurement.received_after_s IS
    'reception at the hub minus measured_at; of several receptions the first';

ALTER TABLE correction DROP CONSTRAINT correction_kind_check;
ALTER TABLE correction ADD CONSTRAINT correction_kind_check
    CHECK (kind IN ('reassign', 'undo', 'claim', 'adopt', 'settle', 'elsewhere'));

-- One more thing to ask for: saying whose readings are that wait for a person.
ALTER TABLE access.permission DROP CONSTRAINT permission_needs_check;
ALTER TABLE access.permission ADD CONSTRAINT permission_needs_check CHECK (needs IN (
    'values', 'record', 'audit', 'worklist', 'equipment', 'operations', 'links', 'targets', 'claims'
));
INSERT INTO access.permission (role, needs, everyone) VALUES
    ('resident', 'claims', false),
    ('coordinator', 'claims', false),
    ('administrator', 'claims', true),
    ('service', 'claims', true);
INSERT INTO access.scope (needs, pattern) VALUES ('claims', '^hearth/links$');

-- Who may have measured with a slot at a time: those it is linked to, and those who share it.
CREATE FUNCTION slot_residents(_device_id integer, _user_slot smallint, _at timestamptz)
RETURNS SETOF integer LANGUAGE sql STABLE AS $$
    SELECT resident_id FROM link
    WHERE device_id = _device_id AND user_slot = _user_slot
        AND superseded_at IS NULL AND during @> _at
    UNION
    SELECT resident_id FROM shared_link
    WHERE device_id = _device_id AND user_slot = _user_slot
        AND superseded_at IS NULL AND during @> _at
$$;

-- Make readings, given by their keys, a resident's (0: a stranger's) by a person's word: what they were
-- thought to be is kept, what is derived from them is due, whoever follows is told. Returns the
-- correction; null, and nothing is done, where a reading is not stored. The caller audits.
CREATE FUNCTION claim_readings(
    _actor text, _reason text, _resident_id integer, _measured_us bigint[], _devices integer[],
    _user_slots smallint[], _signs smallint[], _identity_us bigint[]
) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    moment constant timestamptz := date_trunc('milliseconds', now());
    made bigint;
    times timestamptz[];
    moved integer;
BEGIN
    PERFORM pg_advisory_xact_lock(18502, 0);  -- alone with the attributions (ingest.guard)
    INSERT INTO correction (kind, actor, reason, during, resident_id)
    VALUES ('claim', _actor, _reason, tstzrange(NULL, NULL), _resident_id)
    RETURNING correction_id INTO made;

    INSERT INTO attribution (
        measured_at, identity_time, believed_from, believed_until, correction_id, device_id,
        resident_id, next_resident_id, user_slot, sign, flags
    )
    SELECT
        m.measured_at, m.identity_time, m.stored_at, moment, made, m.device_id, m.resident_id,
        _resident_id, m.user_slot, m.sign, m.flags
    FROM unnest(_measured_us, _devices, _user_slots, _signs, _identity_us)
        AS given (measured_us, device_id, user_slot, sign, identity_us)
    CROSS JOIN LATERAL (
        SELECT *
        FROM measurement
        WHERE device_id = given.device_id
            AND user_slot = given.user_slot
            AND sign = given.sign
            AND identity_time = timestamp '1970-01-01' + given.identity_us * interval '1 us'
            AND measured_at = timestamptz '1970-01-01Z' + given.measured_us * interval '1 us'
        OFFSET 0 -- a look-up by index for each
    ) AS m;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(_measured_us) THEN
        DELETE FROM attribution WHERE correction_id = made;
        DELETE FROM correction WHERE correction_id = made;
        RETURN NULL;
    END IF;
    SELECT array_agg(DISTINCT measured_at) INTO times FROM attribution WHERE correction_id = made;

    UPDATE measurement AS m  -- neither inferred (4) nor unusual (2) any more; claimed (8)
    SET resident_id = _resident_id, stored_at = moment, flags = (m.flags & ~6) | 8
    FROM attribution AS a
    WHERE a.correction_id = made
        AND m.device_id = a.device_id
        AND m.user_slot = a.user_slot
        AND m.sign = a.sign
        AND m.identity_time = a.identity_time
        AND m.measured_at = a.measured_at
        AND m.measured_at = ANY (times);
    UPDATE correction SET readings = moved WHERE correction_id = made;

    DELETE FROM posterior
    USING attribution AS a
    WHERE a.correction_id = made
        AND posterior.device_id = a.device_id
        AND posterior.user_slot = a.user_slot
        AND posterior.sign = a.sign
        AND posterior.identity_time = a.identity_time
        AND posterior.measured_at = a.measured_at;

    WITH spans AS (
        SELECT
            owner.resident_id, a.sign,
            (extract(epoch FROM min(a.measured_at)) * 1000)::bigint AS oldest_ms,
            (extract(epoch FROM max(a.measured_at)) * 1000)::bigint AS newest_ms
        FROM attribution AS a
        CROSS JOIN LATERAL (VALUES (a.resident_id), (a.next_resident_id)) AS owner (resident_id)
        WHERE a.correction_id = made AND owner.resident_id <> 0
        GROUP BY owner.resident_id, a.sign
    ), told AS (
        INSERT INTO change (stored_at, resident_id, sign, oldest_ms, newest_ms)
        SELECT
            moment, array_agg(resident_id), array_agg(sign), array_agg(oldest_ms),
            array_agg(newest_ms)
        FROM spans
        HAVING count(*) > 0
    ), unusual AS (
        INSERT INTO baseline_due (resident_id, sign, from_at, to_at)
        SELECT
            resident_id, sign, to_timestamp(oldest_ms / 1000.0), to_timestamp(newest_ms / 1000.0)
        FROM spans
    ), slots AS (
        INSERT INTO attribution_due (device_id, user_slot)
        SELECT device_id, user_slot FROM attribution WHERE correction_id = made
        UNION
        SELECT device_id, user_slot
        FROM shared_link
        WHERE superseded_at IS NULL AND resident_id IN (SELECT resident_id FROM spans)
    )
    INSERT INTO registry_change (kind, key) SELECT DISTINCT 4, resident_id FROM spans;
    PERFORM pg_notify('hearth_registry', '');
    RETURN made;
END
$$;

-- Readings that wait for a person and may be a resident's whom this transaction may name: of slots that
-- are linked to them or that they share, the newest first, from behind the given one where it is given.
-- No values: they may be another's.
CREATE FUNCTION access.unassigned(
    _resident uuid, _limit integer, _measured_us bigint, _device_id integer, _user_slot smallint,
    _sign smallint, _identity_us bigint
) RETURNS TABLE (
    measured_at timestamptz, device_id integer, user_slot smallint, sign smallint,
    identity_us bigint, device text, probability real
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    mine constant integer := (SELECT resident_id FROM resident WHERE public_id = _resident);
BEGIN
    IF mine IS NULL OR mine <> ALL (access.recorded()) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT
        m.measured_at, m.device_id, m.user_slot, m.sign,
        (extract(epoch FROM m.identity_time) * 1000000)::bigint, d.address,
        (
            SELECT p.probability
            FROM posterior AS p
            WHERE p.device_id = m.device_id
                AND p.user_slot = m.user_slot
                AND p.sign = m.sign
                AND p.identity_time = m.identity_time
                AND p.measured_at = m.measured_at
                AND p.resident_id = mine
        )
    FROM (
        SELECT device_id, user_slot, during FROM link
        WHERE resident_id = mine AND superseded_at IS NULL
        UNION
        SELECT device_id, user_slot, during FROM shared_link
        WHERE resident_id = mine AND superseded_at IS NULL
    ) AS slot
    JOIN device AS d USING (device_id)
    JOIN measurement AS m USING (device_id, user_slot)
    WHERE m.resident_id = 0
        AND m.flags & 8 = 0 -- nobody has said that it is a stranger's
        AND slot.during @> m.measured_at
        AND (mine::bigint << 16 | m.sign) <> ALL (access.withheld())
        AND (
            _measured_us IS NULL
            OR (m.measured_at, m.device_id, m.user_slot, m.sign, m.identity_time) < (
                timestamptz '1970-01-01Z' + _measured_us * interval '1 us', _device_id, _user_slot,
                _sign, timestamp '1970-01-01' + _identity_us * interval '1 us'
            )
        )
    ORDER BY
        m.measured_at DESC, m.device_id DESC, m.user_slot DESC, m.sign DESC, m.identity_time DESC
    LIMIT _limit;
END
$$;

-- Claim readings for a resident. Whoever else has one, or may have measured it where the resident's
-- slot it is not, must be theirs to name as well: residents claim what is nobody's and of a slot of
-- theirs. What is claimed for the resident already stays. `done`: every reading is stored.
CREATE FUNCTION access.claim(
    _reader uuid, _session uuid, _origin text, _resident uuid, _reason text,
    _measured_us bigint[], _devices integer[], _user_slots smallint[], _signs smallint[],
    _identity_us bigint[]
) RETURNS TABLE (admitted boolean, why text, done boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    me account := access.known(_reader, _session);
    whom uuid[];
    refused text;
    allowed text;
    mine integer;
    strangers boolean;
    found_count integer;
    already boolean[];
    is_done boolean := false;
BEGIN
    PERFORM pg_advisory_xact_lock(18502, 0);  -- owners stay as they are from here on
    SELECT resident_id INTO mine FROM resident WHERE public_id = _resident;
    SELECT
        count(m.device_id),
        array_agg(m.resident_id IS NOT DISTINCT FROM mine AND m.flags & 8 <> 0 ORDER BY given.place),
        coalesce(bool_or(
            m.resident_id = 0 AND NOT EXISTS (
                SELECT FROM slot_residents(m.device_id, m.user_slot, m.measured_at)
            )
        ), false)
    INTO found_count, already, strangers
    FROM unnest(_measured_us, _devices, _user_slots, _signs, _identity_us)
        WITH ORDINALITY AS given (measured_us, device_id, user_slot, sign, identity_us, place)
    LEFT JOIN LATERAL (
        SELECT m.device_id, m.user_slot, m.measured_at, m.resident_id, m.flags
        FROM measurement AS m
        WHERE m.device_id = given.device_id
            AND m.user_slot = given.user_slot
            AND m.sign = given.sign
            AND m.identity_time = timestamp '1970-01-01' + given.identity_us * interval '1 us'
            AND m.measured_at = timestamptz '1970-01-01Z' + given.measured_us * interval '1 us'
        OFFSET 0
    ) AS m ON true;
    SELECT array_agg(DISTINCT r.public_id) INTO whom
    FROM unnest(_measured_us, _devices, _user_slots, _signs, _identity_us)
        AS given (measured_us, device_id, user_slot, sign, identity_us)
    CROSS JOIN LATERAL (
        SELECT m.device_id, m.user_slot, m.measured_at, m.resident_id
        FROM measurement AS m
        WHERE m.device_id = given.device_id
            AND m.user_slot = given.user_slot
            AND m.sign = given.sign
            AND m.identity_time = timestamp '1970-01-01' + given.identity_us * interval '1 us'
            AND m.measured_at = timestamptz '1970-01-01Z' + given.measured_us * interval '1 us'
        OFFSET 0
    ) AS m
    CROSS JOIN LATERAL (
        SELECT m.resident_id WHERE m.resident_id <> 0
        UNION
        SELECT * FROM slot_residents(m.device_id, m.user_slot, m.measured_at)
        WHERE m.resident_id = 0 AND mine NOT IN (
            SELECT * FROM slot_residents(m.device_id, m.user_slot, m.measured_at)
        )
    ) AS concerned (resident_id)
    JOIN resident AS r ON r.resident_id = concerned.resident_id
    WHERE r.public_id <> _resident;

    SELECT
        max(b.why) FILTER (WHERE NOT b.admitted), max(b.why) FILTER (WHERE b.resident = _resident)
    INTO refused, allowed
    FROM access.begin(
        _reader, _session, 'worklist.claim', 'claims', _resident || whom, _reason, _origin
    ) AS b;
    strangers := strangers AND NOT coalesce(
        (SELECT everyone FROM access.permission WHERE role = me.role AND needs = 'claims'), false
    );
    IF refused IS NULL AND found_count = cardinality(_measured_us) AND NOT strangers THEN
        is_done := true;
        IF NOT (SELECT bool_and(is_so) FROM unnest(already) AS is_so) THEN
            is_done := claim_readings(
                CASE me.role WHEN 'service' THEN 'service:' ELSE 'user:' END || me.public_id,
                _reason, mine, _measured_us, _devices, _user_slots, _signs, _identity_us
            ) IS NOT NULL;
        END IF;
    END IF;
    RETURN QUERY SELECT refused IS NULL, coalesce(refused, allowed), is_done;
END
$$;
REVOKE EXECUTE ON FUNCTION slot_residents, claim_readings, access.unassigned, access.claim
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.unassigned, access.claim TO hearth_api;
