-- Which subscription still needs messages of a slot of the log: its backlog holds them, since its cursor has not passed them or
-- waits for a transaction that wrote some; or a lease holds some. NULL: none. By (partition_id, "offset") and xid of the slot.
-- Internal: see rotate.
CREATE FUNCTION outbox.slot_holder(leaf regclass) RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    holder text;
BEGIN
    EXECUTE format($query$
        SELECT CASE WHEN last."offset" > p."offset"
               THEN format('subscription %%s stands at offset %%s of partition %%s, the slot goes on to %%s',
                           s.name, p."offset", c.partition_id, last."offset")
               ELSE format('subscription %%s has not yet taken late messages of partition %%s', s.name, c.partition_id) END
        FROM outbox.cursor c
        JOIN outbox.subscription s ON s.id = c.subscription_id AND s.backlog = 'hold'
        CROSS JOIN LATERAL (SELECT q."offset", q.open, q.floor FROM outbox.position q
                            WHERE q.subscription_id = c.subscription_id AND q.partition_id = c.partition_id
                            ORDER BY q."offset" DESC LIMIT 1) AS p
        CROSS JOIN LATERAL (SELECT m."offset" FROM %1$s m WHERE m.partition_id = c.partition_id
                            ORDER BY m."offset" DESC LIMIT 1) AS last
        WHERE last."offset" > p."offset" OR EXISTS (
            SELECT FROM unnest(p.open, p.floor) AS o (xid, floor)
            CROSS JOIN LATERAL (SELECT FROM %1$s m WHERE m.xid = o.xid AND m.partition_id + 0 = c.partition_id
                                AND m."offset" > o.floor LIMIT 1) AS late)
        LIMIT 1
    $query$, leaf) INTO holder;
    IF holder IS NULL THEN
        EXECUTE format($query$
            SELECT format('lease %%s of worker %%s holds messages of partition %%s', l.id, l.worker_id, l.partition_id)
            FROM outbox.lease l
            WHERE NOT l.redelivered AND EXISTS (
                SELECT FROM %s m WHERE m.partition_id = l.partition_id
                AND m."offset" BETWEEN lower(l.offsets) AND upper(l.offsets) - 1)
            LIMIT 1
        $query$, leaf) INTO holder;
    END IF;
    RETURN holder;
END $$;
