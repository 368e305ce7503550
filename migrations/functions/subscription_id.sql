-- The id of a subscription; OB004 if there is none of that name. Internal.
CREATE FUNCTION outbox.subscription_id(name text) RETURNS int
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found_id int;
BEGIN
    SELECT s.id INTO found_id FROM outbox.subscription s WHERE s.name = subscription_id.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" does not exist', subscription_id.name USING ERRCODE = 'OB004';
    END IF;
    RETURN found_id;
END $$;
