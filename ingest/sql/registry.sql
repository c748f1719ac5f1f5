-- The registry as arrays, and what changed in it (ingest.registry). A table is read in pieces, each one
-- string of fixed-size rows in PostgreSQL's binary forms: a message a row would cost more than all else.
-- {only}: a range of blocks, or the keys that changed.

-- name: snapshot
-- What this transaction sees, for `changes` and for ingest.guard.
SELECT pg_current_snapshot()::text

-- name: changes
-- The keys that changed behind a snapshot. From beyond our own snapshot comes only what a restored
-- dump brought with it: not looked at.
SELECT DISTINCT kind, key
FROM registry_change
WHERE xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
    AND xid < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
LIMIT %(limit)s

-- name: forget_changes
-- Changes that every worker has read, or has been away for too long to need.
DELETE FROM registry_change WHERE changed_at < now() - make_interval(secs => %(age_s)s)

-- name: blocks
-- How many blocks a table has.
SELECT pg_relation_size(%(table)s::regclass) / current_setting('block_size')::bigint

-- name: hub
-- Hubs: id as a number, key, home, whether revoked, whether the home ever had another.
SELECT string_agg(
    int8send(('x' || name)::bit(64)::bigint) || int4send(hub_id) || int4send(home_id)
    || boolsend(revoked_at IS NOT NULL) || boolsend(EXISTS (
        SELECT FROM hub AS other WHERE other.home_id = hub.home_id AND other.hub_id <> hub.hub_id
    )), '')
FROM hub
WHERE {only}

-- name: device
-- Devices: address as a number, key, home.
SELECT string_agg(
    int8send(('x' || lpad(replace(address, ':', ''), 16, '0'))::bit(64)::bigint)
    || int4send(device_id) || int4send(home_id), '')
FROM device
WHERE {only}

-- name: link
-- Links in force: device, slot, from, to (exclusive), resident.
SELECT string_agg(
    int4send(device_id) || int2send(user_slot)
    || timestamptz_send(coalesce(lower(during), '-infinity'))
    || timestamptz_send(coalesce(upper(during), 'infinity'))
    || int4send(resident_id), '')
FROM link
WHERE superseded_at IS NULL AND {only}

-- name: shared_link
-- Who shares a slot: as `link`, with what the resident says is usual (not a number: nothing said).
SELECT string_agg(
    int4send(device_id) || int2send(user_slot)
    || timestamptz_send(coalesce(lower(during), '-infinity'))
    || timestamptz_send(coalesce(upper(during), 'infinity'))
    || int4send(resident_id) || float8send(coalesce(usual, 'NaN')), '')
FROM shared_link
WHERE superseded_at IS NULL AND {only}

-- name: addresses
-- The addresses of devices, as numbers.
SELECT ('x' || lpad(replace(address, ':', ''), 16, '0'))::bit(64)::bigint
FROM device
WHERE device_id = ANY(%(devices)s)
