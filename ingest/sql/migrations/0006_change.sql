-- What has changed: one row for each transaction that stored or re-attributed measurements. Whoever follows
-- along (alerts, live events, subscriptions) reads on from where it was.

CREATE TABLE change (
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    change_id bigint GENERATED ALWAYS AS IDENTITY,
    stored_at timestamptz NOT NULL,
    resident_id integer[] NOT NULL,
    sign smallint[] NOT NULL,
    oldest_ms bigint[] NOT NULL,
    newest_ms bigint[] NOT NULL,
    PRIMARY KEY (transaction_id, change_id),
    CONSTRAINT change_is_parallel CHECK (
        cardinality(resident_id) = cardinality(sign)
        AND cardinality(resident_id) = cardinality(oldest_ms)
        AND cardinality(resident_id) = cardinality(newest_ms)
    )
);
CREATE INDEX change_by_age ON change (stored_at);
COMMENT ON TABLE change IS 'which residents'' signs changed, in the order in which transactions settled';
COMMENT ON COLUMN change.stored_at IS 'what the rows concerned have as stored_at';
COMMENT ON COLUMN change.resident_id IS 'with sign, oldest_ms, newest_ms: one entry for each resident''s sign';
COMMENT ON COLUMN change.oldest_ms IS 'the earliest measured_at among the rows, milliseconds since 1970';
