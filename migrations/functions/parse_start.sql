-- Reads where a cursor shall stand: 'first', 'last', 'next', an offset, a time in ISO 8601 with its zone ('2026-11-23T08:00Z'),
-- or how long ago ('2 hours', 'PT2H'; a sign, or "ago", makes no difference) by the database's clock. OB007 for what is none of
-- these. "kind" is the word, 'offset' or 'time'. Internal: see start_target.
CREATE FUNCTION outbox.parse_start(start text, OUT kind text, OUT "offset" bigint, OUT at timestamptz)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    ago interval;
BEGIN
    IF start IN ('first', 'last', 'next') THEN
        kind := start;
    ELSIF start ~ '^\d+$' THEN
        kind := 'offset';
        "offset" := start::bigint;
    ELSIF start ~ '^\d{4}-\d\d-\d\d[T ]\d\d:.*(Z|[+-]\d\d(:?\d\d)?)$' THEN
        kind := 'time';
        at := start::timestamptz;
    ELSIF start ~ '[A-Za-z]' AND start !~ '^\d{4}-\d\d-\d\d' THEN
        kind := 'time';
        ago := start::interval;
        at := clock_timestamp() - CASE WHEN ago < '0' THEN -ago ELSE ago END;
    END IF;
    IF kind IS NULL OR kind = 'time' AND NOT isfinite(at) THEN
        RAISE invalid_datetime_format;
    END IF;
EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION '"%" is nowhere to start', start USING ERRCODE = 'OB007',
        HINT = 'It is first, last, next, an offset, a time with its zone (2026-11-23T08:00Z), or how long ago (2 hours).';
END $$;
