-- Whose a reading is, and whose it was thought to be: corrections, shared devices, the change log by
-- which ingest follows the registry. docs/attribution.md tells how they work together.

COMMENT ON COLUMN measurement.resident_id IS '0: nobody yet, on the worklist';
COMMENT ON COLUMN measurement.flags IS
    'bit 0: artefact, left out of averages; 1: unusual for the resident; 2: attributed by the household''s history; 3: by a person';

CREATE INDEX measurement_of_nobody ON measurement (device_id, user_slot, measured_at)
    WHERE resident_id = 0;

-- Every change of the registry, one row a key. A reader that has read the registry in a snapshot
-- finds behind it exactly what committed since, whatever order transactions committed in.
CREATE TABLE registry_change (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind smallint NOT NULL,
    key bigint,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX registry_change_since ON registry_change (xid);
CREATE INDEX registry_change_age ON registry_change (changed_at);
COMMENT ON COLUMN registry_change.kind IS
    '1: hub, 2: device, 3: links of a device, 4: the readings of a resident were re-attributed';
COMMENT ON COLUMN registry_change.key IS
    '1: the name as a number, 2: the address as a number, 3: device_id, 4: resident_id; null: too many to name';

-- A statement that changes more keys than this notes one row without a key: read all again.
CREATE FUNCTION registry_keys_max() RETURNS integer LANGUAGE sql IMMUTABLE RETURN 10000;

CREATE FUNCTION note_hub_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT FROM changed LIMIT registry_keys_max() + 1) AS named) > registry_keys_max() THEN
        INSERT INTO registry_change (kind, key) VALUES (1, NULL);
    ELSE
        INSERT INTO registry_change (kind, key)
        SELECT DISTINCT 1, ('x' || name)::bit(64)::bigint FROM changed;
    END IF;
    PERFORM pg_notify('hearth_registry', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION note_device_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT FROM changed LIMIT registry_keys_max() + 1) AS named) > registry_keys_max() THEN
        INSERT INTO registry_change (kind, key) VALUES (2, NULL);
    ELSE
        INSERT INTO registry_change (kind, key)
        SELECT DISTINCT 2, ('x' || lpad(replace(address, ':', ''), 16, '0'))::bit(64)::bigint
        FROM changed;
    END IF;
    PERFORM pg_notify('hearth_registry', '');
    RETURN NULL;
END
$$;

-- Whoever changes links waits until the open flushes have committed, and the next ones wait until
-- the change has (ingest.guard): no flush commits with links that it has not seen change.
CREATE FUNCTION note_link_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(18502, 0);
    IF (SELECT count(*) FROM (SELECT FROM changed LIMIT registry_keys_max() + 1) AS named) > registry_keys_max() THEN
        INSERT INTO registry_change (kind, key) VALUES (3, NULL);
    ELSE
        INSERT INTO registry_change (kind, key) SELECT DISTINCT 3, device_id FROM changed;
    END IF;
    IF TG_TABLE_NAME = 'shared_link' THEN
        INSERT INTO attribution_due (device_id, user_slot)
        SELECT DISTINCT device_id, user_slot FROM changed;
    ELSE -- readings that are nobody's may be somebody's now
        INSERT INTO attribution_due (device_id, user_slot)
        SELECT DISTINCT changed.device_id, changed.user_slot
        FROM changed
        JOIN measurement AS m
            ON m.device_id = changed.device_id
            AND m.user_slot = changed.user_slot
            AND m.resident_id = 0;
    END IF;
    PERFORM pg_notify('hearth_registry', '');
    RETURN NULL;
END
$$;

DROP TRIGGER hub_changed ON hub;
DROP TRIGGER device_changed ON device;
DROP TRIGGER link_changed ON link;
DROP FUNCTION tell_registry_changed;

-- A trigger with a transition table is of one event only.
CREATE TRIGGER hub_added AFTER INSERT ON hub REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_hub_change();
CREATE TRIGGER hub_altered AFTER UPDATE ON hub REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_hub_change();
CREATE TRIGGER hub_removed AFTER DELETE ON hub REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_hub_change();
CREATE TRIGGER device_added AFTER INSERT ON device REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_device_change();
CREATE TRIGGER device_altered AFTER UPDATE ON device REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_device_change();
CREATE TRIGGER device_removed AFTER DELETE ON device REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_device_change();
CREATE TRIGGER link_added AFTER INSERT ON link REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_link_change();
CREATE TRIGGER link_altered AFTER UPDATE ON link REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_link_change();
CREATE TRIGGER link_removed AFTER DELETE ON link REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_link_change();

