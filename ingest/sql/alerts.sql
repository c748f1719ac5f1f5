-- Alerts (ingest.alerts).

-- name: lock_rules
-- Be the only one that enters rules, until the transaction ends.
LOCK TABLE alert_rule IN SHARE ROW EXCLUSIVE MODE

-- name: was_ever
-- Whether a rule ever stood there.
SELECT 1 FROM alert_rule WHERE name = %(name)s LIMIT 1

-- name: rules
-- The rules in force.
SELECT rule_id, name, definition, enabled, changed_by, changed_at
FROM alert_rule
WHERE superseded_at IS NULL
ORDER BY name

-- name: supersede
-- What held until now.
UPDATE alert_rule SET superseded_at = now() WHERE name = %(name)s AND superseded_at IS NULL

-- name: enter
-- What holds from now on.
INSERT INTO alert_rule (name, definition, enabled, changed_by)
VALUES (%(name)s, %(definition)s, %(enabled)s, %(by)s)

-- name: take_turn
-- Be the one that does this work, until the connection ends.
SELECT pg_try_advisory_lock(18509, %(work)s)

-- name: progress
-- Where the evaluation at a pace stands, if it is under the rules in force.
SELECT transaction_id, change_id
FROM alert_progress
WHERE pace = %(pace)s AND rules_entered = (SELECT count(*) FROM alert_rule)

-- name: rules_entered
-- How many rules were ever entered; a change of a rule enters one.
SELECT count(*) FROM alert_rule

-- name: put_progress
-- Move it on.
INSERT INTO alert_progress (pace, transaction_id, change_id, rules_entered)
VALUES (%(pace)s, %(transaction)s, %(change)s, %(rules_entered)s)
ON CONFLICT (pace) DO UPDATE
SET
    transaction_id = %(transaction)s, change_id = %(change)s, rules_entered = %(rules_entered)s,
    moved_at = now()

-- name: moved_ago_s
-- How long ago it was moved on, in seconds.
SELECT extract(epoch FROM now() - moved_at)::double precision FROM alert_progress WHERE pace = %(pace)s

-- name: all_residents
-- Whose readings of a sign there are, from a moment on: to begin anew. One look-up by index each.
SELECT r.resident_id
FROM resident r
WHERE EXISTS (
    SELECT FROM measurement m
    WHERE m.resident_id = r.resident_id AND m.sign = %(sign)s AND m.measured_at >= %(from_at)s
)

-- name: targets
-- Personal limits of residents for these quantities.
SELECT p.resident_id, given.quantity, (p.targets -> given.quantity ->> %(limit)s)::double precision
FROM resident_profile p
CROSS JOIN unnest(%(quantities)s::text[]) AS given (quantity)
WHERE p.resident_id = ANY(%(residents)s) AND p.targets <> '{}'
    AND p.targets -> given.quantity ? %(limit)s

-- name: marked
-- Which of the residents are marked for a rule, as themselves or as a double entry that leads to them.
WITH RECURSIVE marked AS (
    SELECT resident_id FROM alert_mark WHERE rule = %(rule)s
    UNION
    SELECT entry.merged_into
    FROM marked
    JOIN resident AS entry USING (resident_id)
    WHERE entry.merged_into IS NOT NULL
)
SELECT resident_id FROM marked WHERE resident_id = ANY(%(residents)s)

-- name: alerts_of
-- The alerts of a rule that residents have, whatever their state.
SELECT
    alert_id, resident_id, started_at, last_at, cleared_at, alarm_at, stage, readings, peak, is_note,
    state, device_id
FROM alert
WHERE rule = %(rule)s AND resident_id = ANY(%(residents)s)
ORDER BY resident_id, started_at
FOR UPDATE

-- name: add_alert
-- A new episode; none of a resident who was erased since the readings were read.
INSERT INTO alert (
    resident_id, rule, rule_id, started_at, last_at, cleared_at, alarm_at, stage, readings, peak,
    is_note, state, sign, device_id
)
SELECT
    resident_id, %(rule)s, %(rule_id)s, %(started_at)s::timestamptz, %(last_at)s::timestamptz,
    %(cleared_at)s::timestamptz, %(alarm_at)s::timestamptz, %(stage)s, %(readings)s,
    %(peak)s::double precision, %(is_note)s, %(state)s, %(sign)s::smallint, %(device_id)s::integer
FROM resident
WHERE resident_id = %(resident_id)s AND erased_at IS NULL
FOR SHARE
RETURNING alert_id

-- name: change_alert
-- An episode that has gone on, or that later readings have changed.
UPDATE alert
SET
    rule_id = %(rule_id)s, started_at = %(started_at)s, last_at = %(last_at)s,
    cleared_at = %(cleared_at)s, alarm_at = %(alarm_at)s, stage = %(stage)s,
    readings = %(readings)s, peak = %(peak)s, is_note = %(is_note)s, state = %(state)s,
    changed_at = now()
WHERE alert_id = %(alert_id)s

