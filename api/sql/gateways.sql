-- Which hubs stand for services (api.gateways); as the schema's owner.

-- name: stand_in
-- Let a hub stand for a service; no row where there is no such hub or service, or it stands for another.
INSERT INTO fhir_gateway (account_id, hub_id, epoch)
SELECT account.account_id, hub.hub_id, %(epoch)s
FROM account, hub
WHERE account.login = %(service)s AND account.role = 'service' AND hub.name = %(hub)s
    AND NOT EXISTS (SELECT FROM batch WHERE batch.hub_id = hub.hub_id)
    AND NOT EXISTS (
        SELECT FROM enrolment.certificate WHERE certificate.hub_id = hub.hub_id
    )
ON CONFLICT DO NOTHING
RETURNING hub_id
