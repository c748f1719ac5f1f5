-- One row a measurement, one hypertable for all signs. The quantity columns come with the
-- migrations that `hearth db new-migration` writes from the registry of signs.
-- Columns stand in the order of their alignment, so that a row has no padding.

CREATE TABLE measurement (
    measured_at timestamptz NOT NULL,
    identity_time timestamp NOT NULL,
    stored_at timestamptz NOT NULL,
    batch_id bigint NOT NULL,
    digits bigint NOT NULL,
    device_id integer NOT NULL,
    resident_id integer NOT NULL,
    status integer NOT NULL,
    content_hash integer NOT NULL,
    received_after_s real NOT NULL,
    sign smallint NOT NULL,
    user_slot smallint NOT NULL,
    time_quality smallint NOT NULL,
    utc_offset smallint,
    unit_set smallint NOT NULL,
    time_flags smallint NOT NULL,
    flags smallint NOT NULL
);
COMMENT ON COLUMN measurement.measured_at IS 'when it was measured, on the hub''s time line';
COMMENT ON COLUMN measurement.identity_time IS
    'the device''s own time, by which the same reading is known again; the reception where it has none';
COMMENT ON COLUMN measurement.stored_at IS 'when the row came to be or was last changed';
COMMENT ON COLUMN measurement.digits IS
    'what the device sent, exactly: bytes 0-4 the power of ten of each value, bits 40-59 the absence of each (docs/wire.md)';
COMMENT ON COLUMN measurement.content_hash IS
    'of the values as sent: tells a reading that came again from another one with the same time';
COMMENT ON COLUMN measurement.received_after_s IS 'reception at the hub minus measured_at';
COMMENT ON COLUMN measurement.utc_offset IS 'local time minus UTC where it was measured, in quarter hours';
COMMENT ON COLUMN measurement.flags IS 'bit 0: artefact, left out of averages';

SELECT create_hypertable(
    'measurement', by_range('measured_at', INTERVAL '7 days'), create_default_indexes => false
);

-- Identity leaves the resident out: an attribution may change. measured_at closes the key because a
-- unique index of a hypertable must hold the time it is partitioned by.
CREATE UNIQUE INDEX measurement_identity
    ON measurement (device_id, user_slot, sign, identity_time, measured_at);
CREATE INDEX measurement_of_resident ON measurement (resident_id, sign, measured_at DESC);
