-- Is a filter true for a payload? NULL or false if it can't be evaluated. Internal: see fits_any.
CREATE FUNCTION outbox.fits_filter(filter jsonpath, payload json) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_path_match(payload::jsonb, filter, '{}', true);
EXCEPTION  -- valid as json, and yet not as jsonb: \u0000, 1e999999; a time without a zone; a variable, which nobody sets
    WHEN data_exception OR program_limit_exceeded OR feature_not_supported OR undefined_object THEN
    RETURN false;
END $$;
