-- Double entries of one resident (api.resident_merge): everything of `gone` becomes `kept`'s, and back.

-- name: note_merge
-- A merge, by which what it moves is kept.
INSERT INTO resident_merge (kept_id, gone_id) VALUES (%(kept)s, %(gone)s)
RETURNING merge_id

-- name: point_to
-- Whoever looks for the double entry is led to the other; null: to itself again.
UPDATE resident SET merged_into = %(kept)s WHERE resident_id = %(gone)s

-- name: shares
-- A device that the double entry shares with others now.
SELECT device.address
FROM shared_link
JOIN device USING (device_id)
WHERE resident_id = %(gone)s AND superseded_at IS NULL
LIMIT 1

-- name: supersede_links
-- A link is not changed: what was believed stays known.
UPDATE link
SET superseded_at = now()
WHERE resident_id = %(gone)s AND superseded_at IS NULL
RETURNING link_id

-- name: copy_links
-- The same links for the other resident, and which stands for which.
WITH old AS (
    SELECT link_id, device_id, user_slot, during FROM link WHERE link_id = ANY(%(links)s)
),
new AS (
    INSERT INTO link (device_id, user_slot, resident_id, during)
    SELECT device_id, user_slot, %(kept)s, during FROM old
    RETURNING link_id, device_id, user_slot, during
)
INSERT INTO resident_merge_link (merge_id, old_link_id, new_link_id)
SELECT %(merge_id)s, old.link_id, new.link_id
FROM old
JOIN new USING (device_id, user_slot, during)

-- name: note_what_stays
-- Readings in the slots that move which are the other resident's already: they do not go back.
INSERT INTO resident_merge_measurement (
    merge_id, measured_at, identity_time, device_id, user_slot, sign, stays
)
SELECT %(merge_id)s, m.measured_at, m.identity_time, m.device_id, m.user_slot, m.sign, true
FROM measurement m
WHERE m.resident_id = %(kept)s
    AND EXISTS (
        SELECT
        FROM link
        WHERE link.link_id = ANY(%(links)s)
            AND link.device_id = m.device_id
            AND link.user_slot = m.user_slot
            AND link.during @> m.measured_at
    )

-- name: move_measurements
-- Move readings, keep their places, and tell those who follow either entry. Times stay as they were.
WITH moved AS (
    UPDATE measurement
    SET resident_id = %(kept)s, stored_at = date_trunc('milliseconds', now())
    WHERE resident_id = %(gone)s
    RETURNING measured_at, identity_time, device_id, user_slot, sign
),
noted AS (
    INSERT INTO resident_merge_measurement (
        merge_id, measured_at, identity_time, device_id, user_slot, sign
    )
    SELECT %(merge_id)s, measured_at, identity_time, device_id, user_slot, sign FROM moved
),
told AS (
    INSERT INTO change (stored_at, resident_id, sign, oldest_ms, newest_ms)
    SELECT
        date_trunc('milliseconds', now()), array_agg(whose), array_agg(sign), array_agg(oldest_ms),
        array_agg(newest_ms)
    FROM (
        SELECT
            sign, (extract(epoch FROM min(measured_at)) * 1000)::bigint AS oldest_ms,
            (extract(epoch FROM max(measured_at)) * 1000)::bigint AS newest_ms
        FROM moved
        GROUP BY sign
    ) AS of_sign
    CROSS JOIN unnest(ARRAY[%(kept)s, %(gone)s]::integer[]) AS whose
    HAVING count(*) > 0
)
SELECT count(*) FROM moved

-- name: merge_in_force
-- The merge of a double entry, and whether what it was merged into has itself been merged since.
SELECT m.merge_id, m.kept_id, m.gone_id, m.merged_at, kept.public_id, kept.merged_into IS NOT NULL
FROM resident_merge m
JOIN resident gone ON gone.resident_id = m.gone_id
JOIN resident kept ON kept.resident_id = m.kept_id
WHERE gone.public_id = %(resident)s AND m.undone_at IS NULL
FOR UPDATE OF m

-- name: supersede_copies
-- The copied links that are still in force; those that were changed since stay as they were changed.
UPDATE link
SET superseded_at = now()
FROM resident_merge_link moved
WHERE moved.merge_id = %(merge_id)s
    AND link.link_id = moved.new_link_id
    AND link.superseded_at IS NULL
