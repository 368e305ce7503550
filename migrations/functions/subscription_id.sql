-- The id of a subscription, or OB004. Internal.
CREATE FUNCTION outbox.subscription_id(name text) RETURNS int
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found_id int;
BEGIN
    SELECT s.id INTO found_id FROM outbox.subscription s WHERE s.name = subscription_id.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" does not exist', subscription_id.name
            USING ERRCODE = 'OB004', HINT = 'Create it with outbox.subscribe(); `outbox subscriptions list` shows those that there are.';
    END IF;
    RETURN found_id;
END $$;
