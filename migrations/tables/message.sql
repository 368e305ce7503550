-- The log. Append-only; a ring of time slots, so that old history goes by TRUNCATE and never by DELETE.
-- Exactly one of payload (JSON) and body (raw bytes, with a content-type header) is set.
CREATE TABLE outbox.message (
    slot smallint NOT NULL,
    partition_id int NOT NULL,
    "offset" bigint NOT NULL,
    xid xid8 NOT NULL,
    published_at timestamptz NOT NULL,
    key text,
    headers jsonb,
    payload json,
    body bytea,
    expires_at timestamptz,
    CHECK ((payload IS NULL) <> (body IS NULL))
) PARTITION BY LIST (slot);

COMMENT ON COLUMN outbox.message.xid IS
    'The publisher''s top-level transaction: what pull looks up when it commits later than its offset.';

COMMENT ON COLUMN outbox.message.expires_at IS
    'From then on it is not delivered any more. NULL: never; -infinity: it was cancelled.';

-- As outbox.retention has them. Slots of the class transient are UNLOGGED.
DO $$
BEGIN
    FOR slot IN 0..23 LOOP
        EXECUTE format('CREATE %s TABLE outbox.message_%s PARTITION OF outbox.message FOR VALUES IN (%s)',
                       CASE WHEN slot BETWEEN 12 AND 15 THEN 'UNLOGGED' END, slot, slot);
    END LOOP;
END $$;

-- fresh messages: partition_id = ? AND "offset" > ? ORDER BY "offset"
CREATE INDEX message_fresh ON outbox.message (partition_id, "offset");

-- late messages: xid = ? AND partition_id + 0 = ? AND "offset" > ? ORDER BY "offset"
-- The + 0 keeps the planner from reading them by message_fresh, where they lie among all that came since.
CREATE INDEX message_late ON outbox.message (xid, (partition_id + 0), "offset");
