-- What each of our roles needs, and no more: privileges on the schema, functions, tables, or some columns of a table. Internal:
-- grant_roles gives it, and `outbox doctor` looks whether it is there.
CREATE FUNCTION outbox.needed_grants() RETURNS TABLE (role text, kind text, object text, privileges text, columns text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    publishing text[] := '{schema_version,declare_topic,publish,publish_many,publish_later,once,reply_to}'::text[]
        || '{result_of,add_counter,move_counter,move_counter_within,counter_value}'::text[];
    working text[] := publishing
        || '{register,heartbeat,retire,recover,subscribe,configure,bind,adopt,pull,pull_batches,settle,release}'::text[]
        || '{rotate,mend_lanes,wake_lock,expire_dead_letters}'::text[]
        || '{enlist,store_result,rotate_results,expire_counters}'::text[]
        || '{publish_due,declare_schedule,due_schedules,next_tick_at,tick_schedule,note_schedule_error}'::text[]
        || '{note_relay,open_producer,dead_producers,close_producer,lock_source,advance_source,pause}'::text[]
        || '{begin_feed,end_feed,known_once,detoured_keys,move_feed,fit_all}'::text[];
    watching text[] := '{schema_version,log_end,wake_lock,key_slot,topic_matches,slots_due,stuck_lanes}'::text[]
        || '{open_transactions,needed_grants,filter_problem,who_gets,actors}'::text[];
    reading text[] := '{schema_version,read,read_from}';
    administering text[] := working || watching || reading
        || '{alter_topic,backfill,start_backfill,add_to_backfill}'::text[]
        || '{seek,seek_to,offset_at,count_messages,replay_ranges,replay}'::text[]
        || '{redrive,purge,flush_queue,pause,resume,cancel,edit,define,unbind,unsubscribe,rotate_keys,set_retention,acknowledge_losses}'::text[]
        || '{dead_letters,dead_letter_ids,purge_dead,cancel_scheduled,edit_scheduled}'::text[]
        || '{pause_schedule,resume_schedule,run_schedule,delete_schedule}'::text[]
        || '{capture,uncapture,capture_statements,capture_problem,topic_of_changes}'::text[]
        || '{change_triggers,note_capture,forget_capture,publish_changes}'::text[];
    static text[] := '{retention,topic,partition,subscription,binding,cursor}';
BEGIN
    RETURN QUERY
    SELECT r, 'SCHEMA', 'outbox', 'USAGE', NULL::text[]
    FROM unnest('{outbox_publisher,outbox_worker,outbox_monitor,outbox_reader,outbox_admin}'::text[]) AS r
    UNION ALL
    SELECT needs.role, 'FUNCTION', p.oid::regprocedure::text, 'EXECUTE', NULL
    FROM (VALUES ('outbox_publisher', publishing), ('outbox_worker', working),
                 ('outbox_monitor', watching), ('outbox_reader', reading), ('outbox_admin', administering)) AS needs (role, functions)
    JOIN pg_proc p ON p.pronamespace = 'outbox'::regnamespace AND p.proname = ANY (needs.functions)
    UNION ALL
    SELECT 'outbox_worker', 'TABLE', 'outbox.' || t, 'SELECT', NULL
    FROM unnest(static || '{lease,worker,lost,source_position}') AS t
    UNION ALL
    SELECT 'outbox_monitor', 'TABLE', 'outbox.' || t, 'SELECT', NULL
    FROM unnest(static || '{position,lease,worker,capture,lag,in_flight,dead_groups,kept,loss,lost,relay,source_position}') AS t
    UNION ALL
    SELECT 'outbox_monitor', 'TABLE', 'outbox.' || t.name, 'SELECT', t.columns::text[]
    FROM (VALUES ('message', '{slot,partition_id,offset,xid,published_at}'),
                 ('redelivery', '{subscription_id,partition_id,offset,attempt,due_at,lease_id,suspect,published_at}'),
                 ('dead_letter', '{subscription_id,partition_id,offset,attempt,reason,died_at,published_at,error_class,place}'),
                 ('deduplication', '{slot,expires_at}'),
                 ('inbox', '{slot,expires_at}'),
                 ('scheduled', '{id,topic,due_at,priority,created_at,schedule,attempts}'),
                 ('schedule', '{id,name,cron,every,timezone,topic,priority,ttl,missed,revision,created_at,paused_at}'),
                 ('tick', '{schedule_id,next_at,last_at}')) AS t (name, columns)
    UNION ALL
    SELECT 'outbox_reader', 'TABLE', 'outbox.history', 'SELECT', NULL
    UNION ALL
    SELECT 'outbox_admin', 'TABLE', c.oid::regclass::text,
           CASE WHEN c.relname IN ('dead_letter', 'redelivery', 'subscription', 'binding', 'cursor', 'worker')
                THEN 'SELECT, DELETE' ELSE 'SELECT' END, NULL
    FROM pg_class c WHERE c.relnamespace = 'outbox'::regnamespace AND c.relkind IN ('r', 'p', 'v');
END $$;
