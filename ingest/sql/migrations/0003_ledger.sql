-- What became of every batch, and what was kept apart. No foreign keys here: each would cost a look-up
-- a row on the ingest path, and hubs are never deleted.

-- A worker takes batch ids by the block, so that it knows them before its transaction begins.
CREATE SEQUENCE batch_block;

CREATE TABLE batch (
    batch_id bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    reference_at timestamptz NOT NULL,
    committed_at timestamptz NOT NULL,
    hub_id integer NOT NULL,
    published integer NOT NULL,
    stored integer NOT NULL,
    duplicate integer NOT NULL,
    quarantined integer NOT NULL,
    decoder integer NOT NULL,
    kind smallint NOT NULL,
    UNIQUE (hub_id, epoch, sequence),
    CONSTRAINT batch_balances CHECK (published = stored + duplicate + quarantined)
);
COMMENT ON TABLE batch IS 'the ledger: published = stored + duplicate + quarantined, for every batch';

CREATE TABLE quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id bigint,
    device bigint,
    clock_offset_ms bigint,
    received_at timestamptz NOT NULL,
    measured_at timestamptz,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    hub_id integer,
    content_bytes integer NOT NULL,
    seen integer NOT NULL DEFAULT 1,
    source integer,
    decoder integer,
    kind smallint NOT NULL,
    reason smallint NOT NULL,
    sign smallint,
    detail smallint,
    utc_offset smallint,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'replayed', 'discarded')),
    resolved_by text,
    message text,
    digest bytea,
    content bytea NOT NULL
);
COMMENT ON TABLE quarantine IS 'what was kept apart, with its bytes and the reason, for replay';
COMMENT ON COLUMN quarantine.device IS 'the device''s address as a 64-bit number';
COMMENT ON COLUMN quarantine.kind IS
    '1: a wire record, 2: an undecoded payload, 3: a whole message that is no batch';
COMMENT ON COLUMN quarantine.clock_offset_ms IS
    'the hub''s time minus the device''s clock when the payload came (kind 2)';
COMMENT ON COLUMN quarantine.reason IS 'ingest.verdicts.Verdict';
COMMENT ON COLUMN quarantine.detail IS
    'the place of the quantity (or of the rule) in its sign that gave the reason';
COMMENT ON COLUMN quarantine.content_bytes IS
    'its whole length; content has the first part when it is very long';
COMMENT ON COLUMN quarantine.seen IS 'how often the same message came (kind 3)';

CREATE INDEX quarantine_waiting ON quarantine (reason, quarantined_at) WHERE state = 'waiting';
CREATE INDEX quarantine_of_device ON quarantine (device) WHERE state = 'waiting';
CREATE UNIQUE INDEX quarantine_message_once ON quarantine (hub_id, digest) NULLS NOT DISTINCT
    WHERE kind = 3;
