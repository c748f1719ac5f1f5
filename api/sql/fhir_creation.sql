-- Observations that services create (api.fhir.creation), through functions of the schema access.

-- name: begin
-- Decide and audit; one row for each device: which hub stands for the service there.
SELECT address, hub, admitted, why
FROM access.begin_creation(
    %(reader)s, %(session)s, %(origin)s, %(entries)s, %(addresses)s::text[], %(waiting_max)s
)

-- name: next_batch
-- The next place of a gateway's batches.
SELECT epoch, sequence FROM access.next_batch(%(hub)s)

-- name: hand_over
-- Leave a batch for ingest.
SELECT access.hand_over(
    %(hub)s, %(epoch)s::bigint, %(sequence)s::bigint, %(received_at)s, %(payload)s
)

-- name: remember
-- Remember by which identifier something was created.
SELECT access.remember_created(
    %(identifier)s, %(record)s, %(hub)s, %(epoch)s::bigint, %(sequence)s::bigint,
    %(device)s::bigint, %(user_slot)s::smallint, %(sign)s::smallint, %(identity_ms)s::bigint,
    %(measured_ms)s::bigint, %(part)s
)

-- name: created
-- What was created by these identifiers.
SELECT
    identifier, record, hub, epoch, sequence, device, user_slot, sign, identity_ms, measured_ms, part
FROM access.created(%(identifiers)s::bytea[])

-- name: linked
-- Whose a device's slot is at a time.
SELECT access.linked(%(address)s, %(user_slot)s::smallint, %(at)s)

-- name: handed_over
-- Whether a batch is committed, waiting or refused.
SELECT access.handed_over(%(hub)s, %(epoch)s::bigint, %(sequence)s::bigint)

-- name: kept_apart
-- Why a record of a batch is in quarantine.
SELECT reason, detail
FROM access.kept_apart(
    %(hub)s, %(epoch)s::bigint, %(sequence)s::bigint, %(device)s::bigint, %(record)s
)

-- name: places
-- The stored rows of a reading's identity.
SELECT measured_at, device_id, identity_us, resident, is_new
FROM access.places_of(
    %(device)s::bigint, %(user_slot)s::smallint, %(sign)s::smallint, %(identity_ms)s::bigint,
    %(measured_at)s, %(hub)s, %(epoch)s::bigint, %(sequence)s::bigint
)
