-- The doors of FHIR to the measurements (schema access), derived anew at each migration like those of
-- access.sql and bound to the same: what access.begin noted for the transaction. {period}: the length
-- in seconds of what a row covers, by its sign.
--
-- A part is one Observation that a measurement of a sign can make. A row has it where some of its
-- quantities are not "not sent" or one of its status bits is set (api.fhir.parts).

-- name: drop
-- The view and what depends on it.
DROP VIEW IF EXISTS access.observation CASCADE

-- name: view
-- The measurements that this transaction may read, with all that an Observation refers to.
CREATE VIEW access.observation WITH (security_barrier) AS
SELECT
    m.*, device.address AS device, hub.name AS hub, resident.public_id AS resident,
    (extract(epoch FROM m.identity_time) * 1000000)::bigint AS identity_us
FROM public.measurement AS m
JOIN public.resident USING (resident_id)
LEFT JOIN public.device USING (device_id)
LEFT JOIN public.batch USING (batch_id)
LEFT JOIN public.hub ON hub.hub_id = batch.hub_id
WHERE {may_be_read}

-- name: page
-- One resident's rows from a place on, that row too (it may have parts that were not shown yet), in
-- the order of the unique key. Each sign is read by itself along the index measurement_of_resident,
-- chunk after chunk, and stops after a page; then the pages are merged.
CREATE FUNCTION access.observations_{direction}(
    _resident integer, _signs smallint[], _sent_masks bigint[], _not_sent bigint[],
    _status_bits integer[], _retracted integer[], _preliminary integer[], _statuses text[],
    _devices text[], _from_at timestamptz, _to_at timestamptz, _of_stored boolean[],
    _starts_from timestamptz[], _starts_before timestamptz[], _ends_from timestamptz[],
    _ends_before timestamptz[], _either boolean[], _measured_at timestamptz, _device_id integer,
    _user_slot smallint, _sign smallint, _identity_us bigint, _limit integer
) RETURNS SETOF access.observation
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _device_ids constant integer[] := access.device_ids(_devices);
BEGIN
    IF _resident <> ALL (access.readable()) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT found.*, device.address, hub.name, resident.public_id, place.us
    FROM (
        SELECT one_sign.*
        FROM unnest(_signs, _sent_masks, _not_sent, _status_bits, _retracted, _preliminary)
            AS wanted (code, sent_mask, not_sent, status_bits, retracted, preliminary)
        CROSS JOIN LATERAL (
            SELECT measurement.*
            FROM measurement
            CROSS JOIN LATERAL (
                SELECT (extract(epoch FROM identity_time) * 1000000)::bigint
            ) AS identity (us)
            WHERE resident_id = _resident
                AND measurement.sign = wanted.code
                AND measurement.measured_at >= _from_at
                AND measurement.measured_at < _to_at
                AND measurement.measured_at {beyond}= _measured_at
                AND (
                    measurement.measured_at, measurement.device_id, measurement.user_slot,
                    measurement.sign, identity.us
                ) {beyond}= (_measured_at, _device_id, _user_slot, _sign, _identity_us)
                AND {matches}
            ORDER BY measurement.measured_at {order}
            FETCH FIRST (_limit) ROWS WITH TIES
        ) AS one_sign
        WHERE (_resident::bigint << 16 | wanted.code) <> ALL (access.withheld())
        ORDER BY
            one_sign.measured_at {order}, one_sign.device_id {order}, one_sign.user_slot {order},
            one_sign.sign {order}, one_sign.identity_time {order}
        LIMIT _limit
    ) AS found
    JOIN resident USING (resident_id)
    LEFT JOIN device ON device.device_id = found.device_id
    LEFT JOIN batch ON batch.batch_id = found.batch_id
    LEFT JOIN hub ON hub.hub_id = batch.hub_id
    CROSS JOIN LATERAL (
        SELECT (extract(epoch FROM found.identity_time) * 1000000)::bigint
    ) AS place (us)
    ORDER BY
        found.measured_at {order}, found.device_id {order}, found.user_slot {order},
        found.sign {order}, found.identity_time {order};
END
$$

