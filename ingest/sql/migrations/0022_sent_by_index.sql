-- What a reading's device sent of its quantities and statuses stands in the index of a resident's
-- readings, so that a quantity that was never sent is known to be missing without a look at the rows.
DROP INDEX measurement_of_resident;
CREATE INDEX measurement_of_resident
    ON measurement (resident_id, sign, measured_at DESC) INCLUDE (digits, status);
