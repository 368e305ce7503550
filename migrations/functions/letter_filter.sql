-- A filter of dead letters, checked: an object of error_class, place, reason, key, topic, died_before, died_after, text (OB007
-- otherwise). NULL is the empty one, which all fit. Internal: see fits.
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
    RETURN coalesce(filter, '{}');
EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow THEN
    RAISE EXCEPTION 'a filter of dead letters has a time that is none: %', SQLERRM USING ERRCODE = 'OB007';
END $$;
