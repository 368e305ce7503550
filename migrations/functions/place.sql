-- The position of a cursor that is put at an offset while the transactions in "running" are open. Internal: see bind and
-- seek. An open transaction can't have rows that are visible now, so visible rows with its xid come from the life of
-- another cluster (a restore): it will write above them.
CREATE FUNCTION outbox.place(
    partition_id int, target bigint, running xid8[], OUT "offset" bigint, OUT open xid8[], OUT floor bigint[]
)
LANGUAGE sql VOLATILE
AS $$
SELECT place.target, coalesce(array_agg(r.xid), '{}'), coalesce(array_agg(coalesce(old.last, 0)), '{}')
FROM unnest(place.running) AS r (xid)
CROSS JOIN LATERAL (
    SELECT max(m."offset") AS last FROM outbox.message m
    WHERE m.xid = r.xid AND m.partition_id + 0 = place.partition_id
) AS old
WHERE place.target > 0
$$;
