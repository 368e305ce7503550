-- Does a dead letter fit a filter that letter_filter has checked? All that it names must hold. Without a subquery, so that it is
-- planned into the query that asks, and may use indexes. Internal.
CREATE FUNCTION outbox.letter_fits(letter outbox.dead_letter, filter jsonb) RETURNS boolean
LANGUAGE sql STABLE
RETURN (filter ->> 'error_class' IS NULL OR (letter).error_class = filter ->> 'error_class')
   AND (filter ->> 'place' IS NULL OR (letter).place = filter ->> 'place')
   AND (filter ->> 'reason' IS NULL OR (letter).reason = filter ->> 'reason')
   AND (filter ->> 'key' IS NULL OR (letter).key = filter ->> 'key')
   AND (filter ->> 'died_before' IS NULL OR (letter).died_at < (filter ->> 'died_before')::timestamptz)
   AND (filter ->> 'died_after' IS NULL OR (letter).died_at > (filter ->> 'died_after')::timestamptz)
   AND (filter ->> 'text' IS NULL OR strpos(lower((letter).errors -> -1 ->> 'text'), lower(filter ->> 'text')) > 0)
   AND (filter -> 'partition_ids' IS NULL OR filter -> 'partition_ids' @> to_jsonb((letter).partition_id));
