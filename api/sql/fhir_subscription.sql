-- Subscriptions and their events (api.fhir.subscriptions).

-- name: create
-- Enter a subscription that begins here, unless the account has so many already.
INSERT INTO fhir_subscription (
    subscription_id, account, principal, resident, resident_id, criteria, endpoint, sealed, content,
    transaction_id, change_id
)
SELECT
    %(subscription)s, %(account)s, %(principal)s, %(resident)s, %(resident_id)s, %(criteria)s, %(endpoint)s,
    %(sealed)s, %(content)s, %(transaction)s, %(change)s
WHERE (SELECT count(*) FROM fhir_subscription WHERE account = %(account)s) < %(most)s
RETURNING subscription_id

-- name: resident_key
-- The store's key of a resident whom this transaction may read.
SELECT resident_id FROM resident WHERE public_id = %(resident)s

-- name: read
-- One subscription of an account.
SELECT
    subscription_id, account, principal, resident, resident_id, criteria, endpoint, sealed,
    content, status, transaction_id, change_id, events, delivered, attempts, error
FROM fhir_subscription
WHERE subscription_id = %(subscription)s AND account = %(account)s

-- name: plain
-- Secrets that were entered before they were sealed.
SELECT subscription_id, secret FROM fhir_subscription WHERE secret IS NOT NULL

-- name: seal
-- A sealed secret takes the plain one's place.
UPDATE fhir_subscription SET sealed = %(sealed)s, secret = NULL
WHERE subscription_id = %(subscription)s AND secret IS NOT NULL

-- name: delete
-- Forget a subscription of an account and its events.
DELETE FROM fhir_subscription
WHERE subscription_id = %(subscription)s AND account = %(account)s
RETURNING subscription_id

-- name: following
-- All that are to be told, those that failed too: their events are kept to be caught up.
SELECT
    subscription_id, account, principal, resident, resident_id, criteria, endpoint, sealed,
    content, status, transaction_id, change_id, events, delivered, attempts, error
FROM fhir_subscription
WHERE status <> 'off'

-- name: advance
-- Note up to which change the events are known, and the event of it if there is one.
WITH moved AS (
    UPDATE fhir_subscription
    SET transaction_id = %(transaction)s, change_id = %(change)s,
        events = events + CASE WHEN cardinality(%(observations)s::text[]) > 0 THEN 1 ELSE 0 END
    WHERE subscription_id = %(subscription)s
        AND (transaction_id, change_id) = (%(before_transaction)s, %(before_change)s)
    RETURNING subscription_id, events
)
INSERT INTO fhir_event (subscription_id, number, observations)
SELECT subscription_id, events, %(observations)s::text[]
FROM moved
WHERE cardinality(%(observations)s::text[]) > 0

-- name: due
-- Take one subscription that has events to deliver; nobody else takes it for a while.
UPDATE fhir_subscription
SET next_at = now() + make_interval(secs => %(lease_s)s)
WHERE subscription_id = (
    SELECT subscription_id
    FROM fhir_subscription
    WHERE status = 'active' AND delivered < events AND next_at <= now()
    ORDER BY next_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING
    subscription_id, account, principal, resident, resident_id, criteria, endpoint, sealed,
    content, status, transaction_id, change_id, events, delivered, attempts, error

-- name: events
-- Events of a subscription by their numbers.
SELECT number, at, observations
FROM fhir_event
WHERE subscription_id = %(subscription)s AND number > %(after)s AND number <= %(until)s
ORDER BY number
LIMIT %(limit)s

-- name: delivered
-- The endpoint took the events up to here.
UPDATE fhir_subscription
SET delivered = %(number)s, attempts = 0, next_at = now(), error = NULL
WHERE subscription_id = %(subscription)s

-- name: failed
-- It did not; try again later.
UPDATE fhir_subscription
SET attempts = attempts + 1, next_at = now() + make_interval(secs => %(wait_s)s), error = %(error)s
WHERE subscription_id = %(subscription)s

-- name: give_up
-- It never did: what waits is dead, to be caught up with $events.
WITH dead AS (
    UPDATE fhir_event SET dead_at = now()
    WHERE subscription_id = %(subscription)s AND number > %(delivered)s AND dead_at IS NULL
)
UPDATE fhir_subscription SET status = 'error', error = %(error)s
WHERE subscription_id = %(subscription)s

-- name: forget_events
-- Forget events that were told, and those that were never taken and nobody caught up with; so many at once. What
-- an endpoint is still to be told stays.
DELETE FROM fhir_event
WHERE (subscription_id, number) IN (
    SELECT e.subscription_id, e.number
    FROM fhir_event AS e
    JOIN fhir_subscription AS s USING (subscription_id)
    WHERE e.at < now() - make_interval(days => %(told_days)s)
        AND (
            e.number <= s.delivered
            OR s.status <> 'active' AND e.at < now() - make_interval(days => %(untold_days)s)
        )
    ORDER BY e.at
    LIMIT %(rows)s
)
RETURNING number

-- name: turn_off
-- The one who asked may not be told any more.
UPDATE fhir_subscription SET status = 'off', error = %(error)s
WHERE subscription_id = %(subscription)s
