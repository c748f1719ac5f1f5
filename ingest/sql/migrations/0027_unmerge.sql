-- What comes while two entries are merged is told from what was the other's before by what was there when
-- they were merged, not by clocks: the time at which a worker stored it is the worker's.
ALTER TABLE resident_merge_measurement ADD COLUMN stays boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN resident_merge_measurement.stays IS
    'in a slot of the double entry''s, but the other''s before the merge; does not go back';

INSERT INTO resident_merge_measurement (
    merge_id, measured_at, identity_time, device_id, user_slot, sign, stays
)
SELECT merged.merge_id, m.measured_at, m.identity_time, m.device_id, m.user_slot, m.sign, true
FROM resident_merge AS merged
JOIN measurement AS m ON m.resident_id = merged.kept_id AND m.stored_at <= merged.merged_at
WHERE merged.undone_at IS NULL
    AND EXISTS (
        SELECT
        FROM resident_merge_link AS moved
        JOIN link ON link.link_id = moved.new_link_id
        WHERE moved.merge_id = merged.merge_id
            AND link.device_id = m.device_id
            AND link.user_slot = m.user_slot
            AND link.during @> m.measured_at
    )
    AND NOT EXISTS (
        SELECT
        FROM resident_merge_measurement AS place
        WHERE place.merge_id = merged.merge_id
            AND place.device_id = m.device_id
            AND place.user_slot = m.user_slot
            AND place.sign = m.sign
            AND place.identity_time = m.identity_time
            AND place.measured_at = m.measured_at
    );
