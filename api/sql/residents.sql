-- Residents' profiles: importing, finding, changing, erasing (api.residents, api.resident_import).

-- name: make_incoming
-- The lines of one import that say something new, a chunk at a time; new residents have no
-- resident_id yet, `is_new` tells them when they have.
CREATE TEMPORARY TABLE incoming (
    resident_id integer, public_id uuid, birth_year smallint, sex smallint, height_cm real, clinic text, targets jsonb,
    fingerprint bytea, national_id_mark bytea, health_card_mark bytea, name_mark bytea,
    sealed bytea, key_id smallint, wrapped bytea, care_team text, is_new boolean NOT NULL DEFAULT false
) ON COMMIT DELETE ROWS

-- name: copy_incoming
-- Fill it.
COPY incoming (
    resident_id, public_id, birth_year, sex, height_cm, clinic, targets, fingerprint,
    national_id_mark, health_card_mark, name_mark, sealed, key_id, wrapped, care_team
) FROM STDIN (FORMAT BINARY)

-- name: find_marked
-- Who bears one of the given numbers. By joins: each number is one look along its index.
SELECT r.resident_id, r.public_id, p.national_id_mark, p.health_card_mark, p.fingerprint
FROM (
    SELECT p.resident_id
    FROM unnest(%(national_ids)b::bytea[]) AS given (mark)
    JOIN resident_profile p ON p.national_id_mark = given.mark
    UNION
    SELECT p.resident_id
    FROM unnest(%(health_cards)b::bytea[]) AS given (mark)
    JOIN resident_profile p ON p.health_card_mark = given.mark
) AS found
JOIN resident r USING (resident_id)
JOIN resident_profile p USING (resident_id)

-- name: sealed_of_many
-- What is sealed of those who change, with the keys.
SELECT resident_id, key_id, wrapped, sealed
FROM resident_profile
JOIN resident_key USING (resident_id)
WHERE resident_id = ANY(%(residents)s::integer[]) AND sealed IS NOT NULL

-- name: enter_residents
-- Those of the chunk who are not entered yet.
WITH entered AS (
    INSERT INTO resident (public_id)
    SELECT public_id FROM incoming WHERE resident_id IS NULL
    RETURNING resident_id, public_id
)
UPDATE incoming i
SET resident_id = entered.resident_id, is_new = true
FROM entered
WHERE i.public_id = entered.public_id

-- name: enter_profiles
-- Their profiles.
INSERT INTO resident_profile (
    resident_id, birth_year, sex, height_cm, clinic, targets, fingerprint, national_id_mark,
    health_card_mark, name_mark, sealed
)
SELECT
    resident_id, birth_year, sex, height_cm, clinic, targets, fingerprint, national_id_mark,
    health_card_mark, name_mark, sealed
FROM incoming
WHERE is_new

-- name: enter_keys
-- Their keys.
INSERT INTO resident_key (resident_id, key_id, wrapped)
SELECT resident_id, key_id, wrapped FROM incoming WHERE is_new

-- name: change_profiles
-- The profiles of the others; what is not said of a known resident stays as it was.
INSERT INTO resident_profile AS known (
    resident_id, birth_year, sex, height_cm, clinic, targets, fingerprint, national_id_mark,
    health_card_mark, name_mark, sealed
)
SELECT
    resident_id, birth_year, sex, height_cm, clinic, targets, fingerprint, national_id_mark,
    health_card_mark, name_mark, sealed
FROM incoming
WHERE NOT is_new
ON CONFLICT (resident_id) DO UPDATE SET
    updated_at = now(),
    birth_year = coalesce(excluded.birth_year, known.birth_year),
    sex = excluded.sex,
    height_cm = coalesce(excluded.height_cm, known.height_cm),
    clinic = coalesce(excluded.clinic, known.clinic),
    targets = known.targets || excluded.targets,
    fingerprint = excluded.fingerprint,
    national_id_mark = excluded.national_id_mark,
    health_card_mark = excluded.health_card_mark,
    name_mark = excluded.name_mark,
    sealed = excluded.sealed

-- name: change_keys
-- Their keys; a new seal comes with a new key.
INSERT INTO resident_key (resident_id, key_id, wrapped)
SELECT resident_id, key_id, wrapped FROM incoming WHERE NOT is_new
ON CONFLICT (resident_id) DO UPDATE SET key_id = excluded.key_id, wrapped = excluded.wrapped

