-- Alerts keep up with more, for less, and tell of bonds that are gone.

-- Rules that look back over days have a place of their own in the feed of changes, and move it on at most every
-- few minutes (ingest.alerts.rules.Pace). A place is one under the rules that were entered when it was taken.
ALTER TABLE alert_progress
    ADD COLUMN pace text NOT NULL DEFAULT 'prompt' CHECK (pace IN ('prompt', 'over-days')),
    ADD COLUMN rules_entered bigint NOT NULL DEFAULT 0,
    ADD COLUMN moved_at timestamptz NOT NULL DEFAULT now();
UPDATE alert_progress SET rules_entered = (SELECT count(*) FROM alert_rule);
ALTER TABLE alert_progress DROP COLUMN one;
ALTER TABLE alert_progress ADD PRIMARY KEY (pace);
ALTER TABLE alert_progress ALTER COLUMN pace DROP DEFAULT, ALTER COLUMN rules_entered DROP DEFAULT;
INSERT INTO alert_progress (transaction_id, change_id, pace, rules_entered)
SELECT transaction_id, change_id, 'over-days', rules_entered FROM alert_progress;
COMMENT ON COLUMN alert_progress.rules_entered IS
    'how many rules had ever been entered: where there are more by now, everything is evaluated anew';

-- How hubs get on with devices: what each told last (ingest.device_states).
CREATE TABLE hub_device (
    hub_id integer NOT NULL REFERENCES hub,
    device_id integer NOT NULL REFERENCES device,
    trouble text CHECK (trouble IN ('bond-lost', 'pairing-refused', 'unreachable')),
    since timestamptz NOT NULL DEFAULT now(),
    told_at timestamptz NOT NULL DEFAULT now(),
    hub_started_at timestamptz NOT NULL,
    hub_uptime_s double precision NOT NULL,
    PRIMARY KEY (hub_id, device_id)
);
CREATE INDEX hub_device_in_trouble ON hub_device (device_id) WHERE trouble IS NOT NULL;
COMMENT ON COLUMN hub_device.trouble IS 'null: the device is well';
COMMENT ON COLUMN hub_device.since IS 'since when it is well, or in trouble, by our clock';

-- An alert of the rule device-trouble is about one device.
ALTER TABLE alert ADD COLUMN device_id integer REFERENCES device;
ALTER TABLE alert DROP CONSTRAINT alert_resident_id_rule_started_at_key;
ALTER TABLE alert ADD CONSTRAINT alert_one_an_episode
    UNIQUE NULLS NOT DISTINCT (resident_id, rule, started_at, device_id);
COMMENT ON COLUMN alert.device_id IS 'whose trouble it is; null: readings met the rule, or there were none';
