-- Consent where it was forgotten: webhooks of alerts, the worklist of whoever sees everyone, double entries.

-- Whether a resident withholds a sign from everyone else; of an alert that no reading raised, never.
CREATE FUNCTION is_withheld(_resident integer, _sign smallint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM objection
        WHERE objection.resident_id = _resident
            AND objection.sign = _sign
            AND objection.withdrawn_at IS NULL
    )
$$;

-- As before, but webhooks are not told of a sign that is withheld.
CREATE OR REPLACE FUNCTION access.settle_alert(
    _alert uuid, _reader uuid, _state text, _note text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    _alert_id bigint;
    _event_id bigint;
BEGIN
    IF _state NOT IN ('acknowledged', 'resolved') THEN
        RAISE EXCEPTION 'not a state that people set: %', _state;
    END IF;
    UPDATE alert SET state = _state, changed_at = now()
    WHERE public_id = _alert
        AND resident_id = ANY (access.readable())
        AND (sign IS NULL OR (resident_id::bigint << 16 | sign) <> ALL (access.withheld()))
        AND (state = 'open' OR state = 'acknowledged' AND _state = 'resolved')
    RETURNING alert_id INTO _alert_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO alert_event (alert_id, actor, what, note)
    VALUES (_alert_id, 'user:' || _reader, _state, left(_note, 500))
    RETURNING event_id INTO _event_id;
    INSERT INTO webhook_delivery (webhook_id, event_id)
    SELECT webhook_id, _event_id
    FROM webhook, alert
    WHERE ended_at IS NULL AND alert_id = _alert_id AND NOT is_withheld(resident_id, sign);
    RETURN true;
END
$$;

-- A merge moves readings; what the resident does not consent to goes with them, both ways.
ALTER TABLE objection ADD COLUMN merge_id integer REFERENCES resident_merge;
COMMENT ON COLUMN objection.merge_id IS
    'it came with the readings of a double entry, by a merge or its undoing; null: it was said here';

-- As before, but whoever reads everyone's (access.begin notes nothing of any one resident then) is not
-- told of what is withheld either.
CREATE OR REPLACE FUNCTION access.last_measured(_signs smallint[], _after uuid, _limit integer)
RETURNS TABLE (resident uuid, sign smallint, measured_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    of_everyone constant boolean := access.sees('record');
BEGIN
    RETURN QUERY
    SELECT r.public_id, wanted.code, last.measured_at
    FROM (
        SELECT r.resident_id, r.public_id
        FROM resident AS r
        WHERE (r.resident_id = ANY (access.recorded()) OR of_everyone)
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
            AND NOT (of_everyone AND is_withheld(r.resident_id, wanted.code))
        ORDER BY m.measured_at DESC
        LIMIT 1
    ) AS last ON true
    ORDER BY r.public_id;
END
$$;
