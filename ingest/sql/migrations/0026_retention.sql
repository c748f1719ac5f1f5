-- What nobody needs any more is found by its age, and goes (docs/operations.md says what is kept how long).

CREATE INDEX fhir_event_age ON fhir_event (at);
CREATE INDEX fhir_export_age ON fhir_export (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX webhook_delivery_age ON webhook_delivery (due_at) WHERE state <> 'waiting';
CREATE INDEX session_end ON session (expires_at);
GRANT DELETE ON session TO hearth_issuer;
