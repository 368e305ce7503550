-- Has a subscription a binding that does not take all of its topics? Internal.
CREATE FUNCTION outbox.has_conditions(reader int) RETURNS boolean
LANGUAGE sql STABLE
AS $$
SELECT EXISTS (SELECT FROM outbox.binding b
               WHERE b.subscription_id = reader AND (b.headers IS NOT NULL OR b.filter IS NOT NULL OR b.alternate))
$$;
