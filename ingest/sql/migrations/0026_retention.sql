-- What nobody needs any more is found by its age, and goes (docs/operations.md says what is kept how long).

CREATE INDEX fhir_event_age ON fhir_event (at);
CREATE INDEX fhir_export_age ON fhir_export (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX webhook_delivery_age ON webhook_delivery (due_at) WHERE state <> 'waiting';
CREATE INDEX session_end ON session (expires_at);
GRANT DELETE ON session TO hearth_issuer;

-- Each worker that takes an export over writes to a folder of its own, and is the only one that can note how
-- far it is: one that was taken for dead and goes on harms nothing. Files of before lie elsewhere.
ALTER TABLE fhir_export
    ADD COLUMN lease integer NOT NULL DEFAULT 0,
    ADD COLUMN files_of integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN fhir_export.lease IS 'counts the workers that had it; the last one has it now';
COMMENT ON COLUMN fhir_export.files_of IS 'in which lease''s folder the files lie that sizes speaks of';
UPDATE fhir_export SET state = 'failed', error = 'asked for before an update: ask again'
WHERE state = 'complete';
