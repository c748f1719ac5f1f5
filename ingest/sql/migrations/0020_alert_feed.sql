-- What happens to alerts has a place in the feed of changes, so that one id resumes a stream of both. The number
-- comes from the sequence of `change`: within a transaction too, no two have the same place.
ALTER TABLE alert_event ADD COLUMN transaction_id xid8, ADD COLUMN change_id bigint;
ALTER TABLE alert_event
    ALTER COLUMN transaction_id SET DEFAULT pg_current_xact_id(),
    ALTER COLUMN change_id SET DEFAULT nextval('change_change_id_seq');
CREATE INDEX alert_event_in_feed ON alert_event (transaction_id, change_id)
    WHERE transaction_id IS NOT NULL;
COMMENT ON COLUMN alert_event.transaction_id IS
    'with change_id: its place among the changes; null: before there were live alerts';

-- Which residents' alerts something happened to; what it was, access.alert_event tells whoever may read it.
CREATE VIEW access.alert_news AS
SELECT e.transaction_id, e.change_id, e.event_id, e.at, a.resident_id
FROM alert_event AS e JOIN alert AS a USING (alert_id)
WHERE e.transaction_id IS NOT NULL;
GRANT SELECT ON access.alert_news TO hearth_api;
