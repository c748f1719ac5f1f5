-- Alerts: rules as data, one alert a resident, rule and episode, what people said of it, and its delivery.

CREATE TABLE alert_rule (
    rule_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
    definition jsonb NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz
);
CREATE UNIQUE INDEX alert_rule_in_force ON alert_rule (name) WHERE superseded_at IS NULL;
COMMENT ON TABLE alert_rule IS 'a change supersedes a rule, so that what held when, and by whom, stays known';

-- For whom a rule that is not for everybody holds.
CREATE TABLE alert_mark (
    resident_id integer NOT NULL REFERENCES resident,
    rule text NOT NULL,
    days smallint,
    marked_by text NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (resident_id, rule)
);
COMMENT ON COLUMN alert_mark.days IS 'of the rule no-readings: after so many days without one';

CREATE TABLE alert (
    alert_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    resident_id integer NOT NULL REFERENCES resident,
    rule text NOT NULL,
    rule_id integer NOT NULL REFERENCES alert_rule,
    started_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    cleared_at timestamptz,
    alarm_at timestamptz,
    raised_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    stage smallint NOT NULL CHECK (stage IN (1, 2)),
    readings integer NOT NULL,
    peak double precision,
    is_note boolean NOT NULL,
    state text NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'acknowledged', 'resolved', 'withdrawn')),
    UNIQUE (resident_id, rule, started_at)
);
CREATE INDEX alert_of_resident ON alert (resident_id, started_at DESC);
CREATE INDEX alert_waiting ON alert (started_at DESC) WHERE state IN ('open', 'acknowledged');
COMMENT ON COLUMN alert.started_at IS 'with last_at, cleared_at, alarm_at: times of measurement';
COMMENT ON COLUMN alert.stage IS '1: a repeat is asked for, 2: alarm';
COMMENT ON COLUMN alert.is_note IS 'known too late to alarm anyone; shown, not delivered';
COMMENT ON COLUMN alert.state IS 'withdrawn: later readings, or another owner, took it back';

CREATE TABLE alert_event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id bigint NOT NULL REFERENCES alert,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    what text NOT NULL CHECK (what IN (
        'asked', 'raised', 'noted', 'cleared', 'withdrawn', 'acknowledged', 'resolved', 'reopened'
    )),
    note text
);
CREATE INDEX alert_event_of_alert ON alert_event (alert_id, event_id);

CREATE TABLE webhook (
    webhook_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    url text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE UNIQUE INDEX webhook_in_force ON webhook (url) WHERE ended_at IS NULL;
COMMENT ON TABLE webhook IS 'whom to tell; the key that signs is HEARTH_HOME/secrets/webhook_ID, not here';

CREATE TABLE webhook_delivery (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id integer NOT NULL REFERENCES webhook,
    event_id bigint NOT NULL REFERENCES alert_event,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts smallint NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    UNIQUE (webhook_id, event_id)
);
CREATE INDEX webhook_delivery_due ON webhook_delivery (due_at) WHERE state = 'waiting';

-- Where the evaluation stands in the feed of changes.
CREATE TABLE alert_progress (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    transaction_id bigint NOT NULL,
    change_id bigint NOT NULL
);
