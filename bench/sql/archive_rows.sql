-- A big archive for benches (bench.archive_rows): homes with a hub, a device a sign, a resident each.

-- name: homes
-- So many homes.
INSERT INTO home SELECT FROM generate_series(1, %(residents)s)

-- name: hubs
-- A hub a home, named by its number.
INSERT INTO hub (name, home_id)
SELECT lpad(to_hex(g), 16, '0'), g FROM generate_series(1, %(residents)s) AS g

-- name: residents
-- A resident a home.
INSERT INTO resident SELECT FROM generate_series(1, %(residents)s)

-- name: devices
-- A device for each of the home's signs; its address is its number.
INSERT INTO device (address, home_id)
SELECT
    regexp_replace(upper(lpad(to_hex(g), 12, '0')), '(..)(?!$)', '\1:', 'g'),
    (g - 1) / %(signs)s + 1
FROM generate_series(1, %(residents)s::integer * %(signs)s) AS g

-- name: links
-- Each device to its home's resident, for ever.
INSERT INTO link (device_id, user_slot, resident_id, during)
SELECT g, 255, (g - 1) / %(signs)s + 1, '(,)'
FROM generate_series(1, %(residents)s::integer * %(signs)s) AS g

-- name: indexes
-- What the measurements are found by, with what makes it.
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'measurement'

-- name: batches
-- A batch a home for a week: what a row's hub is found by.
INSERT INTO batch (
    batch_id, epoch, sequence, reference_at, committed_at, hub_id, published, stored, duplicate,
    quarantined, decoder, kind
)
SELECT
    %(week)s * %(residents)s::bigint + g, 1, %(week)s + 1, %(until)s, %(until)s, g, 0, 0, 0, 0, 1, 1
FROM generate_series(1, %(residents)s) AS g

-- name: week
-- A sign's rows of a week, in the order of time: {columns} the sign's quantities, {values} how they
-- vary about what is typical. Every second resident's devices send the quantities that are optional.
INSERT INTO measurement (
    measured_at, identity_time, stored_at, batch_id, digits, device_id, resident_id, status,
    content_hash, received_after_s, sign, user_slot, time_quality, utc_offset, unit_set, time_flags,
    flags, {columns}
)
SELECT
    moment.at, moment.at AT TIME ZONE 'Asia/Shanghai', %(until)s,
    %(week)s * %(residents)s::bigint + who,
    CASE WHEN who %% 2 = 0 THEN %(digits)s::bigint ELSE %(digits_fewer)s::bigint END,
    (who - 1) * %(signs)s + %(place)s + 1, who, 0, who, 2, %(sign)s, 255, 2, 32, 0, 1, 0, {values}
FROM generate_series(0, 6) AS day
CROSS JOIN generate_series(1, %(a_day)s) AS nth
CROSS JOIN generate_series(1, %(residents)s) AS who
CROSS JOIN LATERAL (
    SELECT
        %(from_at)s + make_interval(days => day, hours => 4 + 12 * nth / %(a_day)s)
            + make_interval(secs => (who * 37 + %(sign)s * 11) %% 3600)
) AS moment (at)
ORDER BY day, nth, who
