-- Raises OB008 if a subscription that reads a topic has so many messages waiting that it wants no more. Publishers at the same moment
-- don't see each other: they may exceed the limit by what they publish. Internal: see publish.
CREATE FUNCTION outbox.require_room(topic text, guards int[], messages int) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    full_one record;
BEGIN
    SELECT s.name, s.max_backlog, b.waiting INTO full_one
    FROM outbox.subscription s
    CROSS JOIN LATERAL (SELECT outbox.backlog(s.id) AS waiting) AS b
    WHERE s.id = ANY (guards) AND messages > 0 AND b.waiting + messages > s.max_backlog
    LIMIT 1;
    IF FOUND AND messages > full_one.max_backlog THEN
        RAISE EXCEPTION 'topic "%" takes no % messages at once: the max_backlog of subscription "%" is %',
            require_room.topic, messages, full_one.name, full_one.max_backlog
            USING ERRCODE = 'OB008', HINT = 'Publish fewer at once, or raise max_backlog.';
    ELSIF FOUND THEN
        RAISE EXCEPTION 'topic "%" takes no more: % messages wait for subscription "%", and its max_backlog is %',
            require_room.topic, full_one.waiting, full_one.name, full_one.max_backlog
            USING ERRCODE = 'OB008', HINT = 'Try again when its workers have caught up, run more of them, or raise max_backlog.';
    END IF;
END $$;
