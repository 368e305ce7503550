-- Keeps a message that a subscription gave up on as a dead letter. Internal: see take, take_due.
CREATE FUNCTION outbox.bury(reader outbox.subscription, message outbox.message, attempt int, reason text, errors jsonb) RETURNS void
LANGUAGE sql
AS $$
INSERT INTO outbox.dead_letter AS d (subscription_id, partition_id, "offset", attempt, reason,
                                     published_at, key, headers, payload, body, errors)
VALUES (reader.id, message.partition_id, message."offset", bury.attempt, bury.reason,
        message.published_at, message.key, message.headers, message.payload, message.body, bury.errors)
ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE
SET attempt = excluded.attempt, reason = excluded.reason, errors = excluded.errors, died_at = excluded.died_at
$$;
