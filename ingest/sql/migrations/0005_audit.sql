-- Who did what to whose data, and why. Append-only: nobody but the schema's owner may change a row.

CREATE TABLE audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,
    resident_id integer,
    reason text,
    origin text,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_of_resident ON audit (resident_id, at DESC) WHERE resident_id IS NOT NULL;
COMMENT ON TABLE audit IS 'who did what to whose data, written in the transaction that does it';
COMMENT ON COLUMN audit.actor IS 'user:ID of the API, cli:LOGIN of a command, service:NAME';
COMMENT ON COLUMN audit.action IS 'noun.verb, such as measurement.read, device.reassign';
COMMENT ON COLUMN audit.origin IS 'the address a request came from, or the machine of a command';
COMMENT ON COLUMN audit.detail IS 'opaque ids and counts only, never a value, name or number';
