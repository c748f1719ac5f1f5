-- Whose readings are is put right (api.corrections). All in one transaction, with the links held
-- still: `hold` waits for the open flushes of ingest, and the next ones wait for us.
-- Device, slot and resident are the store's keys here; resident 0 is nobody.

-- name: bound
-- A correction that hangs must not hold up ingest for long.
SELECT
    set_config('statement_timeout', %(statement_ms)s::text, true),
    set_config('idle_in_transaction_session_timeout', %(idle_ms)s::text, true)

-- name: hold
-- Alone with the links and the attributions (ingest.guard holds the same lock, shared).
SELECT pg_advisory_xact_lock(18502, 0)

-- name: device
-- A device's key.
SELECT device_id FROM device WHERE address = %(device)s

-- name: resident
-- A resident's key.
SELECT resident_id FROM resident WHERE public_id = %(resident)s

-- name: add_correction
-- The record of a correction; the number of its readings comes at its end.
INSERT INTO correction (kind, actor, reason, device_id, user_slot, during, resident_id, undoes)
VALUES (
    %(kind)s, %(actor)s, %(reason)s, %(device_id)s, %(user_slot)s,
    tstzrange(%(from_at)s, %(until_at)s), %(resident_id)s, %(undoes)s
)
RETURNING correction_id

-- name: count_readings
-- How many readings a correction moved.
UPDATE correction SET readings = %(readings)s WHERE correction_id = %(correction_id)s

-- name: cut_links
-- Take a period out of the links of a slot: those that reach into it are superseded, what they say
-- of other times is said again.
WITH cut AS (
    UPDATE link
    SET superseded_at = now(), superseded_by = %(correction_id)s
    WHERE device_id = %(device_id)s
        AND user_slot = %(user_slot)s
        AND superseded_at IS NULL
        AND during && tstzrange(%(from_at)s, %(until_at)s)
    RETURNING device_id, user_slot, resident_id, during
)
INSERT INTO link (device_id, user_slot, resident_id, during, made_by)
SELECT device_id, user_slot, resident_id, rest, %(correction_id)s
FROM cut
CROSS JOIN LATERAL unnest(
    tstzmultirange(during) - tstzmultirange(tstzrange(%(from_at)s, %(until_at)s))
) AS rest

-- name: cut_shared_links
-- The same of those who share the slot.
WITH cut AS (
    UPDATE shared_link
    SET superseded_at = now(), superseded_by = %(correction_id)s
    WHERE device_id = %(device_id)s
        AND user_slot = %(user_slot)s
        AND superseded_at IS NULL
        AND during && tstzrange(%(from_at)s, %(until_at)s)
    RETURNING device_id, user_slot, resident_id, during, usual
)
INSERT INTO shared_link (device_id, user_slot, resident_id, during, usual, made_by)
SELECT device_id, user_slot, resident_id, rest, usual, %(correction_id)s
FROM cut
CROSS JOIN LATERAL unnest(
    tstzmultirange(during) - tstzmultirange(tstzrange(%(from_at)s, %(until_at)s))
) AS rest

-- name: owners_before
-- Whose the slot was in the period, by the links that a correction superseded.
SELECT DISTINCT resident_id FROM link WHERE superseded_by = %(correction_id)s

-- name: add_link
-- The slot is the new owner's for the period.
INSERT INTO link (device_id, user_slot, resident_id, during, made_by)
VALUES (
    %(device_id)s, %(user_slot)s, %(resident_id)s, tstzrange(%(from_at)s, %(until_at)s),
    %(correction_id)s
)

-- name: remember_period
-- Keep whose the readings of a period were thought to be, where that changes.
INSERT INTO attribution (
    measured_at, identity_time, believed_from, believed_until, correction_id, device_id,
    resident_id, next_resident_id, user_slot, sign, flags
)
SELECT
    measured_at, identity_time, stored_at, date_trunc('milliseconds', now()), %(correction_id)s, device_id, resident_id,
    %(resident_id)s, user_slot, sign, flags
