-- Keeps why a worker could not compute the next tick of a schedule, for people to see; that worker tries again. Waits for nobody.
CREATE FUNCTION outbox.note_schedule_error(name text, revision int, error text) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    schedule_id int;
BEGIN
    SELECT s.id INTO schedule_id FROM outbox.schedule s
    WHERE s.name = note_schedule_error.name AND s.revision = note_schedule_error.revision
      AND s.error IS DISTINCT FROM note_schedule_error.error
    FOR UPDATE SKIP LOCKED;
    UPDATE outbox.schedule s SET error = note_schedule_error.error WHERE s.id = schedule_id;
END $$;
