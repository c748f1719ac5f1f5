-- Who did what to whose data, and why. Append-only and hash-chained: each row's hash covers the row
-- and the hash before it in its chain. There are many chains, so that no reader waits for another: a
-- transaction takes a chain that is free and holds it until it ends.

CREATE TABLE audit_chain (
    chain smallint PRIMARY KEY CHECK (chain BETWEEN 0 AND 63),
    seq bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT '\x'
) WITH (fillfactor = 25);
COMMENT ON TABLE audit_chain IS 'the head of each chain: its last row''s number and hash';
INSERT INTO audit_chain (chain) SELECT generate_series(0, 63);

CREATE TABLE audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq bigint NOT NULL,
    resident_id integer,
    chain smallint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    reason text,
    origin text,
    detail jsonb NOT NULL DEFAULT '{}',
    hash bytea NOT NULL,
    CONSTRAINT audit_of_chain UNIQUE (chain, seq)
);
CREATE INDEX audit_of_resident ON audit (resident_id, at DESC) WHERE resident_id IS NOT NULL;
COMMENT ON TABLE audit IS 'who did what to whose data, written in the transaction that does it';
COMMENT ON COLUMN audit.actor IS 'user:ID or service:ID of the API, cli:LOGIN of a command';
COMMENT ON COLUMN audit.action IS 'noun.verb, such as measurement.read, device.reassign';
COMMENT ON COLUMN audit.origin IS 'the address a request came from, or the machine of a command';
COMMENT ON COLUMN audit.detail IS 'opaque ids and counts only, never a value, name or number';
COMMENT ON COLUMN audit.hash IS 'SHA-256 of the hash before it in the chain and of audit_text';

-- What a row's hash covers, as one text; `hearth audit verify` asks for it and hashes it elsewhere.
CREATE FUNCTION audit_text(entry audit) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_array(
        entry.audit_id, (extract(epoch FROM entry.at) * 1000000)::bigint, entry.actor,
        entry.action, entry.resident_id, entry.reason, entry.origin, entry.detail
    )::text
$$;

-- The advisory lock finds a chain that nobody writes to; the row's own lock is what the chain rests on.
CREATE FUNCTION audit_append() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    mine constant integer := pg_backend_pid();
BEGIN
    FOR i IN 0..63 LOOP
        NEW.chain := (mine + i) % 64;
        EXIT WHEN pg_try_advisory_xact_lock(18502, NEW.chain);
    END LOOP;
    NEW.at := clock_timestamp();
    UPDATE audit_chain AS head
    SET seq = head.seq + 1,
        hash = sha256(head.hash || convert_to(audit_text(NEW), 'UTF8'))
    WHERE head.chain = NEW.chain
    RETURNING head.seq, head.hash INTO STRICT NEW.seq, NEW.hash;
    RETURN NEW;
END
$$;

CREATE TRIGGER audit_appends BEFORE INSERT ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_append();
