-- Creates a subscription, or brings its settings up to date, and returns its id. It reads nothing until it is bound.
-- on_failure: NULL, or 'block', 'park' or 'dead-letter' for an ordered one; leases that are out when it changes keep their old
-- order.
CREATE FUNCTION outbox.subscribe(
    name text, guarantee text DEFAULT 'at-least-once', max_attempts int DEFAULT 20, on_failure text DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known outbox.subscription;
    new_id int;
BEGIN
    SELECT * INTO known FROM outbox.subscription s WHERE s.name = subscribe.name;
    IF (known.guarantee, known.max_attempts) = (subscribe.guarantee, subscribe.max_attempts)
       AND known.on_failure IS NOT DISTINCT FROM subscribe.on_failure THEN
        RETURN known.id;
    END IF;
    INSERT INTO outbox.subscription AS s (name, guarantee, max_attempts, on_failure)
    VALUES (subscribe.name, subscribe.guarantee, subscribe.max_attempts, subscribe.on_failure)
    ON CONFLICT ON CONSTRAINT subscription_name_key DO UPDATE
    SET guarantee = excluded.guarantee, max_attempts = excluded.max_attempts, on_failure = excluded.on_failure
    RETURNING s.id INTO new_id;
    IF known.id IS NOT NULL AND known.on_failure IS DISTINCT FROM subscribe.on_failure THEN
        PERFORM outbox.change_order(new_id, subscribe.on_failure);
    END IF;
    RETURN new_id;
END $$;
