-- What a consumer has done already, for effects that live outside of the lease's own transaction: written in the transaction
-- of the effect, by once(). A ring of time slots, as deduplication is. Works alone in a database that has nothing else of ours.
CREATE TABLE IF NOT EXISTS outbox.inbox (
    slot smallint NOT NULL,
    consumer text NOT NULL,
    key text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (slot, consumer, key)
) PARTITION BY LIST (slot);

DO $$
BEGIN
    FOR slot IN 0..15 LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS outbox.inbox_%s PARTITION OF outbox.inbox FOR VALUES IN (%s)', slot, slot);
    END LOOP;
END $$;
