-- Are there partitions of several priorities among those that a subscription reads? Internal: see pull_batches.
CREATE FUNCTION outbox.has_priorities(reader int) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM outbox.partition part JOIN outbox.cursor c ON c.partition_id = part.id
    WHERE part.priority > 0 AND c.subscription_id = reader
);
