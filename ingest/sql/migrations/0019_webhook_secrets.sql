-- The secrets of webhooks are sealed with a key that is not in the database (api.fhir.webhooks). Those that
-- were entered before are in plain text until the API has started once; it seals them first.
ALTER TABLE fhir_subscription
    ADD COLUMN sealed bytea,
    ALTER COLUMN secret DROP NOT NULL,
    ADD CONSTRAINT fhir_subscription_one_secret CHECK (num_nonnulls(secret, sealed) = 1);
COMMENT ON COLUMN fhir_subscription.sealed IS 'the secret of its signatures, AES-256-GCM, bound to its id';
COMMENT ON COLUMN fhir_subscription.secret IS 'null since 0019';
