-- What those who follow live are given (api.live_reads).

-- name: watched
-- Whom the reader of this transaction may see: whose changes to look out for.
SELECT resident_id, public_id
FROM resident
WHERE %(residents)s::uuid[] IS NULL OR public_id = ANY(%(residents)s)
LIMIT %(limit)s

-- name: begin_each
-- Decide and audit for many readers: pairs of a reader and whom the news is of.
SELECT reader, resident, withheld
FROM access.begin_each(
    %(readers)s, %(sessions)s, %(origins)s, 'measurement.live', %(whom)s, %(reader_of)s
)

-- name: news
-- The measurements that the given changes stored or re-attributed, of whom this transaction may read.
SELECT
    m.measured_at, m.device_id, m.user_slot, m.sign,
    (extract(epoch FROM m.identity_time) * 1000000)::bigint AS identity_us, m.stored_at,
    m.received_after_s, m.utc_offset, m.time_quality, m.unit_set, m.digits, m.status, m.flags,
    {values}, m.device, changed.number, m.resident_id
FROM unnest(
    %(number)s::integer[], %(resident)s::integer[], %(sign)s::smallint[],
    %(oldest_at)s::timestamptz[], %(newest_at)s::timestamptz[], %(stored_at)s::timestamptz[]
) AS changed (number, resident_id, sign, oldest_at, newest_at, stored_at)
CROSS JOIN LATERAL (
    SELECT m.*
    FROM access.measurement AS m
    WHERE m.resident_id = changed.resident_id
        AND m.sign = changed.sign
        AND m.measured_at >= changed.oldest_at
        AND m.measured_at <= changed.newest_at
        AND m.stored_at = changed.stored_at
) AS m
ORDER BY changed.number, m.measured_at
LIMIT %(limit)s

-- name: feed
-- What is behind a place, none of it with anything earlier still to come: changes of measurements, and
-- what happened to alerts (with an event_id). One statement, so that both are of one moment.
(
    SELECT
        transaction_id::text::bigint AS transaction, change_id, stored_at, resident_id, sign,
        oldest_ms, newest_ms, NULL::bigint AS event_id
    FROM change
    WHERE (transaction_id, change_id) > (%(transaction)s::text::xid8, %(change)s)
        AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY change.transaction_id, change.change_id
    LIMIT %(limit)s
)
UNION ALL
(
    SELECT
        transaction_id::text::bigint, change_id, NULL, ARRAY[resident_id], NULL, NULL, NULL, event_id
    FROM access.alert_news AS news
    WHERE (transaction_id, change_id) > (%(transaction)s::text::xid8, %(change)s)
        AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY news.transaction_id, news.change_id
    LIMIT %(limit)s
)
ORDER BY 1, 2
LIMIT %(limit)s

-- name: end
-- The place behind all that has settled.
SELECT transaction_id::text::bigint, change_id
FROM (
    (
        SELECT transaction_id, change_id FROM change
        WHERE transaction_id < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY transaction_id DESC, change_id DESC LIMIT 1
    )
    UNION ALL
    (
        SELECT transaction_id, change_id FROM access.alert_news
        WHERE transaction_id < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY transaction_id DESC, change_id DESC LIMIT 1
    )
) AS last
ORDER BY transaction_id DESC, change_id DESC
LIMIT 1

-- name: begin_each_alert
-- As begin_each, of alerts.
SELECT reader, resident, withheld
FROM access.begin_each(
    %(readers)s, %(sessions)s, %(origins)s, 'alert.live', %(whom)s, %(reader_of)s
)

-- name: alerts
-- The alerts to which something happened, of whom this transaction may read, and what it was.
SELECT
    event.event_id, event.what, event.at, alert.resident_id, alert.sign, alert.public_id AS id,
    alert.resident, alert.rule, alert.title, alert.source, alert.version, alert.stage, alert.state,
    alert.is_note, alert.started_at, alert.last_at, alert.cleared_at, alert.alarm_at,
    alert.raised_at, alert.changed_at, alert.readings
FROM access.alert_event AS event
JOIN access.alert AS alert USING (alert_id)
WHERE event.event_id = ANY(%(events)s)

-- name: is_recent_alert
-- Whether a place is that of an alert so young that no change behind it can have been forgotten.
SELECT EXISTS (
    SELECT FROM access.alert_news
    WHERE (transaction_id, change_id) = (%(transaction)s::text::xid8, %(change)s)
        AND at > now() - %(days)s * interval '1 day'
)
