-- Where a reader stands in a partition, by its position: {"3": {"offset": 42, "open": [771], "floor": [17]}} says it of partition
-- 3, in the words of outbox.position. What it does not name is at its beginning. Internal: see read.
CREATE FUNCTION outbox.place_in(
    "position" jsonb, partition_id int, OUT "offset" bigint, OUT open xid8[], OUT floor bigint[]
)
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    place jsonb := place_in."position" -> place_in.partition_id::text;
BEGIN
    "offset" := coalesce((place ->> 'offset')::bigint, 0);
    open := ARRAY(SELECT x::xid8 FROM jsonb_array_elements_text(place -> 'open') WITH ORDINALITY AS o (x, nth) ORDER BY nth);
    floor := ARRAY(SELECT f::bigint FROM jsonb_array_elements_text(place -> 'floor') WITH ORDINALITY AS o (f, nth) ORDER BY nth);
    IF "offset" < 0 OR cardinality(open) <> cardinality(floor) THEN
        RAISE EXCEPTION 'the position % of partition % is none that outbox.read or outbox.read_from returned', place,
            place_in.partition_id USING ERRCODE = 'OB007';
    END IF;
END $$;