-- name: add_event
-- What happened to an alert.
INSERT INTO alert_event (alert_id, actor, what, note)
VALUES (%(alert_id)s, %(actor)s, %(what)s, %(note)s)
RETURNING event_id

-- name: tell_webhooks
-- One delivery of an event for each webhook in force; none of a sign that its resident withholds.
INSERT INTO webhook_delivery (webhook_id, event_id)
SELECT webhook_id, event_id
FROM webhook, alert_event
JOIN alert USING (alert_id)
WHERE ended_at IS NULL AND event_id = %(event_id)s AND NOT is_withheld(resident_id, sign)
ON CONFLICT DO NOTHING

-- name: silent
-- Residents marked for the rule no-readings, with their latest reading and the alert that is open. A mark of
-- a double entry holds for the entry that has its readings now.
WITH RECURSIVE marked AS (
    SELECT resident_id, days, marked_at FROM alert_mark WHERE rule = %(rule)s
    UNION
    SELECT entry.merged_into, marked.days, marked.marked_at
    FROM marked
    JOIN resident AS entry USING (resident_id)
    WHERE entry.merged_into IS NOT NULL
)
SELECT
    mark.resident_id, mark.days, mark.marked_at,
    (
        SELECT max(latest.measured_at)
        FROM unnest(%(signs)s::smallint[]) AS given (sign)
        CROSS JOIN LATERAL (
            SELECT m.measured_at FROM measurement m
            WHERE m.resident_id = mark.resident_id AND m.sign = given.sign
            ORDER BY m.measured_at DESC LIMIT 1
        ) AS latest
    ) AS last_at
FROM (
    SELECT DISTINCT ON (resident_id) marked.*
    FROM marked
    JOIN resident USING (resident_id)
    WHERE merged_into IS NULL AND resident_id > %(after)s
    ORDER BY resident_id, coalesce(days, %(days_default)s), marked_at
    LIMIT %(limit)s
) AS mark
ORDER BY mark.resident_id

-- name: troubled
-- Devices that are linked now and in trouble: what of theirs was kept apart lately for reasons of the device, and what
-- the hub that told last says of it.
WITH kept_apart AS (
    SELECT d.device_id, min(q.quarantined_at) AS since, count(*) AS entries
    FROM quarantine q
    JOIN device d ON ('x' || lpad(replace(d.address, ':', ''), 16, '0'))::bit(64)::bigint = q.device
    WHERE q.state = 'waiting' AND q.reason = ANY(%(reasons)s)
        AND q.quarantined_at > now() - %(days)s * interval '1 day'
    GROUP BY d.device_id
    HAVING count(*) >= %(entries)s
),
last_told AS (
    SELECT DISTINCT ON (device_id) device_id, trouble, since
    FROM hub_device
    JOIN hub USING (hub_id)
    WHERE device_id IN (SELECT device_id FROM hub_device WHERE trouble IS NOT NULL)
        AND hub.revoked_at IS NULL
    ORDER BY device_id, told_at DESC
),
trouble AS (
    SELECT device_id, since, entries FROM kept_apart
    UNION ALL
    SELECT device_id, since, 0 FROM last_told WHERE trouble IS NOT NULL
)
SELECT l.resident_id, device_id, min(t.since), sum(t.entries)::integer
FROM trouble t
JOIN (
    SELECT DISTINCT resident_id, device_id FROM link WHERE superseded_at IS NULL AND during @> now()
) AS l USING (device_id)
GROUP BY l.resident_id, device_id

-- name: open_of_rule
-- Who has an alert of a rule that is not over.
SELECT DISTINCT resident_id FROM alert
WHERE rule = %(rule)s AND state <> 'withdrawn' AND cleared_at IS NULL

-- name: silent_doubles
-- Double entries with an alert of a rule that is not over: they have no readings any more.
SELECT DISTINCT resident_id
FROM alert
JOIN resident USING (resident_id)
WHERE rule = %(rule)s AND state <> 'withdrawn' AND cleared_at IS NULL AND merged_into IS NOT NULL

-- name: list
-- Alerts, newest first. Filters that are null do not filter.
SELECT
    a.public_id, r.public_id AS resident, a.rule, d.address AS device, a.stage, a.state, a.is_note,
    a.started_at, a.last_at, a.cleared_at, a.readings, a.raised_at
FROM alert a
JOIN resident r USING (resident_id)
LEFT JOIN device d USING (device_id)
WHERE (%(states)s::text[] IS NULL OR a.state = ANY(%(states)s))
    AND (%(resident)s::uuid IS NULL OR r.public_id = %(resident)s)
    AND (%(rule)s::text IS NULL OR a.rule = %(rule)s)
ORDER BY a.started_at DESC, a.alert_id DESC
LIMIT %(limit)s

-- name: settle
-- Acknowledge or resolve an alert.
UPDATE alert SET state = %(state)s, changed_at = now()
WHERE public_id = %(alert)s AND state = ANY(%(from_states)s)
RETURNING alert_id, resident_id