FROM measurement
WHERE device_id = %(device_id)s
    AND user_slot = %(user_slot)s
    AND (%(from_at)s::timestamptz IS NULL OR measured_at >= %(from_at)s)
    AND (%(until_at)s::timestamptz IS NULL OR measured_at < %(until_at)s)
    AND (resident_id <> %(resident_id)s OR flags & %(inferred)s <> 0)

-- name: move_period
-- Give the readings of a period to their new owner; nothing else of them changes.
UPDATE measurement
SET resident_id = %(resident_id)s, stored_at = date_trunc('milliseconds', now()), flags = flags & %(kept_flags)s
WHERE device_id = %(device_id)s
    AND user_slot = %(user_slot)s
    AND (%(from_at)s::timestamptz IS NULL OR measured_at >= %(from_at)s)
    AND (%(until_at)s::timestamptz IS NULL OR measured_at < %(until_at)s)
    AND (resident_id <> %(resident_id)s OR flags & %(inferred)s <> 0)

-- name: correction
-- One correction, with whether it was undone.
SELECT
    c.correction_id, c.made_at, c.kind, c.actor, c.reason, d.address AS device, c.device_id,
    c.user_slot, lower(c.during) AS from_at, upper(c.during) AS until_at, r.public_id AS resident,
    c.resident_id, c.readings,
    (SELECT correction_id FROM correction WHERE undoes = c.correction_id) AS undone_by
FROM correction AS c
LEFT JOIN device AS d USING (device_id)
LEFT JOIN resident AS r USING (resident_id)
WHERE c.correction_id = %(correction_id)s

-- name: corrections
-- The newest first, of one device where it is given.
SELECT
    c.correction_id, c.made_at, c.kind, c.actor, c.reason, d.address AS device, c.user_slot,
    lower(c.during) AS from_at, upper(c.during) AS until_at, r.public_id AS resident, c.readings,
    (SELECT correction_id FROM correction WHERE undoes = c.correction_id) AS undone_by
FROM correction AS c
LEFT JOIN device AS d USING (device_id)
LEFT JOIN resident AS r USING (resident_id)
WHERE %(device)s::text IS NULL OR d.address = %(device)s
ORDER BY c.correction_id DESC
LIMIT %(limit)s

-- name: changed_since
-- Whether the slot's links were changed since, by a later correction (its number) or by hand (null): a link in
-- the period, or what the correction left of one beside it, which would be said again as it was.
SELECT there.made_by
FROM (
    SELECT device_id, user_slot, during, made_by, recorded_at, superseded_at FROM link
    UNION ALL
    SELECT device_id, user_slot, during, made_by, recorded_at, superseded_at FROM shared_link
) AS there
JOIN correction AS undone ON undone.correction_id = %(undoes)s
WHERE there.device_id = %(device_id)s
    AND there.user_slot = %(user_slot)s
    AND there.superseded_at IS NULL
    AND there.during && undone.during
    AND (
        there.made_by > undone.correction_id
        OR (there.made_by IS NULL AND there.recorded_at > undone.made_at)
    )
UNION ALL
SELECT ours.superseded_by
FROM (
    SELECT made_by, superseded_at, superseded_by FROM link
    UNION ALL
    SELECT made_by, superseded_at, superseded_by FROM shared_link
) AS ours
WHERE ours.made_by = %(undoes)s
    AND ours.superseded_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM correction AS u WHERE u.undoes = ours.superseded_by)
LIMIT 1

-- name: unmake_links
-- What a correction said of the links is superseded.
UPDATE link
SET superseded_at = now(), superseded_by = %(correction_id)s
WHERE made_by = %(undoes)s AND superseded_at IS NULL

-- name: unmake_shared_links
-- The same of those who share.
UPDATE shared_link
SET superseded_at = now(), superseded_by = %(correction_id)s
WHERE made_by = %(undoes)s AND superseded_at IS NULL

-- name: restore_links
-- What a correction superseded is said again, as by whoever said it.
INSERT INTO link (device_id, user_slot, resident_id, during, made_by)
SELECT device_id, user_slot, resident_id, during, made_by
FROM link
WHERE superseded_by = %(undoes)s

-- name: restore_shared_links
-- The same of those who share.
INSERT INTO shared_link (device_id, user_slot, resident_id, during, usual, made_by)
SELECT device_id, user_slot, resident_id, during, usual, made_by
FROM shared_link
WHERE superseded_by = %(undoes)s

