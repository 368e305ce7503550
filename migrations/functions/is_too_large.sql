-- Is a retention class larger than its limit? Internal: see slots_due.
CREATE FUNCTION outbox.is_too_large(class outbox.retention) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN class.max_bytes IS NOT NULL AND outbox.class_bytes(class) > class.max_bytes;
END $$;
