-- Attribution of the readings of shared slots, from the store and back into it (ingest.attribution).

-- name: due
-- Slots that are due, those that have waited longest first.
SELECT device_id, user_slot
FROM attribution_due
GROUP BY device_id, user_slot
ORDER BY min(noted_at)
LIMIT %(limit)s

-- name: shared_slots
-- All slots that somebody shares, or shared; of one device where it is given.
SELECT DISTINCT device_id, user_slot
FROM shared_link
JOIN device USING (device_id)
WHERE superseded_at IS NULL AND (%(device)s::text IS NULL OR device.address = %(device)s)
ORDER BY device_id, user_slot

-- name: take_slot
-- One settles a slot at a time; another that comes leaves it to them.
SELECT pg_try_advisory_xact_lock(18503, hashint8((%(device_id)s::bigint << 8) | %(user_slot)s))

-- name: not_due
-- What has made the slot due until now is done with this transaction.
DELETE FROM attribution_due WHERE device_id = %(device_id)s AND user_slot = %(user_slot)s

-- name: members
-- Who shares the slot: resident, from, to (milliseconds), what is usual for them.
SELECT
    resident_id,
    coalesce(ceil(extract(epoch FROM nullif(lower(during), '-infinity')) * 1000)::bigint, -(1::bigint << 62)),
    coalesce(ceil(extract(epoch FROM nullif(upper(during), 'infinity')) * 1000)::bigint, 1::bigint << 62),
    usual
FROM shared_link
WHERE device_id = %(device_id)s AND user_slot = %(user_slot)s AND superseded_at IS NULL
ORDER BY resident_id, lower(during) NULLS FIRST

-- name: links
-- Whose the slot is by links: resident, from, to (milliseconds), whether a correction said so of just
-- this time (what it left of other links says nothing new).
SELECT
    resident_id,
    coalesce(ceil(extract(epoch FROM nullif(lower(during), '-infinity')) * 1000)::bigint, -(1::bigint << 62)),
    coalesce(ceil(extract(epoch FROM nullif(upper(during), 'infinity')) * 1000)::bigint, 1::bigint << 62),
    EXISTS (
        SELECT
        FROM correction AS c
        WHERE c.correction_id = link.made_by
            AND c.resident_id = link.resident_id
            AND c.during = link.during
    )
FROM link
WHERE device_id = %(device_id)s AND user_slot = %(user_slot)s AND superseded_at IS NULL

-- name: newest
-- The newest reading of each sign that the slot has.
SELECT sign, max(measured_at)
FROM measurement
WHERE device_id = %(device_id)s AND user_slot = %(user_slot)s
GROUP BY sign

-- name: of_slot
-- The slot's newest readings of a sign, and those that somebody has decided about, however old.
SELECT
    (extract(epoch FROM measured_at) * 1000)::bigint,
    (extract(epoch FROM identity_time) * 1000)::bigint,
    (extract(epoch FROM stored_at) * 1000000)::bigint,
    resident_id, flags, coalesce(utc_offset, 0), coalesce({value}, 'NaN'), received_after_s
FROM (
    SELECT *
    FROM measurement
    WHERE device_id = %(device_id)s
        AND user_slot = %(user_slot)s
        AND sign = %(sign)s
        AND (measured_at >= %(from_at)s OR flags & %(claimed)s <> 0)
    ORDER BY measured_at DESC, identity_time DESC
    LIMIT %(limit)s
) AS newest
ORDER BY measured_at, identity_time

-- name: of_device
-- The device's newest readings of all slots: when each was measured, and how long after that its home
-- had it (milliseconds).
SELECT measured_ms, after_ms
FROM (
    SELECT
        (extract(epoch FROM measured_at) * 1000)::bigint AS measured_ms,
        (received_after_s * 1000)::bigint AS after_ms
    FROM measurement
    WHERE device_id = %(device_id)s AND measured_at >= %(from_at)s
    ORDER BY measured_at DESC
    LIMIT %(limit)s
) AS newest
ORDER BY measured_ms

-- name: heard_at_home
-- The hours in which the home's hubs heard other devices as they measured (milliseconds).
SELECT DISTINCT (extract(epoch FROM date_trunc('hour', m.measured_at)) * 1000)::bigint
FROM device AS this
JOIN device AS other ON other.home_id = this.home_id AND other.device_id <> this.device_id
CROSS JOIN LATERAL (
    SELECT measured_at
    FROM measurement
    WHERE device_id = other.device_id
        AND measured_at BETWEEN %(from_at)s AND %(to_at)s
        AND received_after_s < %(late_s)s
    OFFSET 0 -- a look-up by index for each
) AS m
WHERE this.device_id = %(device_id)s
ORDER BY 1

-- name: of_members
-- The members' readings of the sign from elsewhere, that are theirs by a link or a person's word.
SELECT
    (extract(epoch FROM measured_at) * 1000)::bigint, resident_id, coalesce(utc_offset, 0), {value}
