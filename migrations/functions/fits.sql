-- Does a dead letter fit a filter? Of its names (see letter_filter) those that are there must all hold; "text" is a part of the
-- last error's text in any case, "topic" a pattern. Planned into the query that asks, so that it may use indexes. Internal.
CREATE FUNCTION outbox.fits(letter outbox.dead_letter, filter jsonb) RETURNS boolean
LANGUAGE sql STABLE
RETURN (filter ->> 'error_class' IS NULL OR (letter).error_class = filter ->> 'error_class')
   AND (filter ->> 'place' IS NULL OR (letter).place = filter ->> 'place')
   AND (filter ->> 'reason' IS NULL OR (letter).reason = filter ->> 'reason')
   AND (filter ->> 'key' IS NULL OR (letter).key = filter ->> 'key')
   AND (filter ->> 'died_before' IS NULL OR (letter).died_at < (filter ->> 'died_before')::timestamptz)
   AND (filter ->> 'died_after' IS NULL OR (letter).died_at > (filter ->> 'died_after')::timestamptz)
   AND (filter ->> 'text' IS NULL OR strpos(lower((letter).errors -> -1 ->> 'text'), lower(filter ->> 'text')) > 0)
   AND (filter ->> 'topic' IS NULL OR (letter).partition_id IN (
            SELECT p.id FROM outbox.partition p JOIN outbox.topic t ON t.id = p.topic_id
            WHERE outbox.topic_matches(t.name, filter ->> 'topic')));
