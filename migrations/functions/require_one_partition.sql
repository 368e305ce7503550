-- Raises OB007 if an offset is to say where several partitions start: each has its own. Internal: see bind and seek_to.
CREATE FUNCTION outbox.require_one_partition(kind text, partitions int) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF kind = 'offset' AND partitions > 1 THEN
        RAISE EXCEPTION 'an offset is one of a partition, and these are %', partitions
            USING ERRCODE = 'OB007', HINT = 'Name one partition, or say a time instead; outbox.seek() takes a partition''s id.';
    END IF;
END $$;
