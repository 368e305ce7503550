-- Changes for how long a retention class keeps messages at least, and how large it may become, in bytes with its indexes (0: no
-- limit). NULL: as it is. Returns whether that changed anything. What it holds is kept for the new time, too, counted from its
-- publish.
CREATE FUNCTION outbox.set_retention(class text, keep interval DEFAULT NULL, max_bytes bigint DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known outbox.retention;
    width interval;
    changes boolean;
BEGIN
    SELECT r.* INTO known FROM outbox.retention r WHERE r.name = set_retention.class FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no retention class "%"', set_retention.class USING ERRCODE = 'OB007',
            HINT = 'There are: ' || (SELECT string_agg(r.name, ', ' ORDER BY r.first_slot) FROM outbox.retention r);
    END IF;
    IF set_retention.keep < make_interval(secs => known.slots - 2) OR set_retention.keep > interval '100 years' THEN
        RAISE EXCEPTION 'retention class "%" can''t keep messages for %', class, set_retention.keep
            USING ERRCODE = 'OB007', HINT = format('%s seconds to 100 years.', known.slots - 2);
    ELSIF set_retention.max_bytes < 0 THEN
        RAISE EXCEPTION 'retention class "%" can''t have % bytes at most', class, set_retention.max_bytes
            USING ERRCODE = 'OB007', HINT = '0: no limit.';
    END IF;
    width := coalesce(make_interval(secs => ceil(extract(epoch FROM set_retention.keep) / (known.slots - 2))::float8),
                      known.slot_width);
    changes := width <> known.slot_width;
    IF NOT changes AND known.max_bytes IS NOT DISTINCT FROM nullif(coalesce(set_retention.max_bytes, known.max_bytes), 0) THEN
        RETURN false;
    END IF;
    UPDATE outbox.retention r
    SET slot_width = width, max_bytes = nullif(coalesce(set_retention.max_bytes, known.max_bytes), 0),
        changed_at = CASE WHEN changes THEN clock_timestamp() ELSE r.changed_at END
    WHERE r.name = known.name;
    RETURN true;
END $$;
