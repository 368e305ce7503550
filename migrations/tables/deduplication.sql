-- Idempotency keys of publishers, and what the first publish with each came to. A ring of time slots (key_slot), so that old
-- keys go by TRUNCATE. A key is unique in its slot; how it is unique over slots, enter_slot says.
CREATE TABLE outbox.deduplication (
    slot smallint NOT NULL,
    topic_id int NOT NULL,
    key text NOT NULL,
    partition_id int NOT NULL,
    "offset" bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (slot, topic_id, key)
) PARTITION BY LIST (slot);

DO $$
BEGIN
    FOR slot IN 0..15 LOOP
        EXECUTE format('CREATE TABLE outbox.deduplication_%s PARTITION OF outbox.deduplication FOR VALUES IN (%s)', slot, slot);
    END LOOP;
END $$;