-- name: audit_lines
-- Who was entered or changed by the lines of a chunk.
INSERT INTO audit (actor, action, resident_id, origin)
SELECT
    %(actor)s, CASE WHEN is_new THEN 'resident.import' ELSE 'profile.import' END, resident_id,
    %(origin)s
FROM incoming

-- name: known_care_teams
-- Those of the given names that are care teams.
SELECT name FROM care_team WHERE name = ANY(%(names)s)

-- name: enter_care
-- Who looks after them, from now on, where that is not so already.
INSERT INTO care_team_resident (care_team_id, resident_id, during)
SELECT t.care_team_id, i.resident_id, tstzrange(now(), NULL)
FROM incoming i
JOIN care_team t ON t.name = i.care_team
WHERE NOT EXISTS (
    SELECT
    FROM care_team_resident c
    WHERE c.care_team_id = t.care_team_id
        AND c.resident_id = i.resident_id
        AND c.during && tstzrange(now(), NULL)
)
RETURNING resident_id

-- name: any_key
-- One key that a master key wrapped, to see whether the master key is the right one.
SELECT r.public_id, k.key_id, k.wrapped
FROM resident_key k
JOIN resident r USING (resident_id)
WHERE k.key_id = %(key_id)s
LIMIT 1

-- name: keys_to_wrap
-- Keys that an older master key wraps.
SELECT r.public_id, k.resident_id, k.key_id, k.wrapped
FROM resident_key k
JOIN resident r USING (resident_id)
WHERE k.key_id <> %(key_id)s
ORDER BY k.resident_id
LIMIT %(limit)s
FOR UPDATE OF k

-- name: rewrap_keys
-- Put newly wrapped keys in place of the old.
UPDATE resident_key
SET key_id = %(key_id)s, wrapped = given.wrapped
FROM unnest(%(residents)s::integer[], %(wrapped)s::bytea[]) AS given (resident_id, wrapped)
WHERE resident_key.resident_id = given.resident_id

-- name: sealed_of
-- What is sealed of one resident, with the key; nulls where nothing was entered.
SELECT r.resident_id, p.sealed, k.key_id, k.wrapped, r.erased_at
FROM resident r
LEFT JOIN resident_profile p USING (resident_id)
LEFT JOIN resident_key k USING (resident_id)
WHERE r.public_id = %(resident)s

-- name: key_of
-- The store's key of a resident, and what became of the entry; locked, so that two take turns.
SELECT resident_id, merged_into, erased_at
FROM resident
WHERE public_id = %(resident)s
FOR UPDATE

-- name: destroy_key
-- With it gone, what is sealed cannot be opened.
DELETE FROM resident_key WHERE resident_id = %(resident_id)s

-- name: forget_profile
-- What names or describes the resident, the hashes that find it too.
DELETE FROM resident_profile WHERE resident_id = %(resident_id)s

-- name: mark_erased
-- The opaque id stays, so that the audit can be read.
UPDATE resident SET erased_at = now() WHERE resident_id = %(resident_id)s

-- name: end_links
-- Nobody is measured for this resident any more.
UPDATE link SET superseded_at = now() WHERE resident_id = %(resident_id)s AND superseded_at IS NULL

-- name: end_shares
-- Nor among those who share a device.
UPDATE shared_link SET superseded_at = now()
WHERE resident_id = %(resident_id)s AND superseded_at IS NULL

-- name: forget_posteriors
-- How likely unassigned readings were the resident's.
DELETE FROM posterior WHERE resident_id = %(resident_id)s

-- name: forget_attributions
-- Which readings were thought to be the resident's, or were taken from them.
DELETE FROM attribution
WHERE resident_id = %(resident_id)s OR next_resident_id = %(resident_id)s

-- name: forget_kept_apart
-- What was kept apart of the resident's own slots and times, by the links that this erasure ended: the
-- bytes, not the count. A record of a slot that is another's stays; a payload that nobody could read
-- may be of any slot. What was replayed is counted as stored.
UPDATE quarantine q
SET content = '', message = NULL, digest = NULL,
    state = CASE q.state WHEN 'waiting' THEN 'discarded' ELSE q.state END,
    resolved_at = coalesce(q.resolved_at, now()),
    resolved_by = coalesce(q.resolved_by, 'erasure')
