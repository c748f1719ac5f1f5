-- Made by `hearth db new-migration` from the registry of vital signs.
-- quantities: heart_rate_per_min energy_expended_kj
-- quantities: blood_glucose_mmol_per_l
-- quantities: body_fat_percent muscle_percent soft_lean_mass_kg body_water_mass_kg composition_weight_kg

ALTER TABLE measurement
    ADD COLUMN heart_rate_per_min double precision,
    ADD COLUMN energy_expended_kj double precision,
    ADD COLUMN blood_glucose_mmol_per_l double precision,
    ADD COLUMN body_fat_percent double precision,
    ADD COLUMN muscle_percent double precision,
    ADD COLUMN soft_lean_mass_kg double precision,
    ADD COLUMN body_water_mass_kg double precision,
    ADD COLUMN composition_weight_kg double precision;

COMMENT ON COLUMN measurement.heart_rate_per_min IS 'Heart rate, /min, LOINC 8867-4, MDC 147842';
COMMENT ON COLUMN measurement.energy_expended_kj IS 'Energy expended since its reset, kJ';
COMMENT ON COLUMN measurement.blood_glucose_mmol_per_l IS 'Blood glucose, mmol/L, LOINC 15074-8, MDC 160020';
COMMENT ON COLUMN measurement.body_fat_percent IS 'Body fat, %, LOINC 41982-0, MDC 188748';
COMMENT ON COLUMN measurement.muscle_percent IS 'Muscle, %, MDC 188772';
COMMENT ON COLUMN measurement.soft_lean_mass_kg IS 'Soft lean mass, kg, MDC 188760';
COMMENT ON COLUMN measurement.body_water_mass_kg IS 'Body water, kg, MDC 188764';
COMMENT ON COLUMN measurement.composition_weight_kg IS 'Body weight, from a composition scale, kg, LOINC 29463-7, MDC 188736';
