-- Which of these messages fit one of some conditions: [{"headers", "match", "filter"}], as bindings have them. See fits_any.
CREATE FUNCTION outbox.fit_all(conditions jsonb, headers jsonb[], payloads json[]) RETURNS boolean[]
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT array_agg(outbox.fits_any(fit_all.conditions, coalesce(m.headers, '{}'), m.payload) ORDER BY m.nth)
FROM unnest(fit_all.headers, fit_all.payloads) WITH ORDINALITY AS m (headers, payload, nth)
$$;