FROM link l
JOIN device d USING (device_id)
WHERE l.resident_id = %(resident_id)s
    AND l.superseded_at = now()
    AND q.device = ('x' || lpad(replace(d.address, ':', ''), 16, '0'))::bit(64)::bigint
    AND l.during @> coalesce(q.measured_at, q.received_at)
    AND CASE
        WHEN q.kind = %(record_kind)s AND octet_length(q.content) > %(slot_at)s
            THEN get_byte(q.content, %(slot_at)s) = l.user_slot
        ELSE q.content <> ''
    END

-- name: forget_measurements
-- The rows go; how many of each batch there were stays, so that the ledger balances.
WITH gone AS (
    DELETE FROM measurement WHERE resident_id = %(resident_id)s RETURNING batch_id
)
INSERT INTO erased_measurement (batch_id, rows)
SELECT batch_id, count(*) FROM gone GROUP BY batch_id
RETURNING rows

-- name: forget_merges
-- Places of readings that were moved between double entries.
DELETE FROM resident_merge_measurement
WHERE merge_id IN (
    SELECT merge_id
    FROM resident_merge
    WHERE kept_id = %(resident_id)s OR gone_id = %(resident_id)s
)

-- name: make_seen
-- The numbers that this import has met, with the line: a number twice in one file is a mistake.
CREATE TEMPORARY TABLE seen (mark bytea PRIMARY KEY, line integer NOT NULL)

-- name: seen_before
-- Those of the given numbers that an earlier line had.
SELECT seen.mark, seen.line
FROM unnest(%(marks)b::bytea[]) AS given (mark)
JOIN seen ON seen.mark = given.mark

-- name: see
-- Note numbers.
INSERT INTO seen (mark, line)
SELECT mark, line
FROM unnest(%(marks)b::bytea[], %(lines)b::integer[]) AS given (mark, line)
ON CONFLICT DO NOTHING

-- name: entries_of
-- A resident's entry and all that were merged into it.
WITH RECURSIVE entry AS (
    SELECT %(resident_id)s::integer AS resident_id
    UNION
    SELECT r.resident_id FROM resident r JOIN entry ON r.merged_into = entry.resident_id
)
SELECT resident_id FROM entry

-- name: forget_deliveries
-- What was told of the resident's alerts.
DELETE FROM webhook_delivery
WHERE event_id IN (
    SELECT event_id
    FROM alert_event
    JOIN alert USING (alert_id)
    WHERE alert.resident_id = %(resident_id)s
)

-- name: forget_alert_events
-- What people said of the resident's alerts.
DELETE FROM alert_event
WHERE alert_id IN (SELECT alert_id FROM alert WHERE resident_id = %(resident_id)s)

-- name: forget_alerts
-- The alerts, which hold values.
DELETE FROM alert WHERE resident_id = %(resident_id)s

-- name: forget_marks
-- For which rules the resident was marked.
DELETE FROM alert_mark WHERE resident_id = %(resident_id)s

-- name: forget_subscriptions
-- Who is told of new readings, and the ids of those that were told of.
DELETE FROM fhir_subscription WHERE resident_id = %(resident_id)s

-- name: end_exports
-- Files of bulk exports may hold the resident: they are not given out any more, and the API removes them.
UPDATE fhir_export SET state = 'cancelled', finished_at = now(), error = 'a resident was erased'
WHERE state IN ('running', 'complete')

-- name: end_care
-- No care team looks after the resident any more.
UPDATE care_team_resident
SET during = tstzrange(lower(during), now())
WHERE resident_id = %(resident_id)s AND during @> now() AND lower(during) IS DISTINCT FROM now()

-- name: disable_account
-- The resident's own account, if there is one, opens nothing any more.
UPDATE account SET disabled_at = coalesce(disabled_at, now()) WHERE resident_id = %(resident_id)s

-- name: read_as_owner
-- Let the views of the schema access show the owner one resident, for this transaction.
SELECT access.note(
    ARRAY[%(resident_id)s]::integer[], '{}', ARRAY[%(resident_id)s]::integer[], ''
)
