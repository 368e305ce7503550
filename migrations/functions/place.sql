-- The position of a cursor that is put at an offset while the transactions in "running" are open. STABLE, so that it reads
-- with the snapshot that showed them open: such a transaction has no visible rows then, and rows that carry its xid come
-- from the life of another cluster (a restore); it will write above them. Internal: see bind and seek.
CREATE FUNCTION outbox.place(
    partition_id int, target bigint, running xid8[], OUT "offset" bigint, OUT open xid8[], OUT floor bigint[]
)
LANGUAGE sql STABLE
AS $$
SELECT place.target, coalesce(array_agg(r.xid), '{}'), coalesce(array_agg(coalesce(old.last, 0)), '{}')
FROM unnest(place.running) AS r (xid)
CROSS JOIN LATERAL (
    SELECT max(m."offset") AS last FROM outbox.message m
    WHERE m.xid = r.xid AND m.partition_id + 0 = place.partition_id
) AS old
WHERE place.target > 0
$$;
