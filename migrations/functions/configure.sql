-- Changes settings of a subscription: those that "settings" names, by the names of the columns of outbox.subscription; a null sets
-- the default. Durations are seconds, or an interval's text. Returns whether anything was changed.
CREATE FUNCTION outbox.configure(subscription text, settings jsonb) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known outbox.subscription;
    wanted outbox.subscription;
    defaults jsonb := '{"ttl": null, "expired": "drop", "rate": null, "burst": null, "max_backlog": null, "overflow": "drop-oldest",
        "backlog": "hold", "exclusive": false, "fair": false, "ageing": "1 minute", "dead_letter_topic": null, "dead_letter_ttl": null}';
    strange text;
BEGIN
    SELECT * INTO known FROM outbox.subscription s WHERE s.name = configure.subscription FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" does not exist', configure.subscription
            USING ERRCODE = 'OB004', HINT = 'Create it with outbox.subscribe().';
    END IF;
    IF jsonb_typeof(settings) <> 'object' THEN
        RAISE EXCEPTION 'settings are names and values, not %', settings USING ERRCODE = 'OB007', HINT = '{"rate": 10}';
    END IF;
    SELECT string_agg(name, ', ') INTO strange FROM jsonb_object_keys(settings) AS name WHERE NOT defaults ? name;
    IF strange IS NOT NULL THEN
        RAISE EXCEPTION 'a subscription has no setting %', strange
            USING ERRCODE = 'OB007', HINT = 'There are: ' || (SELECT string_agg(name, ', ') FROM jsonb_object_keys(defaults) AS name);
    END IF;
    wanted := jsonb_populate_record(known, (
        SELECT jsonb_object_agg(name, CASE value WHEN 'null' THEN defaults -> name ELSE value END) FROM jsonb_each(settings) AS s (name, value)));
    IF wanted IS NOT DISTINCT FROM known THEN
        RETURN false;
    END IF;
    UPDATE outbox.subscription s
    SET (ttl, expired, rate, burst, max_backlog, overflow, backlog, exclusive, fair, ageing, dead_letter_topic, dead_letter_ttl)
      = ROW (wanted.ttl, wanted.expired, wanted.rate, wanted.burst, wanted.max_backlog, wanted.overflow, wanted.backlog,
             wanted.exclusive, wanted.fair, wanted.ageing, wanted.dead_letter_topic, wanted.dead_letter_ttl)
    WHERE s.id = known.id;
    IF wanted.dead_letter_topic IS NOT NULL AND NOT EXISTS (
        SELECT FROM outbox.topic t WHERE t.name = wanted.dead_letter_topic) THEN  -- and not when the first letter is settled
        PERFORM outbox.declare_topic(wanted.dead_letter_topic);
    END IF;
    PERFORM outbox.note_bindings();
    RETURN true;
EXCEPTION
    WHEN check_violation OR invalid_text_representation OR invalid_datetime_format OR numeric_value_out_of_range THEN
        RAISE EXCEPTION 'subscription "%" can''t be configured so: %', configure.subscription, SQLERRM
            USING ERRCODE = 'OB007', HINT = 'outbox.subscription''s comments say what each setting takes.';
END $$;
