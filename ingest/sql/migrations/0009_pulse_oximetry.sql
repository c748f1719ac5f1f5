-- Made by `hearth db new-migration` from the registry of vital signs.
-- quantities: oxygen_saturation_percent oximeter_pulse_rate_per_min pulse_amplitude_index_percent

ALTER TABLE measurement
    ADD COLUMN oxygen_saturation_percent double precision,
    ADD COLUMN oximeter_pulse_rate_per_min double precision,
    ADD COLUMN pulse_amplitude_index_percent double precision;

COMMENT ON COLUMN measurement.oxygen_saturation_percent IS 'Oxygen saturation, %, LOINC 2708-6, MDC 150456';
COMMENT ON COLUMN measurement.oximeter_pulse_rate_per_min IS 'Pulse rate, from an oximeter, /min, LOINC 8867-4, MDC 149530';
COMMENT ON COLUMN measurement.pulse_amplitude_index_percent IS 'Pulse amplitude index, %';
