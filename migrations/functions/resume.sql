-- Lets a subscription that was paused go on, and tells its workers. False: it was not paused.
CREATE FUNCTION outbox.resume(subscription text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int := outbox.subscription_id(resume.subscription);
BEGIN
    UPDATE outbox.subscription s SET paused_at = NULL WHERE s.id = reader AND s.paused_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM outbox.wake(t.topic_id) FROM (
        SELECT DISTINCT p.topic_id FROM outbox.cursor c JOIN outbox.partition p ON p.id = c.partition_id
        WHERE c.subscription_id = reader) AS t;
    RETURN true;
END $$;
