-- What transactions committed since they were seen open: rows above each one's floor, up to where the cursor stands. By
-- message_late. STABLE, so that it reads with the snapshot of the statement that calls it. Internal: see take.
CREATE FUNCTION outbox.late(partition_id int, open xid8[], floor bigint[], up_to bigint, max_messages int,
                            first_slot smallint, last_slot smallint) RETURNS TABLE (
    xid xid8, "offset" bigint, published_at timestamptz, key text, headers jsonb, payload json, body bytea, expires_at timestamptz
)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT m.*
    FROM unnest(late.open, late.floor) AS o (xid, floor)
    CROSS JOIN LATERAL (  -- OFFSET 0: a join would let the planner read the whole log instead
        SELECT m.xid, m."offset", m.published_at, m.key, m.headers, m.payload, m.body, m.expires_at
        FROM outbox.message m
        WHERE m.xid = o.xid AND m.partition_id + 0 = late.partition_id
          AND m.slot BETWEEN late.first_slot AND late.last_slot
          AND m."offset" > o.floor AND m."offset" + 0 <= late.up_to
        ORDER BY m."offset" LIMIT late.max_messages OFFSET 0
    ) AS m
    ORDER BY m."offset" LIMIT late.max_messages;
END $$;