-- name: plan_undo
-- Whose each reading of the period is to be again: whose it was before the correction, unless
-- something has been decided about it since; of those stored since, whose link holds then, nobody's
-- where none does.
CREATE TEMPORARY TABLE given_back ON COMMIT DROP AS
SELECT
    m.measured_at, m.identity_time, m.device_id, m.user_slot, m.sign, m.resident_id AS old_owner,
    m.stored_at, m.flags AS old_flags,
    CASE WHEN before.correction_id IS NULL THEN coalesce(link.resident_id, 0) ELSE before.resident_id END
        AS resident_id,
    (CASE WHEN before.correction_id IS NULL THEN m.flags & %(kept_flags)s ELSE before.flags END)::smallint
        AS flags
FROM measurement AS m
JOIN correction AS undone ON undone.correction_id = %(undoes)s
LEFT JOIN LATERAL (
    SELECT a.correction_id, a.resident_id, a.flags
    FROM attribution AS a
    WHERE a.correction_id = undone.correction_id
        AND a.device_id = m.device_id
        AND a.user_slot = m.user_slot
        AND a.sign = m.sign
        AND a.identity_time = m.identity_time
        AND a.measured_at = m.measured_at
    OFFSET 0 -- a look-up for each, whatever the planner thinks of the numbers
) AS before ON true
LEFT JOIN link
    ON link.device_id = m.device_id
    AND link.user_slot = m.user_slot
    AND link.superseded_at IS NULL
    AND link.during @> m.measured_at
WHERE m.device_id = %(device_id)s
    AND m.user_slot = %(user_slot)s
    AND (%(from_at)s::timestamptz IS NULL OR m.measured_at >= %(from_at)s)
    AND (%(until_at)s::timestamptz IS NULL OR m.measured_at < %(until_at)s)
    AND m.resident_id = undone.resident_id
    AND m.flags & %(decided)s = 0
    AND (before.correction_id IS NOT NULL OR m.stored_at > undone.made_at)
    AND NOT EXISTS (
        SELECT
        FROM attribution AS later
        JOIN correction USING (correction_id)
        WHERE later.correction_id > undone.correction_id
            AND correction.undoes IS NULL
            AND NOT EXISTS (SELECT FROM correction AS u WHERE u.undoes = later.correction_id)
            AND later.device_id = m.device_id
            AND later.user_slot = m.user_slot
            AND later.sign = m.sign
            AND later.identity_time = m.identity_time
            AND later.measured_at = m.measured_at
        OFFSET 0
    )

-- name: count_given
-- The planner has to know how many they are.
ANALYZE given_back

-- name: remember_given
-- Keep whose the readings were thought to be.
INSERT INTO attribution (
    measured_at, identity_time, believed_from, believed_until, correction_id, device_id,
    resident_id, next_resident_id, user_slot, sign, flags
)
SELECT
    measured_at, identity_time, stored_at, date_trunc('milliseconds', now()), %(correction_id)s, device_id, old_owner,
    resident_id, user_slot, sign, old_flags
FROM given_back
WHERE old_owner <> resident_id OR old_flags <> flags

-- name: move_given
-- Give the readings of the plan to their owners. Device, slot and time are said once more, so that
-- only the chunks concerned are looked into.
UPDATE measurement AS m
SET resident_id = given.resident_id, stored_at = date_trunc('milliseconds', now()), flags = given.flags
FROM given_back AS given
WHERE m.device_id = %(device_id)s
    AND m.user_slot = %(user_slot)s
    AND (%(from_at)s::timestamptz IS NULL OR m.measured_at >= %(from_at)s)
    AND (%(until_at)s::timestamptz IS NULL OR m.measured_at < %(until_at)s)
    AND m.sign = given.sign
    AND m.identity_time = given.identity_time
    AND m.measured_at = given.measured_at
    AND (given.old_owner <> given.resident_id OR given.old_flags <> given.flags)

-- name: moved
-- Of a correction: who lost how many readings to whom.
SELECT resident_id, next_resident_id, count(*)
FROM attribution
WHERE correction_id = %(correction_id)s
GROUP BY resident_id, next_resident_id

