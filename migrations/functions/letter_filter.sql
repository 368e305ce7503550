-- A filter of dead letters, checked: an object of error_class, place, reason, key, topic, died_before, died_after, text (OB007
-- otherwise), to which the partitions are added that "topic", a pattern, means. NULL: the one that all fit. Internal: see fits.
CREATE FUNCTION outbox.letter_filter(filter jsonb) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    known text[] := '{error_class,place,reason,key,topic,died_before,died_after,text}';
    strange text;
BEGIN
    IF jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION 'a filter of dead letters is an object, not %', filter USING ERRCODE = 'OB007';
    END IF;
    SELECT string_agg(name, ', ') INTO strange FROM jsonb_object_keys(filter) AS name WHERE name <> ALL (known);
    IF strange IS NOT NULL THEN
        RAISE EXCEPTION 'dead letters can''t be chosen by %', strange
            USING ERRCODE = 'OB007', HINT = 'They can by: ' || array_to_string(known, ', ');
    END IF;
    PERFORM (filter ->> 'died_before')::timestamptz, (filter ->> 'died_after')::timestamptz;
    IF filter ->> 'topic' IS NOT NULL THEN
        filter := filter || jsonb_build_object('partition_ids', (
            SELECT coalesce(jsonb_agg(p.id), '[]') FROM outbox.partition p JOIN outbox.topic t ON t.id = p.topic_id
            WHERE outbox.topic_matches(t.name, filter ->> 'topic')));
    END IF;
    RETURN coalesce(filter, '{}');
EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow THEN
    RAISE EXCEPTION 'a filter of dead letters has a time that is none: %', SQLERRM USING ERRCODE = 'OB007';
END $$;
