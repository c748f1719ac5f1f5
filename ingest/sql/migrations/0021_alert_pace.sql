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
