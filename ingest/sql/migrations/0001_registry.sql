-- Who is measured by what, and which hub may say so: homes, hubs, devices, residents, links.
-- Opaque ids go out (public_id); the small integer keys stay inside, in indexes and arrays.

CREATE EXTENSION IF NOT EXISTS timescaledb;
CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE resident (
    resident_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE home (
    home_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE hub (
    hub_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[0-9a-f]{16}$'),
    home_id integer NOT NULL REFERENCES home,
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX hub_of_home ON hub (home_id);
COMMENT ON COLUMN hub.name IS 'the id in topics and batches: 16 hexadecimal digits';

CREATE TABLE device (
    device_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address text NOT NULL UNIQUE CHECK (address ~ '^([0-9A-F]{2}:){5}([0-9A-F]{2}|([0-9A-F]{2}:){2}[0-9A-F]{2})$'),
    home_id integer NOT NULL REFERENCES home,
    model text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX device_of_home ON device (home_id);
COMMENT ON COLUMN device.address IS 'EUI-48 (or EUI-64), capital hexadecimal pairs between colons';

-- A device's user slot belongs to one resident at a time. A correction does not change a link, it
-- supersedes it, so that what was believed when stays known.
CREATE TABLE link (
    link_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id integer NOT NULL REFERENCES device,
    user_slot smallint NOT NULL CHECK (user_slot BETWEEN 0 AND 255),
    resident_id integer NOT NULL REFERENCES resident,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,
    CONSTRAINT link_one_resident_at_a_time EXCLUDE USING gist (
        device_id WITH =, user_slot WITH =, during WITH &&
    ) WHERE (superseded_at IS NULL)
);
CREATE INDEX link_of_resident ON link (resident_id) WHERE superseded_at IS NULL;
COMMENT ON COLUMN link.user_slot IS '255: readings that name no slot';

-- Ingest and the API hold these tables in memory and read them again when told.
CREATE FUNCTION tell_registry_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hearth_registry', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER hub_changed AFTER INSERT OR UPDATE OR DELETE ON hub
    FOR EACH STATEMENT EXECUTE FUNCTION tell_registry_changed();
CREATE TRIGGER device_changed AFTER INSERT OR UPDATE OR DELETE ON device
    FOR EACH STATEMENT EXECUTE FUNCTION tell_registry_changed();
CREATE TRIGGER link_changed AFTER INSERT OR UPDATE OR DELETE ON link
    FOR EACH STATEMENT EXECUTE FUNCTION tell_registry_changed();
