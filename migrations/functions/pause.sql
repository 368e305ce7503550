-- Lets pulls of a subscription return nothing until it is resumed; what is in workers' hands goes on. False: it was paused before.
CREATE FUNCTION outbox.pause(subscription text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM outbox.subscription_id(pause.subscription);
    UPDATE outbox.subscription s SET paused_at = clock_timestamp() WHERE s.name = pause.subscription AND s.paused_at IS NULL;
    RETURN FOUND;
END $$;