-- One act of a person (or of the household's history) that changed whose readings are.
CREATE TABLE correction (
    correction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL CHECK (kind IN ('reassign', 'undo', 'claim', 'adopt', 'settle')),
    actor text NOT NULL,
    reason text,
    device_id integer,
    user_slot smallint,
    during tstzrange,
    resident_id integer,
    undoes bigint REFERENCES correction,
    readings integer NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX correction_undone_once ON correction (undoes) WHERE undoes IS NOT NULL;
COMMENT ON COLUMN correction.resident_id IS 'the new owner; 0: nobody; null: not one and the same';

-- What was believed before, one row a change of a reading. What is believed now stands in
-- measurement (resident_id, since stored_at). No foreign keys: rows follow the hypertable.
CREATE TABLE attribution (
    measured_at timestamptz NOT NULL,
    identity_time timestamp NOT NULL,
    believed_from timestamptz NOT NULL,
    believed_until timestamptz NOT NULL,
    correction_id bigint NOT NULL,
    device_id integer NOT NULL,
    resident_id integer NOT NULL,
    next_resident_id integer NOT NULL,
    user_slot smallint NOT NULL,
    sign smallint NOT NULL,
    flags smallint NOT NULL
);
CREATE INDEX attribution_of_reading
    ON attribution (device_id, user_slot, sign, identity_time, measured_at);
-- All of the reading's key too: without statistics the planner then has no bad choice.
CREATE INDEX attribution_of_correction
    ON attribution (correction_id, device_id, user_slot, sign, identity_time, measured_at);
COMMENT ON TABLE attribution IS 'whose readings were thought to be before each correction';
COMMENT ON COLUMN attribution.next_resident_id IS 'whose the correction made it';

ALTER TABLE link ADD COLUMN made_by bigint REFERENCES correction;
ALTER TABLE link ADD COLUMN superseded_by bigint REFERENCES correction;

-- Who uses a slot (255: none named) that several use: readings there are attributed by the
-- household's own history. Several residents of one slot may overlap in time.
CREATE TABLE shared_link (
    shared_link_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id integer NOT NULL REFERENCES device,
    user_slot smallint NOT NULL CHECK (user_slot BETWEEN 0 AND 255),
    resident_id integer NOT NULL REFERENCES resident,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    usual double precision,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,
    made_by bigint REFERENCES correction,
    superseded_by bigint REFERENCES correction,
    CONSTRAINT shared_link_once_at_a_time EXCLUDE USING gist (
        device_id WITH =, user_slot WITH =, resident_id WITH =, during WITH &&
    ) WHERE (superseded_at IS NULL)
);
CREATE INDEX shared_link_of_resident ON shared_link (resident_id) WHERE superseded_at IS NULL;
COMMENT ON COLUMN shared_link.usual IS
    'what the resident says is usual, of the first quantity of the device''s sign: a start without history';
CREATE TRIGGER shared_link_added AFTER INSERT ON shared_link REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_link_change();
CREATE TRIGGER shared_link_altered AFTER UPDATE ON shared_link REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_link_change();
CREATE TRIGGER shared_link_removed AFTER DELETE ON shared_link REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_link_change();

-- Why a reading is on the worklist: how likely each candidate was (resident 0: someone else).
CREATE TABLE posterior (
    measured_at timestamptz NOT NULL,
    identity_time timestamp NOT NULL,
    device_id integer NOT NULL,
    resident_id integer NOT NULL,
    probability real NOT NULL,
    user_slot smallint NOT NULL,
    sign smallint NOT NULL
);
CREATE INDEX posterior_of_reading
    ON posterior (device_id, user_slot, sign, identity_time, measured_at);

-- What is to be evaluated again, because readings came late or were re-attributed. Written in the
-- transaction that makes it necessary; a worker takes it up within seconds.
CREATE TABLE attribution_due (
    device_id integer NOT NULL,
    user_slot smallint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE baseline_due (
    resident_id integer NOT NULL,
    sign smallint NOT NULL,
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);
