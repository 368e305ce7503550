-- Settles leases that a worker holds, in the caller's transaction: whole ones, or offsets[i] of leases[i] (NULL: all). Who is not
-- the owner (any more) gets OB001, so that the transaction and its effects roll back. durable = false does not wait for the disk.
-- failures: [{"lease", "offset", "delay": seconds or null, "reason", "error": {}, "charged": true}], among what is settled: delayed
-- ones become redeliveries (an attempt is spent if charged), others dead letters. What waited in a lane for a message is due then.
CREATE FUNCTION outbox.settle(
    worker bigint, leases bigint[], offsets int8multirange[] DEFAULT NULL, failures jsonb DEFAULT NULL,
    durable boolean DEFAULT true
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    held int;
    lanes record;
BEGIN
    IF NOT durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;

    IF settle.offsets IS NULL AND failures IS NULL THEN
        DELETE FROM outbox.lease l WHERE l.id = ANY (leases) AND l.worker_id = worker AND NOT l.redelivered;
        GET DIAGNOSTICS held = ROW_COUNT;
        IF held = cardinality(leases) THEN  -- the usual case: nobody waits for them
            RETURN;
        END IF;
        WITH settled AS (
            DELETE FROM outbox.lease l WHERE l.id = ANY (leases) AND l.worker_id = worker RETURNING l.*
        ), retried AS (
            DELETE FROM outbox.redelivery r USING settled s
            CROSS JOIN LATERAL outbox.redelivery_of(s.subscription_id, s.partition_id, lower(s.offsets), s.id) AS own (row)
            WHERE r.ctid = own.row
            RETURNING r.subscription_id, r.partition_id, r.lane
        )
        SELECT (SELECT count(*) FROM settled) AS held, array_agg(subscription_id) AS subscription_ids,
               array_agg(partition_id) AS partition_ids, array_agg(lane) AS lanes
        INTO lanes
        FROM retried WHERE lane IS NOT NULL;
        held := held + lanes.held;
        IF held IS DISTINCT FROM cardinality(leases) THEN
            PERFORM outbox.raise_lease_lost(worker, leases);
        END IF;
        PERFORM outbox.leave_lanes(lanes.subscription_ids, lanes.partition_ids, lanes.lanes);
        RETURN;
    END IF;

    IF cardinality(settle.offsets) <> cardinality(leases) THEN
        RAISE EXCEPTION 'settle got % leases and % offsets: the arrays must be of one length',
            cardinality(leases), cardinality(settle.offsets) USING ERRCODE = 'OB007';
    END IF;
    PERFORM FROM outbox.lease l WHERE l.id = ANY (leases) AND l.worker_id = worker ORDER BY l.id FOR UPDATE;
    SELECT count(DISTINCT l.id) INTO held
    FROM unnest(leases, settle.offsets) AS asked (id, offsets)
    CROSS JOIN LATERAL (SELECT l.* FROM outbox.lease l WHERE l.id = asked.id AND l.worker_id = worker OFFSET 0) AS l
    WHERE asked.offsets IS NULL OR asked.offsets <@ l.offsets AND NOT isempty(asked.offsets);
    IF held IS DISTINCT FROM cardinality(leases) THEN
        PERFORM outbox.raise_lease_lost(worker, leases);
    END IF;
    IF failures IS NOT NULL THEN
        PERFORM outbox.fail(worker, leases, settle.offsets, failures);
    END IF;
    WITH asked AS MATERIALIZED (  -- by ctid from here on: a join by id may be made by a scan of all leases, dead ones included
        SELECT l.ctid AS row, coalesce(a.offsets, l.offsets) AS offsets
        FROM unnest(leases, settle.offsets) AS a (id, offsets)
        CROSS JOIN LATERAL (SELECT l.ctid, l.offsets FROM outbox.lease l WHERE l.id = a.id OFFSET 0) AS l
    ), settled AS (
        DELETE FROM outbox.lease l USING asked WHERE l.ctid = asked.row AND asked.offsets = l.offsets RETURNING l.*
    ), kept AS (
        UPDATE outbox.lease l SET offsets = l.offsets - asked.offsets
        FROM asked WHERE l.ctid = asked.row AND asked.offsets <> l.offsets
    ), retried AS (
        DELETE FROM outbox.redelivery r USING settled s
        CROSS JOIN LATERAL outbox.redelivery_of(s.subscription_id, s.partition_id, lower(s.offsets), s.id) AS own (row)
        WHERE s.redelivered AND r.ctid = own.row
        RETURNING r.subscription_id, r.partition_id, r.lane
    )
    SELECT array_agg(subscription_id) AS subscription_ids, array_agg(partition_id) AS partition_ids, array_agg(lane) AS lanes
    INTO lanes
    FROM retried WHERE lane IS NOT NULL;
    PERFORM outbox.leave_lanes(lanes.subscription_ids, lanes.partition_ids, lanes.lanes);
END $$;
