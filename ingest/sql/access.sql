-- The API's doors to the measurements (schema access), derived anew at each migration, so that they
-- have the columns of all signs. All are bound to what access.begin noted for the transaction.

-- name: drop
-- Views and what depends on them.
DROP VIEW IF EXISTS access.measurement CASCADE

-- name: view
-- The measurements that this transaction may read, with the device's address: for sums, series and
-- look-ups of a range. The barrier keeps every condition of the caller behind ours, an ORDER BY with
-- a LIMIT too: for pages in order there are the functions below.
CREATE VIEW access.measurement WITH (security_barrier) AS
SELECT m.*, d.address AS device
FROM public.measurement AS m
LEFT JOIN public.device AS d USING (device_id)
WHERE {may_be_read}

-- name: may_be_read
-- Whether this transaction may read a measurement (m); made part of the views, here and in fhir.sql.
(
    m.resident_id = ANY ((SELECT access.readable())::integer[])
    AND (m.resident_id::bigint << 16 | m.sign) <> ALL ((SELECT access.withheld())::bigint[])
)

-- name: page
-- One resident's measurements next to a place, in the order of the unique key, ascending or
-- descending; at most so many. Each sign is read by itself along the index measurement_of_resident,
-- chunk after chunk, and stops after a page, with those that were measured in the same instant as
-- its last; then the pages are merged.
CREATE FUNCTION access.page_{direction}(
    _resident integer, _signs smallint[], _from_at timestamptz, _to_at timestamptz,
    _measured_at timestamptz, _device_id integer, _user_slot smallint, _sign smallint,
    _identity_us bigint, _limit integer
) RETURNS SETOF access.measurement
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF _resident <> ALL (access.readable()) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT found.*, device.address
    FROM (
        SELECT one_sign.*
        FROM unnest(_signs) AS wanted (code)
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
                ) {beyond} (_measured_at, _device_id, _user_slot, _sign, _identity_us)
            ORDER BY measurement.measured_at {order}
            FETCH FIRST (_limit) ROWS WITH TIES
        ) AS one_sign
        WHERE (_resident::bigint << 16 | wanted.code) <> ALL (access.withheld())
        ORDER BY
            one_sign.measured_at {order}, one_sign.device_id {order}, one_sign.user_slot {order},
            one_sign.sign {order}, one_sign.identity_time {order}
        LIMIT _limit
    ) AS found
    LEFT JOIN device ON device.device_id = found.device_id
    ORDER BY
        found.measured_at {order}, found.device_id {order}, found.user_slot {order},
        found.sign {order}, found.identity_time {order};
END
$$

-- name: latest
-- Of each sign the latest measurement, by when it was measured, and the latest that is no artefact:
-- two rows, which are the same one where the latest is none.
CREATE FUNCTION access.latest(_resident integer, _signs smallint[], _artefact smallint)
RETURNS SETOF access.measurement
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF _resident <> ALL (access.readable()) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT found.*, device.address
    FROM (
        SELECT DISTINCT ON (wanted.code, kind.without_artefact) one_sign.*
        FROM unnest(_signs) AS wanted (code)
        CROSS JOIN (VALUES (false), (true)) AS kind (without_artefact)
        CROSS JOIN LATERAL (
            SELECT measurement.*
            FROM measurement
            WHERE resident_id = _resident
                AND measurement.sign = wanted.code
                AND NOT (kind.without_artefact AND measurement.flags & _artefact <> 0)
            ORDER BY measurement.measured_at DESC
            FETCH FIRST ROW WITH TIES
        ) AS one_sign
        WHERE (_resident::bigint << 16 | wanted.code) <> ALL (access.withheld())
        ORDER BY
            wanted.code, kind.without_artefact, one_sign.measured_at DESC, one_sign.device_id DESC,
            one_sign.user_slot DESC, one_sign.identity_time DESC
    ) AS found
    LEFT JOIN device ON device.device_id = found.device_id;
END
$$

-- name: grant
-- What the API's role may do with them.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA access FROM PUBLIC;
GRANT SELECT ON access.measurement TO hearth_api;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA access TO hearth_api;
REVOKE EXECUTE ON FUNCTION access.note, access.known FROM hearth_api
