-- Claims redeliveries that are due, a lease each; those that another worker is claiming are skipped. Of the suspects, which
-- a worker held when it died, a worker has one at a time: so the guilty one is found and not its neighbours. The one that goes
-- beyond max_bytes is the last. Internal: see pull_batches.
CREATE FUNCTION outbox.take_due(
    reader outbox.subscription, worker bigint, max_messages int, max_bytes bigint, now timestamptz, due_after timestamptz
) RETURNS SETOF outbox.batch
LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (
            SELECT r.expires_at, r.published_at FROM outbox.redelivery r
            WHERE r.subscription_id = reader.id AND NOT r.suspect AND r.lease_id IS NULL AND r.due_at > due_after AND r.due_at <= now
            ORDER BY r.due_at, r.partition_id, r."offset" LIMIT max_messages) AS r
        WHERE outbox.is_expired(r.expires_at, r.published_at, reader.ttl, now)) THEN
        PERFORM outbox.expire_redeliveries(reader, greatest(max_messages, 1000), now, due_after);
    END IF;
    RETURN QUERY
    WITH suspect AS MATERIALIZED (
        SELECT r.ctid, r.partition_id, r."offset", r.due_at, coalesce(octet_length(r.payload::text), octet_length(r.body)) AS size
        FROM outbox.redelivery r
        WHERE r.subscription_id = reader.id AND r.suspect AND r.lease_id IS NULL AND r.due_at <= now
          AND NOT EXISTS (SELECT FROM outbox.lease l WHERE l.worker_id = worker AND l.suspect)
        ORDER BY r.due_at, r.partition_id, r."offset" LIMIT 1
        FOR UPDATE SKIP LOCKED
    ), innocent AS MATERIALIZED (
        SELECT r.ctid, r.partition_id, r."offset", r.due_at, coalesce(octet_length(r.payload::text), octet_length(r.body)) AS size
        FROM outbox.redelivery r
        WHERE r.subscription_id = reader.id AND NOT r.suspect AND r.lease_id IS NULL AND r.due_at > due_after AND r.due_at <= now
          AND outbox.is_expired(r.expires_at, r.published_at, reader.ttl, now) IS NOT TRUE
        ORDER BY r.due_at, r.partition_id, r."offset" LIMIT max_messages
        FOR UPDATE SKIP LOCKED
    ), picked AS MATERIALIZED (
        SELECT outbox.new_lease_id() AS lease_id, d.ctid
        FROM (SELECT d.*, sum(d.size) OVER (ORDER BY d.due_at, d.partition_id, d."offset" ROWS UNBOUNDED PRECEDING) AS bytes
              FROM (SELECT * FROM suspect UNION ALL SELECT * FROM innocent) AS d
              ORDER BY d.due_at, d.partition_id, d."offset" LIMIT max_messages) AS d
        WHERE d.bytes - d.size < max_bytes
    ), claimed AS (
        UPDATE outbox.redelivery r SET lease_id = p.lease_id
        FROM picked p
        WHERE r.ctid = p.ctid
        RETURNING r.*
    ), lease AS (
        INSERT INTO outbox.lease (id, subscription_id, partition_id, worker_id, attempt, redelivered, suspect, offsets)
        OVERRIDING SYSTEM VALUE
        SELECT c.lease_id, reader.id, c.partition_id, worker, c.attempt, true, c.suspect,
               int8multirange(int8range(c."offset", c."offset", '[]'))
        FROM claimed c
    )
    SELECT c.lease_id, c.attempt, true, topic.name, part.number, part.priority, c.partition_id,
           ARRAY[c."offset"], ARRAY[c.published_at], ARRAY[c.key], ARRAY[c.headers],
           CASE WHEN c.body IS NULL THEN ARRAY[c.payload] END, CASE WHEN c.payload IS NULL THEN ARRAY[c.body] END,
           outbox.history_of(c.errors), NULL::float8
    FROM claimed c
    JOIN outbox.partition part ON part.id = c.partition_id
    JOIN outbox.topic ON topic.id = part.topic_id
    ORDER BY c.due_at, c.partition_id, c."offset";
END $$;
