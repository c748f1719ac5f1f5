-- The API's doors to the alerts: those of residents whose values the transaction may read, but for signs that
-- they withhold.

ALTER TABLE alert ADD COLUMN sign smallint;
COMMENT ON COLUMN alert.sign IS 'whose readings met the rule; null: no reading did (ingest.alerts.silence)';

CREATE VIEW access.alert WITH (security_barrier) AS
SELECT
    a.public_id, a.alert_id, a.resident_id, r.public_id AS resident, a.rule,
    rule.definition -> 'title' AS title, rule.definition ->> 'source' AS source,
    rule.definition ->> 'version' AS version, a.stage, a.state, a.is_note, a.started_at, a.last_at,
    a.cleared_at, a.alarm_at, a.raised_at, a.changed_at, a.readings, a.sign
FROM alert AS a
JOIN alert_rule AS rule USING (rule_id)
JOIN resident AS r ON r.resident_id = a.resident_id
WHERE a.resident_id = ANY ((SELECT access.readable())::integer[])
    AND (a.sign IS NULL
        OR (a.resident_id::bigint << 16 | a.sign) <> ALL ((SELECT access.withheld())::bigint[]));

CREATE VIEW access.alert_event WITH (security_barrier) AS
SELECT e.alert_id, e.event_id, e.at, e.actor, e.what, e.note
FROM alert_event AS e
WHERE EXISTS (SELECT FROM access.alert AS a WHERE a.alert_id = e.alert_id);

-- Personal data that statistics and rules need, of residents whose values may be read.
CREATE VIEW access.alert_mark WITH (security_barrier) AS
SELECT mark.resident_id, mark.rule, mark.days, mark.marked_at
FROM alert_mark AS mark
WHERE mark.resident_id = ANY ((SELECT access.readable())::integer[]);

GRANT SELECT ON access.alert, access.alert_event, access.alert_mark TO hearth_api;

-- Acknowledge or resolve an alert that the transaction may read; tell the webhooks. False: it is not there,
-- or stands there already.
CREATE FUNCTION access.settle_alert(_alert uuid, _reader uuid, _state text, _note text)
RETURNS boolean
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
    SELECT webhook_id, _event_id FROM webhook WHERE ended_at IS NULL;
    RETURN true;
END
$$;
REVOKE EXECUTE ON FUNCTION access.settle_alert FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.settle_alert TO hearth_api;
