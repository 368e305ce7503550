-- Does a message fit what conditions() returned? Internal: see take.
CREATE FUNCTION outbox.fits(conditions jsonb, headers jsonb, payload json) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN outbox.fits_any(conditions -> 'own', headers, payload)
        OR outbox.fits_any(conditions -> 'spare', headers, payload)
           AND NOT outbox.fits_any(conditions -> 'others', headers, payload);
END $$;