-- name: mark
-- Mark a resident for a rule; marking again changes the days.
INSERT INTO alert_mark (resident_id, rule, days, marked_by)
SELECT resident_id, %(rule)s, %(days)s, %(by)s FROM resident WHERE public_id = %(resident)s
ON CONFLICT (resident_id, rule) DO UPDATE SET days = %(days)s, marked_by = %(by)s
RETURNING resident_id

-- name: unmark
-- Take a mark back.
DELETE FROM alert_mark
WHERE rule = %(rule)s
    AND resident_id = (SELECT resident_id FROM resident WHERE public_id = %(resident)s)
RETURNING resident_id

-- name: add_webhook
-- Tell this address from now on.
INSERT INTO webhook (url, created_by) VALUES (%(url)s, %(by)s)
ON CONFLICT (url) WHERE ended_at IS NULL DO UPDATE SET url = %(url)s
RETURNING webhook_id

-- name: end_webhook
-- Tell it no longer; what waits is given up.
WITH ended AS (
    UPDATE webhook SET ended_at = now() WHERE webhook_id = %(webhook)s AND ended_at IS NULL
    RETURNING webhook_id
)
UPDATE webhook_delivery SET state = 'dead', last_error = 'the webhook was ended'
FROM ended
WHERE webhook_delivery.webhook_id = ended.webhook_id AND state = 'waiting'

-- name: webhooks
-- Whom to tell, and how that goes.
SELECT
    w.webhook_id, w.url, w.created_at, w.ended_at,
    count(*) FILTER (WHERE d.state = 'waiting') AS waiting,
    count(*) FILTER (WHERE d.state = 'delivered') AS delivered,
    count(*) FILTER (WHERE d.state = 'dead') AS dead
FROM webhook w
LEFT JOIN webhook_delivery d USING (webhook_id)
GROUP BY w.webhook_id
ORDER BY w.webhook_id

-- name: due
-- Deliveries to try now, so many of each webhook: one whose receiver is down keeps no other waiting. What is
-- withheld meanwhile waits, in case that the resident consents again.
SELECT
    d.delivery_id, d.webhook_id, w.url, d.attempts, d.event_id, d.what, d.at, d.alert, d.resident,
    d.rule, d.stage, d.state, d.started_at, d.last_at, d.cleared_at
FROM webhook w
CROSS JOIN LATERAL (
    SELECT
        d.delivery_id, d.webhook_id, d.attempts, d.due_at, e.event_id, e.what, e.at,
        a.public_id AS alert, r.public_id AS resident, a.rule, a.stage, a.state, a.started_at,
        a.last_at, a.cleared_at
    FROM webhook_delivery d
    JOIN alert_event e USING (event_id)
    JOIN alert a USING (alert_id)
    JOIN resident r USING (resident_id)
    WHERE d.webhook_id = w.webhook_id AND d.state = 'waiting' AND d.due_at <= now()
        AND NOT is_withheld(a.resident_id, a.sign)
    ORDER BY d.due_at
    LIMIT %(limit)s
) AS d
WHERE w.ended_at IS NULL
ORDER BY d.webhook_id, d.due_at

-- name: delivered
-- It was taken.
UPDATE webhook_delivery
SET state = 'delivered', attempts = attempts + 1, last_error = NULL
WHERE delivery_id = %(delivery)s

-- name: put_off
-- It was not; try again, or give it up as a dead letter.
UPDATE webhook_delivery
SET
    attempts = attempts + 1, last_error = %(error)s,
    state = CASE WHEN attempts + 1 >= %(attempts_max)s THEN 'dead' ELSE 'waiting' END,
    due_at = now() + %(wait_s)s * interval '1 second'
WHERE delivery_id = %(delivery)s
RETURNING state

-- name: revive
-- Try dead letters of webhooks in force again.
UPDATE webhook_delivery SET state = 'waiting', attempts = 0, due_at = now()
WHERE state = 'dead'
    AND webhook_id IN (SELECT webhook_id FROM webhook WHERE ended_at IS NULL)
    AND (%(webhook)s::integer IS NULL OR webhook_id = %(webhook)s)

-- name: prune_deliveries
-- Forget deliveries that were made, and those that were given up and nobody tries again; so many at once. What
-- waits stays, whatever its age.
DELETE FROM webhook_delivery
WHERE delivery_id IN (
    SELECT d.delivery_id
    FROM webhook_delivery d
    JOIN webhook w USING (webhook_id)
    WHERE d.state <> 'waiting'
        AND d.due_at < now() - %(told_days)s * interval '1 day'
        AND (
            d.state = 'delivered'
            OR w.ended_at IS NOT NULL
            OR d.due_at < now() - %(untold_days)s * interval '1 day'
        )
    ORDER BY d.due_at
    LIMIT %(rows)s
)

-- name: last_month_ms
-- Now, and a month ago.
SELECT
    (extract(epoch FROM now()) * 1000)::bigint,
    (extract(epoch FROM now() - interval '31 days') * 1000)::bigint
