-- The resident's archive: who a measurement is of. What names a person is sealed (api/vault.py) and
-- found by keyed hash; what rules and statistics need stands in columns and names nobody.

ALTER TABLE resident
    ADD COLUMN merged_into integer REFERENCES resident,
    ADD COLUMN erased_at timestamptz;
COMMENT ON COLUMN resident.merged_into IS 'a double entry: everything of it is the other''s now';

CREATE TABLE resident_profile (
    resident_id integer PRIMARY KEY REFERENCES resident,
    updated_at timestamptz NOT NULL DEFAULT now(),
    birth_year smallint,
    sex smallint NOT NULL DEFAULT 0 CHECK (sex IN (0, 1, 2, 9)),
    height_cm real CHECK (height_cm BETWEEN 20 AND 280),
    clinic text,
    targets jsonb NOT NULL DEFAULT '{}',
    fingerprint bytea,
    national_id_mark bytea,
    health_card_mark bytea,
    name_mark bytea,
    sealed bytea
);
CREATE UNIQUE INDEX resident_by_national_id ON resident_profile (national_id_mark)
    WHERE national_id_mark IS NOT NULL;
CREATE UNIQUE INDEX resident_by_health_card ON resident_profile (health_card_mark)
    WHERE health_card_mark IS NOT NULL;
CREATE INDEX resident_by_name ON resident_profile (name_mark) WHERE name_mark IS NOT NULL;
COMMENT ON COLUMN resident_profile.sex IS 'GB/T 2261.1: 0 unknown, 1 male, 2 female, 9 unspecified';
COMMENT ON COLUMN resident_profile.targets IS
    'personal limits by quantity: {"systolic_mmhg": {"high": 130}}; they override those of a rule set';
COMMENT ON COLUMN resident_profile.fingerprint IS
    'keyed hash of the imported line: the same line again changes nothing';
COMMENT ON COLUMN resident_profile.sealed IS
    'name, national id, health card, date of birth: AES-256-GCM with the resident''s own key';

-- A table of its own, so that its backups can be kept for less long than all others: with the row gone
-- from them too, no copy of resident_profile.sealed can be opened.
CREATE TABLE resident_key (
    resident_id integer PRIMARY KEY REFERENCES resident,
    key_id smallint NOT NULL,
    wrapped bytea NOT NULL
);
CREATE INDEX resident_key_of_master ON resident_key (key_id);
COMMENT ON COLUMN resident_key.key_id IS 'the master key that wraps it: HEARTH_HOME/secrets/archive_key_N';

-- Double entries. What was moved is kept, so that it can be moved back exactly.
CREATE TABLE resident_merge (
    merge_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kept_id integer NOT NULL REFERENCES resident,
    gone_id integer NOT NULL REFERENCES resident,
    merged_at timestamptz NOT NULL DEFAULT now(),
    undone_at timestamptz,
    CHECK (kept_id <> gone_id)
);
CREATE UNIQUE INDEX resident_merged_once ON resident_merge (gone_id) WHERE undone_at IS NULL;

CREATE TABLE resident_merge_measurement (
    merge_id integer NOT NULL REFERENCES resident_merge,
    measured_at timestamptz NOT NULL,
    identity_time timestamp NOT NULL,
    device_id integer NOT NULL,
    user_slot smallint NOT NULL,
    sign smallint NOT NULL
);
CREATE INDEX measurement_of_merge ON resident_merge_measurement (merge_id);

CREATE TABLE resident_merge_link (
    merge_id integer NOT NULL REFERENCES resident_merge,
    old_link_id integer NOT NULL REFERENCES link,
    new_link_id integer NOT NULL REFERENCES link
);
CREATE INDEX link_of_merge ON resident_merge_link (merge_id);

-- What an erasure removed of each batch, so that the ledger still balances.
CREATE TABLE erased_measurement (
    batch_id bigint NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT now(),
    rows integer NOT NULL
);
CREATE INDEX erased_of_batch ON erased_measurement (batch_id);

-- Answers of writes that bore an idempotency key, to be given again.
CREATE TABLE idempotent_answer (
    principal text NOT NULL,
    key text NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT now(),
    request_digest bytea NOT NULL,
    status smallint NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotent_answer_age ON idempotent_answer (answered_at);
