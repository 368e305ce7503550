-- What dramatiq's actors returned, kept until it expires. Two rings of 8 slots by the time of writing (result_slot): 0 to 7 of ten
-- minutes, for what lives an hour at most, 8 to 15 of four days, so that old results go by TRUNCATE. A key that was written in
-- several slots means its newest row.
CREATE TABLE outbox.result (
    slot smallint NOT NULL,
    key text NOT NULL,
    value bytea NOT NULL,
    stored_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (slot, key)
) PARTITION BY LIST (slot);

COMMENT ON COLUMN outbox.result.value IS 'As dramatiq''s encoder wrote it.';

DO $$
BEGIN
    FOR slot IN 0..15 LOOP
        EXECUTE format('CREATE TABLE outbox.result_%s PARTITION OF outbox.result FOR VALUES IN (%s)', slot, slot);
    END LOOP;
END $$;
