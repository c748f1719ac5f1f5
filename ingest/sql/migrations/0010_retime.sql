-- A record that could not be placed in time may be placed afterwards; its bytes stay as they came.

ALTER TABLE quarantine ADD COLUMN placed_quality smallint;
COMMENT ON COLUMN quarantine.placed_quality IS
    'gateway.measurement.TimeQuality of measured_at where `hearth admin device retime` gave it';
COMMENT ON COLUMN measurement.time_quality IS 'gateway.measurement.TimeQuality: how measured_at came about';
