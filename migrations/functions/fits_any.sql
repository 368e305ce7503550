-- Does a message fit one of some conditions: have all, or any, of the headers, and a payload for which the filter is true? A filter
-- that can't be evaluated (a raw body, a text where a number is compared, JSON that jsonb can't hold) is not true. Internal: see fits.
CREATE FUNCTION outbox.fits_any(conditions jsonb, headers jsonb, payload json) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    condition jsonb;
    wanted jsonb;
BEGIN
    FOR condition IN SELECT jsonb_array_elements(conditions) LOOP
        wanted := nullif(condition -> 'headers', 'null');
        CONTINUE WHEN wanted IS NOT NULL AND NOT coalesce(CASE condition ->> 'match'
            WHEN 'all' THEN headers @> jsonb_strip_nulls(wanted) AND headers ?& ARRAY(SELECT jsonb_object_keys(wanted))
            ELSE EXISTS (SELECT FROM jsonb_each_text(wanted) AS w (name, value)
                         WHERE headers ? w.name AND (w.value IS NULL OR headers ->> w.name = w.value)) END, false);
        CONTINUE WHEN condition ->> 'filter' IS NOT NULL
                  AND NOT coalesce(outbox.fits_filter((condition ->> 'filter')::jsonpath, payload), false);
        RETURN true;
    END LOOP;
    RETURN false;
END $$;
