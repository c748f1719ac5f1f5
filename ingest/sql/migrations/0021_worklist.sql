-- Readings that another home's hub had first are nobody's until a person says whose (ingest.elsewhere).

COMMENT ON COLUMN measurement.flags IS
    'bit 0: artefact, left out of averages; 1: unusual for the resident; 2: attributed by the household''s history; 3: by a person; 4: another home''s hub had it first';
COMMENT ON COLUMN measurement.received_after_s IS
    'reception at the hub minus measured_at; of several receptions the first';

ALTER TABLE correction DROP CONSTRAINT correction_kind_check;
ALTER TABLE correction ADD CONSTRAINT correction_kind_check
    CHECK (kind IN ('reassign', 'undo', 'claim', 'adopt', 'settle', 'elsewhere'));