-- name: spans
-- Of whose signs a correction moved readings, old owners and new; between which times they were
-- measured; and what the rows have as stored_at.
SELECT
    owner.resident_id, a.sign, (extract(epoch FROM min(a.measured_at)) * 1000)::bigint,
    (extract(epoch FROM max(a.measured_at)) * 1000)::bigint,
    (extract(epoch FROM date_trunc('milliseconds', now())) * 1000)::bigint
FROM attribution AS a
CROSS JOIN LATERAL (VALUES (a.resident_id), (a.next_resident_id)) AS owner (resident_id)
WHERE a.correction_id = %(correction_id)s AND owner.resident_id <> 0
GROUP BY owner.resident_id, a.sign

-- name: history
-- Whose the readings of a device were thought to be at a moment: the newest first.
SELECT
    m.measured_at, d.address AS device, m.device_id, m.user_slot, m.sign,
    (extract(epoch FROM m.identity_time) * 1000000)::bigint AS identity_us,
    r.public_id AS resident, b.believed_from, b.believed_until, b.correction_id
FROM measurement AS m
JOIN device AS d USING (device_id)
CROSS JOIN LATERAL (
    SELECT a.resident_id, a.believed_from, a.believed_until, a.correction_id
    FROM attribution AS a
    WHERE a.device_id = m.device_id
        AND a.user_slot = m.user_slot
        AND a.sign = m.sign
        AND a.identity_time = m.identity_time
        AND a.measured_at = m.measured_at
    UNION ALL
    SELECT m.resident_id, m.stored_at, NULL::timestamptz, NULL::bigint
) AS b
LEFT JOIN resident AS r ON r.resident_id = b.resident_id
WHERE d.address = %(device)s
    AND (%(user_slot)s::smallint IS NULL OR m.user_slot = %(user_slot)s)
    AND (%(from_at)s::timestamptz IS NULL OR m.measured_at >= %(from_at)s)
    AND (%(until_at)s::timestamptz IS NULL OR m.measured_at < %(until_at)s)
    AND (
        %(as_of)s::timestamptz IS NULL
        OR (b.believed_from <= %(as_of)s AND (b.believed_until IS NULL OR %(as_of)s < b.believed_until))
    )
ORDER BY m.measured_at DESC, m.user_slot, m.sign, b.believed_from DESC
LIMIT %(limit)s

-- name: worklist
-- Readings that are nobody's and that nobody has decided about, the newest first, with how likely
-- each candidate is. {quantities}: the columns of all quantities.
SELECT
    m.measured_at, m.device_id, m.user_slot, m.sign,
    (extract(epoch FROM m.identity_time) * 1000000)::bigint AS identity_us, d.address, m.utc_offset,
    (
        SELECT coalesce(json_agg(json_build_array(r.public_id, round(p.probability::numeric, 3))
            ORDER BY p.probability DESC, p.resident_id), '[]')
        FROM posterior AS p
        LEFT JOIN resident AS r USING (resident_id)
        WHERE p.device_id = m.device_id
            AND p.user_slot = m.user_slot
            AND p.sign = m.sign
            AND p.identity_time = m.identity_time
            AND p.measured_at = m.measured_at
    ) AS candidates,
    {quantities}
FROM measurement AS m
JOIN device AS d USING (device_id)
JOIN home AS h USING (home_id)
WHERE m.resident_id = 0
    AND m.flags & %(claimed)s = 0
    AND (%(device)s::text IS NULL OR d.address = %(device)s)
    AND (%(home)s::uuid IS NULL OR h.public_id = %(home)s)
ORDER BY m.measured_at DESC, m.device_id, m.user_slot, m.sign, m.identity_time
LIMIT %(limit)s

-- name: claim
-- Make readings a resident's by a person's word (resident 0: a stranger's). Null: one is not stored.
SELECT claim_readings(
    %(actor)s, %(reason)s, %(resident_id)s, %(measured_us)s::bigint[], %(devices)s::integer[],
    %(user_slots)s::smallint[], %(signs)s::smallint[], %(identity_us)s::bigint[]
)
