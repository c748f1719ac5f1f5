-- Made by `hearth db new-migration` from the registry of vital signs.
-- quantities: systolic_mmhg diastolic_mmhg mean_arterial_mmhg pulse_rate_per_min
-- quantities: body_temperature_celsius
-- quantities: body_weight_kg bmi_kg_per_m2 body_height_cm
-- quantities: steps distance_m energy_kcal active_min activity_period_s
-- quantities: water_intake_ml

ALTER TABLE measurement
    ADD COLUMN systolic_mmhg double precision,
    ADD COLUMN diastolic_mmhg double precision,
    ADD COLUMN mean_arterial_mmhg double precision,
    ADD COLUMN pulse_rate_per_min double precision,
    ADD COLUMN body_temperature_celsius double precision,
    ADD COLUMN body_weight_kg double precision,
    ADD COLUMN bmi_kg_per_m2 double precision,
    ADD COLUMN body_height_cm double precision,
    ADD COLUMN steps double precision,
    ADD COLUMN distance_m double precision,
    ADD COLUMN energy_kcal double precision,
    ADD COLUMN active_min double precision,
    ADD COLUMN activity_period_s double precision,
    ADD COLUMN water_intake_ml double precision;

COMMENT ON COLUMN measurement.systolic_mmhg IS 'Systolic pressure, mm[Hg], LOINC 8480-6, MDC 150021';
COMMENT ON COLUMN measurement.diastolic_mmhg IS 'Diastolic pressure, mm[Hg], LOINC 8462-4, MDC 150022';
COMMENT ON COLUMN measurement.mean_arterial_mmhg IS 'Mean arterial pressure, mm[Hg], LOINC 8478-0, MDC 150023';
COMMENT ON COLUMN measurement.pulse_rate_per_min IS 'Pulse rate, /min, LOINC 8867-4, MDC 149546';
COMMENT ON COLUMN measurement.body_temperature_celsius IS 'Body temperature, Cel, LOINC 8310-5, MDC 150364';
COMMENT ON COLUMN measurement.body_weight_kg IS 'Body weight, kg, LOINC 29463-7, MDC 188736';
COMMENT ON COLUMN measurement.bmi_kg_per_m2 IS 'Body mass index, kg/m2, LOINC 39156-5, MDC 188752';
COMMENT ON COLUMN measurement.body_height_cm IS 'Body height, cm, LOINC 8302-2, MDC 188740';
COMMENT ON COLUMN measurement.steps IS 'Steps, {steps}, LOINC 55423-8, MDC 8454247';
COMMENT ON COLUMN measurement.distance_m IS 'Distance, m, LOINC 55430-3, MDC 8454247';
COMMENT ON COLUMN measurement.energy_kcal IS 'Energy expended, kcal, LOINC 55424-6, MDC 8454263';
COMMENT ON COLUMN measurement.active_min IS 'Active time, min, LOINC 55411-3, MDC 8454269';
COMMENT ON COLUMN measurement.activity_period_s IS 'Period covered, s';
COMMENT ON COLUMN measurement.water_intake_ml IS 'Water intake, mL, LOINC 9000-1';
