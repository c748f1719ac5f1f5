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
-- (STABLE, as what it calls is: else it is not inlined, and planned anew for every row.)
CREATE FUNCTION audit_text(entry audit) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
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
        EXIT WHEN pg_try_advisory_xact_lock(18506, NEW.chain);
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

-- What anchors the chains: their heads at a moment, under a key that is not in the database. Rows that
-- are gone from a chain's end, or a chain that was written anew, disagree with an anchor.
CREATE TABLE audit_anchor (
    anchor_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    heads jsonb NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON COLUMN audit_anchor.heads IS
    'chain -> [number, hash] of each head that moved since the anchor before';
COMMENT ON COLUMN audit_anchor.mac IS
    'HMAC-SHA-256 of the mac before it, the time and the heads (gateway.platform.audit)';

-- Where a chain begins now: behind what was old enough to go.
CREATE TABLE audit_pruned (
    chain smallint PRIMARY KEY REFERENCES audit_chain,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    pruned_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION audit_stays() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'audit' THEN
        IF OLD.at < now() - interval '183 days' AND EXISTS (
            SELECT FROM audit_pruned WHERE chain = OLD.chain AND seq >= OLD.seq
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_stays();
CREATE TRIGGER audit_stays_whole BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();
CREATE TRIGGER audit_anchor_stays BEFORE UPDATE OR DELETE ON audit_anchor
    FOR EACH ROW EXECUTE FUNCTION audit_stays();
CREATE TRIGGER audit_anchor_stays_whole BEFORE TRUNCATE ON audit_anchor
    FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();