-- name: last
-- Of each part (one entry of the arrays each) the latest rows by when they were measured, at most so
-- many. One plan for all parts: to begin one anew for each takes longer than to run it. A part that
-- was never sent is found out in the index alone, else each of the resident's rows would be read.
CREATE OR REPLACE FUNCTION access.last_observations(
    _resident integer, _signs smallint[], _sent_masks bigint[], _not_sent bigint[],
    _status_bits integer[], _retracted integer[], _preliminary integer[], _statuses text[],
    _devices text[], _from_at timestamptz, _to_at timestamptz, _of_stored boolean[],
    _starts_from timestamptz[], _starts_before timestamptz[], _ends_from timestamptz[],
    _ends_before timestamptz[], _either boolean[], _limit integer
) RETURNS TABLE (part bigint, found access.observation)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    _device_ids constant integer[] := access.device_ids(_devices);
BEGIN
    IF _resident <> ALL (access.readable()) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT
        ranked.part,
        ROW(
            (ranked.it).*, device.address, hub.name, resident.public_id,
            (extract(epoch FROM (ranked.it).identity_time) * 1000000)::bigint
        )::access.observation
    FROM (
        SELECT
            one_part.it, wanted.part,
            row_number() OVER (
                PARTITION BY wanted.part
                ORDER BY
                    (one_part.it).measured_at DESC, (one_part.it).device_id DESC,
                    (one_part.it).user_slot DESC, (one_part.it).identity_time DESC
            ) AS rank
        FROM unnest(_signs, _sent_masks, _not_sent, _status_bits, _retracted, _preliminary)
            WITH ORDINALITY
            AS wanted (code, sent_mask, not_sent, status_bits, retracted, preliminary, part)
        CROSS JOIN LATERAL (
            SELECT
            FROM measurement
            WHERE resident_id = _resident
                AND measurement.sign = wanted.code
                AND measurement.measured_at >= _from_at
                AND measurement.measured_at < _to_at
                AND {is_sent}
            ORDER BY measurement.measured_at DESC
            LIMIT 1
        ) AS ever
        CROSS JOIN LATERAL (
            SELECT measurement AS it
            FROM measurement
            WHERE resident_id = _resident
                AND measurement.sign = wanted.code
                AND measurement.measured_at >= _from_at
                AND measurement.measured_at < _to_at
                AND {matches}
            ORDER BY measurement.measured_at DESC
            FETCH FIRST (_limit) ROWS WITH TIES
        ) AS one_part
        WHERE (_resident::bigint << 16 | wanted.code) <> ALL (access.withheld())
    ) AS ranked
    JOIN resident ON resident.resident_id = _resident
    LEFT JOIN device ON device.device_id = (ranked.it).device_id
    LEFT JOIN batch ON batch.batch_id = (ranked.it).batch_id
    LEFT JOIN hub ON hub.hub_id = batch.hub_id
    WHERE ranked.rank <= _limit
    ORDER BY ranked.part, ranked.rank;
END
$$

-- name: count
-- How many Observations a search finds; the given arrays have one entry a part.
CREATE OR REPLACE FUNCTION access.count_observations(
    _resident integer, _signs smallint[], _sent_masks bigint[], _not_sent bigint[],
    _status_bits integer[], _retracted integer[], _preliminary integer[], _statuses text[],
    _devices text[], _from_at timestamptz, _to_at timestamptz, _of_stored boolean[],
    _starts_from timestamptz[], _starts_before timestamptz[], _ends_from timestamptz[],
    _ends_before timestamptz[], _either boolean[]
) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    _device_ids constant integer[] := access.device_ids(_devices);
BEGIN
    IF _resident <> ALL (access.readable()) THEN
        RETURN 0;
    END IF;
    RETURN (
        SELECT count(*)
        FROM unnest(_signs, _sent_masks, _not_sent, _status_bits, _retracted, _preliminary)
            AS wanted (code, sent_mask, not_sent, status_bits, retracted, preliminary)
        JOIN measurement ON measurement.sign = wanted.code
        WHERE resident_id = _resident
            AND measurement.sign = ANY (_signs)
            AND measurement.measured_at >= _from_at
            AND measurement.measured_at < _to_at
            AND (_resident::bigint << 16 | wanted.code) <> ALL (access.withheld())
            AND {matches}
    );
END
$$

-- name: is_sent
-- Whether a row has the part at all.
(
    ((measurement.digits >> 40) & wanted.sent_mask) <> wanted.not_sent
    OR (measurement.status & wanted.status_bits) <> 0
)

