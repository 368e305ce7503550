-- Takes messages that were handed out from what a subscription's rate allows. By the newest row. Internal: see pull_batches.
CREATE FUNCTION outbox.spend(reader int, tokens float8, now timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    newest record;
BEGIN
    SELECT a.ctid, a.number, a.counted_at INTO newest FROM outbox.allowance a
    WHERE a.subscription_id = reader ORDER BY a.number DESC LIMIT 1;
    INSERT INTO outbox.allowance (subscription_id, number, tokens, counted_at)
    VALUES (reader, coalesce(newest.number, 0) + 1, spend.tokens, greatest(now, newest.counted_at));
    DELETE FROM outbox.allowance a WHERE a.ctid = newest.ctid;
END $$;
