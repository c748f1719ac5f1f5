-- Answers to writes that bore an idempotency key (api.idempotency).

-- name: bind
-- Note for this transaction whose answers it may see, and tell whether the account may ask in its session.
SELECT access.vouch(%(reader)s, %(session)s)
FROM set_config('hearth.principal', %(reader)s::text, true)

-- name: claim
-- Take a key: whoever gets a row may act; the same key that was left unanswered for long is taken over.
INSERT INTO idempotent_answer AS known (principal, key, request_digest, status, headers, body)
VALUES (%(principal)s, %(key)s, %(digest)s, 0, '{}', '')
ON CONFLICT (principal, key) DO UPDATE SET answered_at = now()
WHERE known.status = 0
    AND known.request_digest = excluded.request_digest
    AND known.answered_at < now() - %(unanswered_s)s * interval '1 second'
RETURNING 1

-- name: find
-- What was answered; status 0: not yet.
SELECT request_digest, status, headers, body
FROM idempotent_answer
WHERE principal = %(principal)s AND key = %(key)s

-- name: keep
-- Keep an answer.
UPDATE idempotent_answer
SET status = %(status)s, headers = %(headers)s, body = %(body)s, answered_at = now()
WHERE principal = %(principal)s AND key = %(key)s

-- name: release
-- The act failed on our side: it may be tried again.
DELETE FROM idempotent_answer WHERE principal = %(principal)s AND key = %(key)s

-- name: forget
-- Answers that nobody asks for again.
SELECT access.forget_answers(%(kept_s)s * interval '1 second')
