-- Creates a subscription, or brings its settings up to date, and returns its id. It reads nothing until it is bound.
CREATE FUNCTION outbox.subscribe(
    name text, guarantee text DEFAULT 'at-least-once', max_attempts int DEFAULT 20
) RETURNS int
LANGUAGE plpgsql
AS $$
DECLARE
    known outbox.subscription;
BEGIN
    SELECT * INTO known FROM outbox.subscription s WHERE s.name = subscribe.name;
    IF (known.guarantee, known.max_attempts) = (subscribe.guarantee, subscribe.max_attempts) THEN
        RETURN known.id;
    END IF;
    INSERT INTO outbox.subscription AS s (name, guarantee, max_attempts)
    VALUES (subscribe.name, subscribe.guarantee, subscribe.max_attempts)
    ON CONFLICT ON CONSTRAINT subscription_name_key DO UPDATE
    SET guarantee = excluded.guarantee, max_attempts = excluded.max_attempts
    RETURNING s.id INTO known.id;
    RETURN known.id;
END $$;