FROM unnest(%(members)s::integer[]) AS member (resident_id)
CROSS JOIN LATERAL (
    SELECT measured_at, utc_offset, {value}, identity_time
    FROM measurement
    WHERE measurement.resident_id = member.resident_id
        AND sign = %(sign)s
        AND measured_at >= %(from_at)s
        AND NOT (device_id = %(device_id)s AND user_slot = %(user_slot)s)
        AND flags & %(excluded)s = 0
        AND {value} IS NOT NULL
    ORDER BY measured_at DESC, identity_time DESC
    LIMIT %(limit)s
) AS theirs
ORDER BY measured_at, resident_id, identity_time, {value}

-- name: add_correction
-- What settling a slot changed.
INSERT INTO correction (kind, actor, device_id, user_slot, readings)
VALUES ('settle', %(actor)s, %(device_id)s, %(user_slot)s, %(readings)s)
RETURNING correction_id, (extract(epoch FROM date_trunc('milliseconds', now())) * 1000)::bigint

-- name: remember
-- Keep whose the readings were thought to be.
INSERT INTO attribution (
    measured_at, identity_time, believed_from, believed_until, correction_id, device_id,
    resident_id, next_resident_id, user_slot, sign, flags
)
SELECT
    to_timestamp(given.measured_ms / 1000.0),
    timestamp '1970-01-01' + given.identity_ms * interval '1 ms',
    timestamptz '1970-01-01Z' + given.stored_us * interval '1 us',
    date_trunc('milliseconds', now()), %(correction_id)s, %(device_id)s, given.old_owner,
    given.new_owner, %(user_slot)s, %(sign)s, given.old_flags
FROM unnest(
    %(measured_ms)s::bigint[], %(identity_ms)s::bigint[], %(stored_us)s::bigint[],
    %(old_owner)s::integer[], %(new_owner)s::integer[], %(old_flags)s::smallint[]
) AS given (measured_ms, identity_ms, stored_us, old_owner, new_owner, old_flags)

-- name: attribute
-- Give the readings to whom they belong. Times are bounded once more, for the chunks.
UPDATE measurement AS m
SET
    resident_id = given.new_owner, flags = given.new_flags,
    stored_at = date_trunc('milliseconds', now())
FROM unnest(
    %(measured_ms)s::bigint[], %(identity_ms)s::bigint[], %(new_owner)s::integer[],
    %(new_flags)s::smallint[]
) AS given (measured_ms, identity_ms, new_owner, new_flags)
WHERE m.device_id = %(device_id)s
    AND m.user_slot = %(user_slot)s
    AND m.sign = %(sign)s
    AND m.measured_at BETWEEN %(oldest_at)s AND %(newest_at)s
    AND m.measured_at = timestamptz '1970-01-01Z' + given.measured_ms * interval '1 ms'
    AND m.identity_time = timestamp '1970-01-01' + given.identity_ms * interval '1 ms'

-- name: forget_posteriors
-- Of the slot's readings of a sign in a span of time; new ones come in their place.
DELETE FROM posterior
WHERE device_id = %(device_id)s
    AND user_slot = %(user_slot)s
    AND sign = %(sign)s
    AND measured_at BETWEEN %(oldest_at)s AND %(newest_at)s

-- name: keep_posteriors
-- How likely each candidate was, of readings that stay with nobody.
INSERT INTO posterior (
    measured_at, identity_time, device_id, user_slot, sign, resident_id, probability
)
SELECT
    timestamptz '1970-01-01Z' + given.measured_ms * interval '1 ms',
    timestamp '1970-01-01' + given.identity_ms * interval '1 ms',
    %(device_id)s, %(user_slot)s, %(sign)s, given.resident_id, given.probability
FROM unnest(
    %(measured_ms)s::bigint[], %(identity_ms)s::bigint[], %(resident_id)s::integer[],
    %(probability)s::real[]
) AS given (measured_ms, identity_ms, resident_id, probability)

-- name: make_due
-- What is remembered of these residents, and what is unusual for them, is to be looked at anew.
WITH noted AS (
    INSERT INTO registry_change (kind, key)
    SELECT DISTINCT 4, resident_id FROM unnest(%(residents)s::integer[]) AS given (resident_id)
), due AS (
    INSERT INTO baseline_due (resident_id, sign, from_at, to_at)
    SELECT
        given.resident_id, %(sign)s, to_timestamp(given.oldest_ms / 1000.0),
        to_timestamp(given.newest_ms / 1000.0)
    FROM unnest(%(residents)s::integer[], %(oldest_ms)s::bigint[], %(newest_ms)s::bigint[])
        AS given (resident_id, oldest_ms, newest_ms)
)
SELECT pg_notify('hearth_registry', '')
