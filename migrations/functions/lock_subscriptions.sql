-- Locks rows of subscriptions that lose bindings, or go, against adopt, which would give them cursors meanwhile. Publishers that
-- declare topics wait for these locks, so ours gives up soon, before anybody is in a deadlock with it. Internal: see unbind.
CREATE FUNCTION outbox.lock_subscriptions(names text[]) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '200ms'
AS $$
BEGIN
    PERFORM FROM outbox.subscription s WHERE s.name = ANY (names) ORDER BY s.id FOR UPDATE;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'an open transaction is declaring topics that the subscriptions % read', array_to_string(names, ', ')
        USING ERRCODE = 'lock_not_available', HINT = 'Try again when it has ended; outbox.open_transactions() shows it.';
END $$;
