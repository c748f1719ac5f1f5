-- What the API's role could see and need not: answers that were kept for an idempotency key are their
-- principal's alone, and no read's; rules' marks nobody reads there.

-- Answers to look-ups by a body were kept too, with what names a resident in them.
TRUNCATE idempotent_answer;

ALTER TABLE idempotent_answer ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_principal ON idempotent_answer TO hearth_api
    USING (principal = (SELECT pg_catalog.current_setting('hearth.principal', true)));

CREATE FUNCTION access.forget_answers(_age interval) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    DELETE FROM idempotent_answer WHERE answered_at < now() - _age
$$;
COMMENT ON FUNCTION access.forget_answers(interval) IS 'remove the answers that nobody asks for again';
REVOKE EXECUTE ON FUNCTION access.forget_answers(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.forget_answers(interval) TO hearth_api;

DROP VIEW access.alert_mark;
