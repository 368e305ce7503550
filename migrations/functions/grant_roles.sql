-- Gives the roles outbox_publisher, outbox_worker, outbox_monitor and outbox_admin what each needs and no more, as far as they
-- exist; with create_missing it creates them (NOLOGIN), which needs CREATEROLE. Run it as the owner of the schema. Grant the
-- roles to your own: GRANT outbox_publisher TO shop. Returns the roles that have what they need.
CREATE FUNCTION outbox.grant_roles(create_missing boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    publishing text[] := '{schema_version,publish,publish_many,declare_topic,once}';
    working text[] := publishing || '{register,heartbeat,pull,settle,release,retire,recover,adopt,subscribe,bind,rotate,mend_lanes,wake_lock}';
    watching text[] := '{schema_version,log_end,wake_lock,key_slot}';
    administering text[] := working || watching || '{seek,redrive,rotate_keys}';
    static text := 'outbox.retention, outbox.topic, outbox.partition, outbox.subscription, outbox.binding, outbox.cursor';
    role text;
    granted text[] := '{}';
    allowed text;
BEGIN
    FOREACH role IN ARRAY '{outbox_publisher,outbox_worker,outbox_monitor,outbox_admin}'::text[] LOOP
        IF create_missing AND to_regrole(role) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        CONTINUE WHEN to_regrole(role) IS NULL;
        EXECUTE format('GRANT USAGE ON SCHEMA outbox TO %I', role);
        FOR allowed IN
            SELECT p.oid::regprocedure::text FROM pg_proc p
            WHERE p.pronamespace = 'outbox'::regnamespace AND p.proname = ANY (
                CASE role WHEN 'outbox_publisher' THEN publishing WHEN 'outbox_worker' THEN working
                          WHEN 'outbox_monitor' THEN watching ELSE administering END)
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', allowed, role);
        END LOOP;
        CASE role
            WHEN 'outbox_worker' THEN
                EXECUTE format('GRANT SELECT ON %s, outbox.lease, outbox.worker TO %I', static, role);
            WHEN 'outbox_monitor' THEN
                EXECUTE format('GRANT SELECT ON %s, outbox.position, outbox.lease, outbox.worker, outbox.lag, outbox.in_flight TO %I',
                               static, role);
                EXECUTE format('GRANT SELECT (slot, partition_id, "offset", xid, published_at) ON outbox.message TO %I', role);
                EXECUTE format('GRANT SELECT (subscription_id, partition_id, "offset", attempt, due_at, lease_id, suspect, published_at)
                                ON outbox.redelivery TO %I', role);
                EXECUTE format('GRANT SELECT (subscription_id, partition_id, "offset", attempt, reason, died_at, published_at)
                                ON outbox.dead_letter TO %I', role);
                EXECUTE format('GRANT SELECT (slot, expires_at) ON outbox.deduplication, outbox.inbox TO %I', role);
            WHEN 'outbox_admin' THEN
                EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA outbox TO %I', role);
            ELSE NULL;
        END CASE;
        granted := granted || role;
    END LOOP;
    RETURN granted;
END $$;
