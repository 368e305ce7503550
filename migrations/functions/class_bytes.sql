-- How large the slots of a retention class are together, with their indexes. Internal.
CREATE FUNCTION outbox.class_bytes(class outbox.retention) RETURNS bigint
LANGUAGE sql VOLATILE
AS $$
SELECT sum(pg_total_relation_size(format('outbox.message_%s', s)::regclass))::bigint
FROM generate_series(class.first_slot, class.first_slot + class.slots - 1) AS s
$$;
