-- Is this a predicate in SQL/JSON path, as $.total > 100? Otherwise OB007. Internal: see bind.
CREATE FUNCTION outbox.check_filter(filter text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM jsonb_path_match('{}', check_filter.filter::jsonpath, '{}', false);
EXCEPTION WHEN syntax_error OR data_exception OR feature_not_supported OR undefined_object THEN
    RAISE EXCEPTION 'the filter % is not a predicate in SQL/JSON path: %', quote_literal(check_filter.filter), SQLERRM
        USING ERRCODE = 'OB007', HINT = 'For example: $.total > 100, or exists($.lines[*] ? (@.sku == "A1")).';
END $$;