-- name: matches
-- What all of them ask of a row; made part of the functions above. No subquery stands here: each would
-- be set up again for each chunk.
{is_sent}
AND (_device_ids IS NULL OR measurement.device_id = ANY (_device_ids))
AND (
    _statuses IS NULL
    OR CASE
        WHEN (measurement.status & wanted.retracted) <> 0 THEN 'entered-in-error'
        WHEN (measurement.status & wanted.preliminary) <> 0 THEN 'preliminary'
        ELSE 'final'
    END = ANY (_statuses)
)
AND (
    cardinality(_either) = 0
    OR access.is_within(
        measurement.measured_at, {period}, measurement.time_quality = 4, measurement.stored_at,
        _of_stored, _starts_from, _starts_before, _ends_from, _ends_before, _either
    )
)

-- name: is_within
-- Whether a row's time satisfies all clauses of a search: each is of the time it was stored, or of
-- [starts, ends], the time that the measurement covers, which ends where it was measured if only its
-- reception is known. A clause holds where all of its bounds do, or where one does ("either").
CREATE OR REPLACE FUNCTION access.is_within(
    _measured_at timestamptz, _period_s double precision, _is_reception boolean,
    _stored_at timestamptz, _of_stored boolean[], _starts_from timestamptz[],
    _starts_before timestamptz[], _ends_from timestamptz[], _ends_before timestamptz[],
    _either boolean[]
) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    covered constant interval := make_interval(secs => coalesce(_period_s, 0));
    starts timestamptz;
    ends timestamptz;
    holds boolean;
BEGIN
    FOR i IN 1..cardinality(_either) LOOP
        IF _of_stored[i] THEN
            starts := _stored_at;
            ends := _stored_at;
        ELSE
            starts := CASE WHEN _is_reception THEN _measured_at - covered ELSE _measured_at END;
            ends := starts + covered;
        END IF;
        IF _either[i] THEN
            holds := coalesce(starts >= _starts_from[i], false)
                OR coalesce(starts < _starts_before[i], false)
                OR coalesce(ends >= _ends_from[i], false)
                OR coalesce(ends < _ends_before[i], false);
        ELSE
            holds := coalesce(starts >= _starts_from[i], true)
                AND coalesce(starts < _starts_before[i], true)
                AND coalesce(ends >= _ends_from[i], true)
                AND coalesce(ends < _ends_before[i], true);
        END IF;
        IF NOT holds THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$

-- name: device_ids
-- The keys of some addresses; null: any device.
CREATE OR REPLACE FUNCTION access.device_ids(_addresses text[]) RETURNS integer[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE
        WHEN _addresses IS NOT NULL
            THEN ARRAY(SELECT device_id FROM device WHERE address = ANY (_addresses))
    END
$$

-- name: owner
-- Whose a row of a unique key is: what access.begin must be told before the row can be read.
CREATE OR REPLACE FUNCTION access.resident_of(
    _measured_at timestamptz, _device_id integer, _user_slot smallint, _sign smallint,
    _identity_us bigint
) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT resident.public_id
    FROM measurement
    JOIN resident USING (resident_id)
    WHERE device_id = _device_id
        AND user_slot = _user_slot
        AND sign = _sign
        AND measured_at = _measured_at
        AND (extract(epoch FROM identity_time) * 1000000)::bigint = _identity_us
$$

-- name: audited
-- Who did what to the data of those whose audit this transaction may read.
CREATE OR REPLACE VIEW access.audited WITH (security_barrier) AS
SELECT
    audit.audit_id, audit.at, audit.actor, audit.action, audit.reason, audit.origin, audit.detail,
    resident.public_id AS resident
FROM public.audit
JOIN public.resident USING (resident_id)
WHERE audit.resident_id = ANY ((SELECT access.recorded())::integer[])
    AND (SELECT access.sees('audit'))

-- name: grant
-- What the API's role may do with them.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA access FROM PUBLIC;
GRANT SELECT ON access.observation, access.audited TO hearth_api;
GRANT EXECUTE ON FUNCTION
    access.observations_ascending, access.observations_descending, access.last_observations,
    access.count_observations, access.resident_of
    TO hearth_api