RETURNING moved.old_link_id

-- name: restore_links
-- The links of before, in force again; a merge before this one made some of them, and finds them by their numbers.
WITH old AS (
    SELECT link_id, device_id, user_slot, resident_id, during
    FROM link
    WHERE link_id = ANY(%(links)s)
),
new AS (
    INSERT INTO link (device_id, user_slot, resident_id, during)
    SELECT device_id, user_slot, resident_id, during FROM old
    RETURNING link_id, device_id, user_slot, during
)
UPDATE resident_merge_link AS moved
SET new_link_id = new.link_id
FROM old
JOIN new USING (device_id, user_slot, during)
WHERE moved.new_link_id = old.link_id

-- name: move_back
-- Readings that the merge moved, unless they were re-attributed since; and those that came since
-- by the links that the merge moved.
WITH returned AS (
    UPDATE measurement m
    SET resident_id = %(gone)s, stored_at = date_trunc('milliseconds', now())
    WHERE m.resident_id = %(kept)s
        AND (
            EXISTS (
                SELECT
                FROM resident_merge_measurement p
                WHERE p.merge_id = %(merge_id)s
                    AND NOT p.stays
                    AND p.device_id = m.device_id
                    AND p.user_slot = m.user_slot
                    AND p.sign = m.sign
                    AND p.identity_time = m.identity_time
                    AND p.measured_at = m.measured_at
            )
            OR EXISTS (
                SELECT
                FROM resident_merge_link moved
                JOIN link ON link.link_id = moved.new_link_id
                WHERE moved.merge_id = %(merge_id)s
                    AND link.device_id = m.device_id
                    AND link.user_slot = m.user_slot
                    AND link.during @> m.measured_at
            )
            AND NOT EXISTS (
                SELECT
                FROM resident_merge_measurement p
                WHERE p.merge_id = %(merge_id)s
                    AND p.stays
                    AND p.device_id = m.device_id
                    AND p.user_slot = m.user_slot
                    AND p.sign = m.sign
                    AND p.identity_time = m.identity_time
                    AND p.measured_at = m.measured_at
            )
        )
    RETURNING measured_at, sign
),
told AS (
    INSERT INTO change (stored_at, resident_id, sign, oldest_ms, newest_ms)
    SELECT
        date_trunc('milliseconds', now()), array_agg(whose), array_agg(sign), array_agg(oldest_ms),
        array_agg(newest_ms)
    FROM (
        SELECT
            sign, (extract(epoch FROM min(measured_at)) * 1000)::bigint AS oldest_ms,
            (extract(epoch FROM max(measured_at)) * 1000)::bigint AS newest_ms
        FROM returned
        GROUP BY sign
    ) AS of_sign
    CROSS JOIN unnest(ARRAY[%(kept)s, %(gone)s]::integer[]) AS whose
    HAVING count(*) > 0
)
SELECT count(*) FROM returned

-- name: close_merge
-- The merge is undone; the places it kept are needed no more.
UPDATE resident_merge SET undone_at = now() WHERE merge_id = %(merge_id)s

-- name: forget_places
-- See close_merge.
DELETE FROM resident_merge_measurement WHERE merge_id = %(merge_id)s

-- name: carry_objections
-- What one entry does not consent to holds for the other too, which gets its readings: all of it,
-- or what was said there since.
INSERT INTO objection (resident_id, sign, account_id, recorded_at, merge_id)
SELECT %(to)s, said.sign, said.account_id, said.recorded_at, %(merge_id)s
FROM objection AS said
WHERE said.resident_id = %(from)s
    AND said.withdrawn_at IS NULL
    AND said.merge_id IS DISTINCT FROM %(merge_id)s
    AND said.recorded_at >= %(since)s
    AND NOT EXISTS (
        SELECT
        FROM objection AS there
        WHERE there.resident_id = %(to)s
            AND there.withdrawn_at IS NULL
            AND there.sign IS NOT DISTINCT FROM said.sign
            AND there.account_id IS NOT DISTINCT FROM said.account_id
    )

-- name: end_carried_objections
-- What came with the readings that go back.
UPDATE objection SET withdrawn_at = now()
WHERE resident_id = %(kept)s AND merge_id = %(merge_id)s AND withdrawn_at IS NULL
