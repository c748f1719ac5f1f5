-- Observations of other gateways (POST /fhir): which hub stands for a service, what it handed over and
-- ingest has not committed yet, and what became of which identifier. The batches that result are in the
-- ledger like any hub's. The API's role has no grant here: it calls the functions below.

CREATE TABLE fhir_gateway (
    account_id integer NOT NULL REFERENCES account,
    hub_id integer NOT NULL UNIQUE REFERENCES hub,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, hub_id)
);
COMMENT ON TABLE fhir_gateway IS 'the hubs that stand for a service, one in each home that it measures in';
COMMENT ON COLUMN fhir_gateway.sequence IS 'of the last batch that was handed over in the epoch';

CREATE TABLE fhir_inbox (
    inbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hub text NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    received_at timestamptz NOT NULL,
    payload bytea NOT NULL,
    UNIQUE (hub, epoch, sequence)
);
COMMENT ON TABLE fhir_inbox IS 'batches (docs/wire.md) that wait for ingest, which removes them after their COMMIT';

CREATE TABLE fhir_created (
    account_id integer NOT NULL REFERENCES account,
    identifier bytea NOT NULL CHECK (octet_length(identifier) = 32),
    record bytea NOT NULL CHECK (octet_length(record) = 32),
    hub text NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    device bigint NOT NULL,
    identity_ms bigint NOT NULL,
    measured_ms bigint NOT NULL,
    user_slot smallint NOT NULL,
    sign smallint NOT NULL,
    part text NOT NULL,
    PRIMARY KEY (account_id, identifier)
);
CREATE INDEX fhir_created_of_batch ON fhir_created (hub, epoch, sequence);
COMMENT ON TABLE fhir_created IS 'under which identifier a service created what; no value is in it';
COMMENT ON COLUMN fhir_created.identifier IS 'SHA-256 of system|value';
COMMENT ON COLUMN fhir_created.record IS 'SHA-256 of the wire record';

-- What is erased is not remembered by its identifier either.
CREATE FUNCTION forget_created() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM fhir_created AS created
    USING erased, batch, hub
    WHERE batch.batch_id = erased.batch_id AND hub.hub_id = batch.hub_id
        AND (created.hub, created.epoch, created.sequence) = (hub.name, batch.epoch, batch.sequence)
        AND NOT EXISTS (
            SELECT FROM measurement AS m
            JOIN device USING (device_id)
            WHERE ('x' || lpad(replace(device.address, ':', ''), 16, '0'))::bit(64)::bigint
                    = created.device
                AND m.user_slot = created.user_slot AND m.sign = created.sign
                AND m.identity_time = timestamp 'epoch' + created.identity_ms * interval '1 ms'
        );
    RETURN NULL;
END
$$;
CREATE TRIGGER created_erased AFTER INSERT ON erased_measurement
    REFERENCING NEW TABLE AS erased
    FOR EACH STATEMENT EXECUTE FUNCTION forget_created();

