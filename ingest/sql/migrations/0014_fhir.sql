-- FHIR's own records, which the API writes: bulk exports under way, subscriptions and their events.
-- What they hold of a resident is opaque ids only.

CREATE TABLE fhir_export (
    export_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account uuid NOT NULL,
    principal jsonb NOT NULL,
    request text NOT NULL,
    kinds text[] NOT NULL,
    since timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'complete', 'failed', 'cancelled')),
    behind uuid,
    residents_done bigint NOT NULL DEFAULT 0,
    residents_all bigint NOT NULL DEFAULT 0,
    sizes jsonb NOT NULL DEFAULT '{}',
    counts jsonb NOT NULL DEFAULT '{}',
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    finished_at timestamptz,
    error text
);
CREATE INDEX fhir_export_running ON fhir_export (started_at) WHERE state = 'running';
COMMENT ON TABLE fhir_export IS 'bulk exports; their files lie in the API''s folder';
COMMENT ON COLUMN fhir_export.principal IS 'as whom it reads; decided anew for every resident';
COMMENT ON COLUMN fhir_export.behind IS 'the last resident who is whole in the files';
COMMENT ON COLUMN fhir_export.sizes IS 'bytes of each file up to there; what lies behind is cut off';
COMMENT ON COLUMN fhir_export.leased_until IS 'a worker of the API has it until then';

CREATE TABLE fhir_subscription (
    subscription_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account uuid NOT NULL,
    principal jsonb NOT NULL,
    resident uuid NOT NULL,
    resident_id integer NOT NULL,
    criteria text NOT NULL,
    endpoint text NOT NULL,
    secret text NOT NULL,
    content text NOT NULL CHECK (content IN ('empty', 'id-only', 'full-resource')),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'error', 'off')),
    created_at timestamptz NOT NULL DEFAULT now(),
    transaction_id bigint NOT NULL,
    change_id bigint NOT NULL,
    events bigint NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    error text
);
COMMENT ON TABLE fhir_subscription IS 'who is told of new Observations, and how far';
COMMENT ON COLUMN fhir_subscription.transaction_id IS
    'with change_id: behind which change of the feed its events are known';
COMMENT ON COLUMN fhir_subscription.delivered IS 'events up to this number were taken by the endpoint';

CREATE TABLE fhir_event (
    subscription_id uuid NOT NULL REFERENCES fhir_subscription ON DELETE CASCADE,
    number bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    observations text[] NOT NULL,
    dead_at timestamptz,
    PRIMARY KEY (subscription_id, number)
);
COMMENT ON TABLE fhir_event IS 'what a subscription is told: the Observations'' ids, in the order of the feed';
COMMENT ON COLUMN fhir_event.dead_at IS 'when its delivery was given up; it can still be caught up';

GRANT SELECT, INSERT, UPDATE, DELETE ON fhir_export, fhir_subscription, fhir_event TO hearth_api;
-- Keys and times only: which residents' signs changed, not how.
GRANT SELECT ON change TO hearth_api;
