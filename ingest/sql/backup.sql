-- What a backup notes, and what a restore does beside pg_restore (ingest.backup).

-- name: facts
-- Of the database: its size, its extension's version, the highest migration.
SELECT
    pg_database_size(current_database()),
    (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
    (SELECT max(version) FROM schema_migration)

-- name: roles
-- Who has rights on something of ours: they have to be there before a restore.
SELECT DISTINCT grantee.rolname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS acl
JOIN pg_roles grantee ON grantee.oid = acl.grantee
WHERE n.nspname = 'public' AND grantee.rolname !~ '^pg_'
UNION
SELECT rolname FROM pg_roles WHERE rolname LIKE 'hearth%'

-- name: has_role
-- Whether a role is there.
SELECT 1 FROM pg_roles WHERE rolname = %(role)s

-- name: size_of
-- How large a database is by now.
SELECT pg_database_size(%(database)s)

-- name: end_sessions
-- End the sessions of a database that is about to be renamed.
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = %(database)s AND pid <> pg_backend_pid()

-- name: beyond_all_blocks
-- Workers hold blocks of batch ids that they took after the backup: no id is given out again.
SELECT setval('batch_block', nextval('batch_block') + %(blocks)s)

-- name: registry_is_another
-- A worker that runs on reads the whole registry before it stores anything more: keys that were given out after
-- the backup are another's by and by.
INSERT INTO registry_change (kind, key) VALUES (1, NULL), (3, NULL)

-- name: is_feed_ahead
-- Whether the feed of changes has numbers that this server gives out later: it comes from another.
SELECT EXISTS (SELECT FROM change WHERE transaction_id >= pg_current_xact_id())
    OR EXISTS (SELECT FROM alert_event WHERE transaction_id >= pg_current_xact_id())
    OR EXISTS (
        SELECT FROM alert_progress WHERE transaction_id >= pg_current_xact_id()::text::bigint
        UNION ALL
        SELECT FROM fhir_subscription WHERE transaction_id >= pg_current_xact_id()::text::bigint
    )

-- name: move_readers
-- Put readers where they stand when all that is in the feed is of this transaction: before the first change
-- that they have not read.
UPDATE {readers} AS reader
SET
    transaction_id = pg_current_xact_id()::text::bigint,
    change_id = coalesce(
        (
            SELECT min(change.change_id) - 1
            FROM change
            WHERE (change.transaction_id, change.change_id)
                > (reader.transaction_id::text::xid8, reader.change_id)
        ),
        (SELECT max(change_id) FROM change),
        0
    )

-- name: move_changes
-- All changes are of this transaction.
UPDATE change SET transaction_id = pg_current_xact_id()

-- name: move_alert_events
-- What happened to alerts, too.
UPDATE alert_event SET transaction_id = pg_current_xact_id() WHERE transaction_id IS NOT NULL

-- name: keys_out
-- The residents' keys, by the ids that never change.
COPY (
    SELECT r.public_id, k.key_id, k.wrapped
    FROM resident_key AS k JOIN resident AS r USING (resident_id)
    ORDER BY r.public_id
) TO STDOUT

-- name: make_given_keys
-- Where the keys of a backup wait for their residents.
CREATE TEMPORARY TABLE given_key (public_id uuid, key_id smallint, wrapped bytea) ON COMMIT DROP

-- name: keys_in
-- The keys of a backup.
COPY given_key FROM STDIN

-- name: put_keys
-- Give each resident who is there and has none their key.
INSERT INTO resident_key (resident_id, key_id, wrapped)
SELECT r.resident_id, given.key_id, given.wrapped
FROM given_key AS given JOIN resident AS r USING (public_id)
ON CONFLICT (resident_id) DO NOTHING