-- Decide whether a service may create Observations, audit it, and hold its gateways for the transaction.
-- One row for each address: the hub in the device's home, else the service's first. What is in the way
-- otherwise: account, role, scope, gateway (no hub stands for it), full (too much waits for ingest).
CREATE FUNCTION access.begin_creation(
    _reader uuid, _session uuid, _origin text, _entries integer, _addresses text[],
    _waiting_max integer
) RETURNS TABLE (address text, hub text, admitted boolean, why text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    me account;
    barred text;
BEGIN
    me := access.known(_reader, _session);
    PERFORM pg_catalog.set_config('hearth.account', coalesce(me.account_id::text, ''), true);
    PERFORM access.note('{}', '{}', '{}', '');
    IF me.account_id IS NULL THEN
        RETURN QUERY SELECT NULL::text, NULL::text, false, 'account'::text;
        RETURN;
    END IF;
    PERFORM FROM fhir_gateway WHERE account_id = me.account_id ORDER BY hub_id FOR UPDATE;
    IF me.role <> 'service' THEN
        barred := 'role';
    ELSIF NOT EXISTS (
        SELECT FROM unnest(me.scopes) AS mine (name)
        WHERE name ~ '^system/(\*|Observation)\.(\*|write|cr?u?d?s?)(\?.+)?$'
    ) THEN
        barred := 'scope';
    ELSIF NOT EXISTS (
        SELECT FROM fhir_gateway JOIN hub USING (hub_id)
        WHERE account_id = me.account_id AND revoked_at IS NULL
    ) THEN
        barred := 'gateway';
    ELSIF (SELECT count(*) FROM (SELECT FROM fhir_inbox LIMIT _waiting_max) AS w) >= _waiting_max THEN
        barred := 'full';
    END IF;
    INSERT INTO audit (actor, action, origin, detail)
    VALUES (
        CASE me.role WHEN 'service' THEN 'service:' ELSE 'user:' END || me.public_id,
        'observation.create', _origin,
        CASE
            WHEN barred IS NULL THEN jsonb_build_object('entries', _entries)
            ELSE jsonb_build_object('refused', barred)
        END
    );
    IF barred IS NOT NULL THEN
        RETURN QUERY SELECT NULL::text, NULL::text, false, barred;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT given.address, chosen.name, true, NULL::text
    FROM unnest(_addresses) AS given (address)
    LEFT JOIN device ON device.address = given.address
    CROSS JOIN LATERAL (
        SELECT hub.name
        FROM fhir_gateway JOIN hub USING (hub_id)
        WHERE fhir_gateway.account_id = me.account_id AND hub.revoked_at IS NULL
        ORDER BY hub.home_id IS DISTINCT FROM device.home_id, hub.hub_id
        LIMIT 1
    ) AS chosen;
END
$$;

-- The next place of a gateway's batches; its row is locked by access.begin_creation.
CREATE FUNCTION access.next_batch(_hub text) RETURNS TABLE (epoch bigint, sequence bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    UPDATE fhir_gateway SET sequence = fhir_gateway.sequence + 1
    FROM hub
    WHERE hub.name = _hub AND hub.hub_id = fhir_gateway.hub_id
        AND fhir_gateway.account_id = access.account()
    RETURNING fhir_gateway.epoch, fhir_gateway.sequence
$$;

-- Hand a batch over to ingest.
CREATE FUNCTION access.hand_over(
    _hub text, _epoch bigint, _sequence bigint, _received_at timestamptz, _payload bytea
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    INSERT INTO fhir_inbox (hub, epoch, sequence, received_at, payload)
    SELECT _hub, _epoch, _sequence, _received_at, _payload
    FROM fhir_gateway JOIN hub USING (hub_id)
    WHERE hub.name = _hub AND fhir_gateway.account_id = access.account()
$$;

-- Remember by which identifier something was created; what was there under it is replaced.
CREATE FUNCTION access.remember_created(
    _identifier bytea, _record bytea, _hub text, _epoch bigint, _sequence bigint, _device bigint,
    _user_slot smallint, _sign smallint, _identity_ms bigint, _measured_ms bigint, _part text
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    INSERT INTO fhir_created (
        account_id, identifier, record, hub, epoch, sequence, device, user_slot, sign, identity_ms,
        measured_ms, part
    )
    VALUES (
        access.account(), _identifier, _record, _hub, _epoch, _sequence, _device, _user_slot, _sign,
        _identity_ms, _measured_ms, _part
    )
    ON CONFLICT (account_id, identifier) DO UPDATE SET
        record = excluded.record, hub = excluded.hub, epoch = excluded.epoch,
        sequence = excluded.sequence, device = excluded.device, user_slot = excluded.user_slot,
        sign = excluded.sign, identity_ms = excluded.identity_ms,
        measured_ms = excluded.measured_ms, part = excluded.part
$$;

CREATE FUNCTION access.created(_identifiers bytea[]) RETURNS TABLE (
    identifier bytea, record bytea, hub text, epoch bigint, sequence bigint, device bigint,
    user_slot smallint, sign smallint, identity_ms bigint, measured_ms bigint, part text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT
        identifier, record, hub, epoch, sequence, device, user_slot, sign, identity_ms, measured_ms,
        part
    FROM fhir_created
    WHERE account_id = access.account() AND identifier = ANY (_identifiers)
$$;

-- Whose a device's slot is by its link at a time; null: nobody's, or one of several people's.
CREATE FUNCTION access.linked(_address text, _user_slot smallint, _at timestamptz) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT resident.public_id
    FROM link JOIN device USING (device_id) JOIN resident USING (resident_id)
    WHERE device.address = _address AND link.user_slot = _user_slot AND link.during @> _at
        AND link.superseded_at IS NULL
$$;

-- What became of a handed-over batch: committed, waiting, or refused (its hub was revoked meanwhile).
CREATE FUNCTION access.handed_over(_hub text, _epoch bigint, _sequence bigint) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM batch JOIN hub USING (hub_id)
            WHERE hub.name = _hub AND batch.epoch = _epoch AND batch.sequence = _sequence
        ) THEN 'committed'
        WHEN EXISTS (
            SELECT FROM fhir_inbox AS i
            WHERE (i.hub, i.epoch, i.sequence) = (_hub, _epoch, _sequence)
        ) THEN 'waiting'
        ELSE 'refused'
    END
$$;

-- Why a record of a batch waits in quarantine; no row where it does not.
CREATE FUNCTION access.kept_apart(
    _hub text, _epoch bigint, _sequence bigint, _device bigint, _record bytea
) RETURNS TABLE (reason smallint, detail smallint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT kept.reason, kept.detail
    FROM batch
    JOIN hub USING (hub_id)
    JOIN quarantine AS kept USING (batch_id)
    WHERE hub.name = _hub AND batch.epoch = _epoch AND batch.sequence = _sequence
        AND kept.device = _device AND kept.state = 'waiting'
        AND sha256(kept.content) = _record
    LIMIT 1
$$;

-- The stored rows of a reading's identity: where they stand, and whether this batch brought them. A
-- device whose clock began anew has several; the nearest to `_measured_at` comes first.
CREATE FUNCTION access.places_of(
    _device bigint, _user_slot smallint, _sign smallint, _identity_ms bigint,
    _measured_at timestamptz, _hub text, _epoch bigint, _sequence bigint
) RETURNS TABLE (
    measured_at timestamptz, device_id integer, identity_us bigint, resident uuid, is_new boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT
        m.measured_at, m.device_id, _identity_ms * 1000, resident.public_id,
        coalesce((hub.name, batch.epoch, batch.sequence) = (_hub, _epoch, _sequence), false)
    FROM device
    JOIN measurement AS m USING (device_id)
    LEFT JOIN resident USING (resident_id)
    LEFT JOIN batch USING (batch_id)
    LEFT JOIN hub USING (hub_id)
    WHERE device.address = regexp_replace(
            upper(CASE
                WHEN _device BETWEEN 0 AND 281474976710655 THEN lpad(to_hex(_device), 12, '0')
                ELSE lpad(to_hex(_device), 16, '0')
            END),
            '(..)(?!$)', '\1:', 'g'
        )
        AND m.user_slot = _user_slot AND m.sign = _sign
        AND m.identity_time = timestamp 'epoch' + _identity_ms * interval '1 ms'
    ORDER BY abs(extract(epoch FROM m.measured_at - _measured_at))
$$;

REVOKE EXECUTE ON FUNCTION
    access.begin_creation, access.next_batch, access.hand_over, access.remember_created,
    access.created, access.linked, access.handed_over, access.kept_apart, access.places_of
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    access.begin_creation, access.next_batch, access.hand_over, access.remember_created,
    access.created, access.linked, access.handed_over, access.kept_apart, access.places_of
TO hearth_api;
