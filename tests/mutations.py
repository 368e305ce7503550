"""Deliberate faults in the engine, one line each, and the test that catches each.

    python -m tests.mutations [part of a name]

Each is made in a copy of the checkout; its test must fail there, and passes here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.shop_floor import ROOT


class Mutation(NamedTuple):
    name: str
    #: In `migrations/functions`.
    file: str
    old: str
    new: str
    #: In `tests`.
    caught_by: str


PULL, SETTLE, SEEK = "engine/test_pull.py::test_", "engine/test_settle.py::test_", "engine/test_bind_and_seek.py::test_"
DEFINE = "engine/test_define.py::test_"
KEYS, ORDER, ROTATE = "engine/test_keys.py::test_", "engine/test_ordered.py::test_", "engine/test_rotate.py::test_"
REPLY = "engine/test_reply_to.py::test_"
DEAD = "engine/test_dead_letters.py::test_"
ALTER, BACKFILL = "engine/test_alter_topic.py::test_", "engine/test_backfill.py::test_"
REPLAY, STARTS = "engine/test_replay.py::test_", "engine/test_starts.py::test_"
READ = "engine/test_read.py::test_"
CAPTURE = "engine/test_capture.py::test_"
RETENTION = "engine/test_retention.py::test_"
ROUTING, FLOW = "engine/test_routing.py::test_", "engine/test_flow.py::test_"

MUTATIONS = [
    Mutation(
        "a publisher draws its offset before its xid",
        "publish.sql",
        """    xid := pg_current_xact_id();
    partition_id := home;
    "offset" := nextval(sequence);
""",
        """    partition_id := home;
    "offset" := nextval(sequence);
    xid := pg_current_xact_id();
""",
        "engine/test_publish.py::test_a_publisher_draws_its_xid_before_its_offset",
    ),
    Mutation(
        "transactions beyond the snapshot's end are not counted as open",
        "open_xids.sql",
        "own - 1) AS unlisted",
        "0) AS unlisted",
        PULL + "a_transaction_that_was_open_beyond_the_snapshots_end_is_not_lost",
    ),
    Mutation(
        "a pull may run in a transaction that has an xid",
        "require_own_transaction.sql",
        "IF pg_current_xact_id_if_assigned() IS NOT NULL THEN",
        "IF false THEN",
        PULL + "pull_bind_and_seek_refuse_a_transaction_that_wrote_before",
    ),
    Mutation(
        "late messages that were taken do not raise their floor",
        "move_position.sql",
        "array_agg(greatest(known.floor, caught.last))",
        "array_agg(known.floor)",
        PULL + "a_huge_late_transaction_comes_in_order_and_in_limits_before_what_came_after_it",
    ),
    Mutation(
        "late messages beyond the limit are forgotten",
        "move_position.sql",
        " OR some_wait;",
        ";",
        PULL + "late_messages_of_several_transactions_within_small_limits_are_neither_lost_nor_doubled",
    ),
    Mutation(
        "a cursor goes to the end of the log though a limit fell before it",
        "take.sql",
        "CASE WHEN NOT is_full THEN piece.ended END",
        "piece.ended",
        PULL + "a_pull_takes_no_more_bytes_than_it_is_asked_to_but_for_the_last_message",
    ),
    Mutation(
        "a cursor goes to the end of the log though a limit fell before it, in the usual case",
        "take_turn.sql",
        "CASE WHEN NOT is_full THEN ended END",
        "ended",
        PULL + "a_huge_late_transaction_comes_in_order_and_in_limits_before_what_came_after_it",
    ),
    Mutation(
        "the usual case hands out what is too old",
        "take_turn.sql",
        "piece.may_expire = 0 AND ",
        "",
        FLOW + "a_message_that_is_too_old_is_not_delivered",
    ),
    Mutation(
        "the usual case forgets late messages",
        "take_turn.sql",
        "WHERE t.open <> '{}'\n",
        "WHERE false\n",
        PULL + "a_transaction_that_was_open_beyond_the_snapshots_end_is_not_lost",
    ),
    Mutation(
        "rows of another cluster's transactions count as late",
        "move_position.sql",
        'greatest(coalesce(known.floor, "offset"), earlier.last)',
        'coalesce(known.floor, "offset")',
        "crash/test_restore.py::test_a_restored_backlog_is_delivered_once_though_its_xids_come_again",
    ),
    Mutation(
        "the position before is found by a part of its key",
        "move_position.sql",
        "WHERE old.ctid = place;",
        "WHERE old.subscription_id + 0 = reader AND old.partition_id = move_position.partition_id "
        'AND old."offset" < reached;',
        "engine/test_dead_rows.py::test_no_step_of_a_message_touches_more_pages_after_thousands_of_dead_rows",
    ),
    Mutation(
        "a pull does not wait for its turn",
        "pull_batches.sql",
        "IF pg_try_advisory_xact_lock(outbox.turn_lock(reader.id, candidates[i])) THEN",
        "IF true THEN",
        PULL + "a_partition_that_another_pull_is_reading_is_skipped_without_waiting",
    ),
    Mutation(
        "turns of different subscriptions are one lock",
        "turn_lock.sql",
        "hashint8extended(partition_id, hashint8extended(subscription_id, 8031453476610899968))",
        "hashint8extended((subscription_id::bigint << 32) | partition_id, 8031453476610899968)",
        PULL + "a_turn_is_of_one_subscription_and_one_partition",
    ),
    Mutation(
        "a lease can be settled by anybody",
        "settle.sql",
        "DELETE FROM outbox.lease l WHERE l.id = ANY (leases) AND l.worker_id = worker RETURNING l.*",
        "DELETE FROM outbox.lease l WHERE l.id = ANY (leases) RETURNING l.*",
        SETTLE + "a_lease_can_be_settled_by_its_owner_only_and_only_once",
    ),
    Mutation(
        "a failed redelivery spends no attempt",
        "fail.sql",
        "SET attempt = w.attempt + w.charge, due_at",
        "SET attempt = w.attempt, due_at",
        "engine/test_state_machine.py::test_the_engine_does_what_its_model_does",
    ),
    Mutation(
        "a dead worker is forgotten at once",
        "recover.sql",
        "interval '1 minute'\n           AND dead.retired_xid < pg_snapshot_xmin(pg_current_snapshot())",
        "interval '0'",
        SETTLE + "a_pull_that_commits_after_its_worker_was_retired_hides_no_lease",
    ),
    Mutation(
        "the first crash is charged to all that the worker held",
        "hand_back.sql",
        "died AND r.suspect AS charged",
        "died AS charged",
        "engine/test_state_machine.py::test_the_engine_does_what_its_model_does",
    ),
    Mutation(
        "a seek forgets the late messages that wait below it",
        "move_cursors.sql",
        "WHERE keep_late",
        "WHERE false",
        SEEK + "seek_does_not_forget_late_messages_that_wait_to_be_pulled",
    ),
    Mutation(
        "a newcomer does not wait for what is open when it is bound",
        "place.sql",
        "coalesce(array_agg(coalesce(old.last, 0)), '{}')",
        "coalesce(array_agg(place.target), '{}')",
        SEEK + "a_newcomer_gets_what_was_open_when_it_was_bound",
    ),
    Mutation(
        "a key in an earlier slot that is still being written is overlooked",
        "enter_slot.sql",
        "        writes := writes || old;\n",
        "",
        KEYS + "a_transaction_that_is_open_over_a_change_of_slots_is_waited_for",
    ),
    Mutation(
        "keys are written in the order in which they come",
        "claim_keys.sql",
        "            ORDER BY k.key\n",
        "",
        KEYS + "concurrent_bulks_with_the_same_keys_in_any_order_do_not_deadlock",
    ),
    Mutation(
        "whatever was published with a key is shown as a reply",
        "reply_to.sql",
        "m.headers ->> 'correlation-id' = reply_to.correlation_id",
        "true",
        REPLY + "what_is_no_reply_is_not_shown_to_who_guesses_its_idempotency_key",
    ),
    Mutation(
        "a reply is looked for among the keys of today",
        "reply_to.sql",
        "generate_series(-1, least(",
        "generate_series(0, 0 * least(",
        REPLY + "a_reply_of_an_earlier_slot_of_keys_is_found",
    ),
    Mutation(
        "an ordered partition is pulled while its batch is in flight",
        "is_in_order.sql",
        "NOT EXISTS (SELECT FROM outbox.lease l WHERE l.id = last.lease_id)",
        "true",
        ORDER + "a_partition_waits_while_its_batch_is_in_flight",
    ),
    Mutation(
        "a message of a parked key is handed out",
        "take.sql",
        "WHEN on_failure = 'park' AND w.key IS NOT NULL AND",
        "WHEN false AND",
        ORDER + "park_lets_other_keys_pass_and_keeps_the_order_of_the_key",
    ),
    Mutation(
        "a settlement that empties a lane does not wait for the turn",
        "leave_lanes.sql",
        "    PERFORM outbox.take_turns(subscription_ids, partition_ids);\n",
        "",
        ORDER + "a_message_parked_while_its_predecessor_is_settled_is_not_forgotten",
    ),
    Mutation(
        "rotation does not ask again when it has the lock",
        "truncate_slot.sql",
        "        EXECUTE held_by INTO holder;  -- now that nobody has rows in it that we can't see\n",
        "",
        ROTATE + "a_message_that_commits_while_rotation_waits_for_its_lock_is_not_lost",
    ),
    Mutation(
        "rotation does not mind leases",
        "slot_holder.sql",
        "WHERE NOT l.redelivered AND EXISTS",
        "WHERE false AND EXISTS",
        ROTATE + "a_slot_is_held_by_a_lease",
    ),
    Mutation(
        "a dead-letter topic that can't be published to fails the settlement",
        "bury.sql",
        "EXCEPTION WHEN OTHERS THEN",
        "EXCEPTION WHEN division_by_zero THEN",
        DEAD + "a_dead_letter_topic_that_cannot_be_published_to_loses_nothing_and_stops_no_settlement",
    ),
    Mutation(
        "a message goes round by dead-letter topics for ever",
        "publish_dead_letters.sql",
        "AND d.headers ->> 'dead-letter-subscription' IS DISTINCT FROM s.name",
        "",
        DEAD + "a_dead_letter_that_comes_back_by_a_circle_of_topics_is_kept",
    ),
    Mutation(
        "a redrive that is late is due so long ago that nobody looks",
        "raise_dead.sql",
        "greatest(clock_timestamp() - interval '1 second', due_from + coalesce(",
        "greatest('-infinity', due_from + coalesce(",
        DEAD + "a_redrive_that_is_late_is_due_now_and_not_before",
    ),
    Mutation(
        "a definition takes away bindings before it brings new ones",
        "define_one.sql",
        "    reader := outbox.subscribe(",
        """    PERFORM outbox.unbind(wanted ->> 'name', b ->> 'pattern')
    FROM jsonb_array_elements(wanted -> 'unbind') AS b;
    reader := outbox.subscribe(""",
        DEFINE + "cursors_stay_where_they_are_when_a_binding_is_changed",
    ),
    Mutation(
        "a definition forgets the transactions that are open",
        "define.sql",
        "SELECT outbox.open_xids(pg_current_snapshot()) AS xids",
        "SELECT '{}'::xid8[] AS xids",
        DEFINE + "a_defined_subscription_starts_with_the_history_or_with_what_comes_next",
    ),
    Mutation(
        "an unbind locks the subscription before it has its turns",
        "unbind.sql",
        "HAVING count(*) > 0;",
        "HAVING false;",
        DEFINE + "an_unbind_waits_for_a_pull_and_leaves_no_position",
    ),
    Mutation(
        "an adoption does not mind an unbind",
        "adopt.sql",
        "    PERFORM FROM outbox.subscription s WHERE s.id = adopt.subscription_id FOR KEY SHARE;\n",
        "",
        DEFINE + "an_adoption_that_meets_an_unbind_leaves_no_cursor_behind",
    ),
    Mutation(
        "a removal looks once",
        "unsubscribe.sql",
        "EXIT WHEN found_leases + found_redeliveries = 0;",
        "EXIT;",
        DEFINE + "a_removal_waits_for_settlements_and_pulls_and_leaves_nothing_of_theirs",
    ),
    Mutation(
        "a definition locks subscriptions before it has its turns",
        "define.sql",
        "    -- 1. The turns",
        """    PERFORM outbox.lock_subscriptions(ARRAY(SELECT s.name FROM outbox.subscription s));
    -- 1. The turns""",
        DEFINE + "a_definition_that_removes_waits_for_pulls_before_publishers_could_wait_for_it",
    ),
    Mutation(
        "a pull that passed over all that it read has taken all there was",
        "take.sql",
        " OR was_read = max_read OR ",
        " OR ",
        ROUTING + "more_late_messages_than_a_pull_reads_are_all_judged",
    ),
    Mutation(
        "what is passed over counts as handed out",
        "take.sql",
        "CASE WHEN f.fate IS DISTINCT FROM 'pass over'\n",
        "CASE WHEN true\n",
        ROUTING + "a_pull_of_one_finds_the_one_that_fits_among_many",
    ),
    Mutation(
        "an alternate takes what others take",
        "fits.sql",
        "AND NOT outbox.fits_any(conditions -> 'others', headers, payload)",
        "",
        ROUTING + "an_alternate_gets_what_nobody_else_takes",
    ),
    Mutation(
        "a rate is spent without its turn",
        "pull_batches.sql",
        "IF NOT pg_try_advisory_xact_lock(outbox.turn_lock(reader.id, 0)) THEN",
        "IF false THEN",
        FLOW + "no_message_is_handed_out_beyond_the_rate_while_another_pull_is_under_way",
    ),
    Mutation(
        "redeliveries are free of the rate",
        "pull_batches.sql",
        "given := given + cardinality(piece.offsets);",
        "given := given + CASE WHEN piece.redelivered THEN 0 ELSE cardinality(piece.offsets) END;",
        FLOW + "redeliveries_count_for_the_rate",
    ),
    Mutation(
        "a dead owner keeps an exclusive subscription",
        "owns.sql",
        " AND w.alive_until > clock_timestamp()",
        "",
        FLOW + "the_owner_that_died_is_followed_by_another",
    ),
    Mutation(
        "who cancels does not wait for a pull that is under way",
        "untaken.sql",
        "PERFORM outbox.take_turns(array_agg(c.subscription_id), array_agg(c.partition_id))",
        "PERFORM count(*)",
        FLOW + "who_cancels_waits_for_the_pull_that_is_under_way",
    ),
    Mutation(
        "a purge forgets the transactions that are open",
        "move_cursors.sql",
        "SELECT outbox.open_xids(pg_current_snapshot()) AS xids",
        "SELECT '{}'::xid8[] AS xids",
        FLOW + "purge_drops_what_waits_and_nothing_else",
    ),
    Mutation(
        "a full backlog rejects nothing in bulk",
        "publish_many.sql",
        "IF route.guards IS NOT NULL THEN",
        "IF false THEN",
        FLOW + "a_full_backlog_can_reject_a_publish",
    ),
    Mutation(
        "a redelivery that is too old comes all the same",
        "take_due.sql",
        "WHERE outbox.is_expired(r.expires_at, r.published_at, reader.ttl, now)) THEN",
        "WHERE false) THEN",
        FLOW + "a_redelivery_that_is_too_old_is_not_delivered_and_makes_room",
    ),
    Mutation(
        "new partitions are read before the old ones",
        "pull_batches.sql",
        "IF candidates[i] = ANY (waiting_ones) THEN",
        "IF false THEN",
        ALTER + "what_was_published_before_comes_before_what_comes_after",
    ),
    Mutation(
        "new partitions don't wait for late messages of the old ones",
        "older_is_read.sql",
        "OR NOT p.open <@ ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot()))",
        "",
        ALTER + "the_new_partitions_wait_for_a_transaction_that_publishes_to_the_old_ones",
    ),
    Mutation(
        "new partitions don't wait for what the old ones have in flight",
        "older_is_read.sql",
        "reader.on_failure IS NOT NULL",
        "false",
        ALTER + "an_ordered_subscription_reads_the_new_ones_when_the_old_are_settled",
    ),
    Mutation(
        "a backfill forgets who committed between its snapshot and its look at the log",
        "start_backfill.sql",
        "running := outbox.open_xids(pg_current_snapshot());",
        "running := ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot()));",
        BACKFILL + "a_snapshot_that_was_taken_before_is_the_cut",
    ),
    Mutation(
        "the rows of an earlier backfill come again",
        "drop_cursors.sql",
        "SET backfill_for = 0",
        "SET backfill_for = backfill_for",
        BACKFILL + "bound_again_it_can_be_filled_again_and_gets_the_rows_once",
    ),
    Mutation(
        "what commits late is replayed, too, and comes twice",
        "replay.sql",
        'o.xid = m.xid AND o.floor < m."offset"',
        "false",
        REPLAY + "what_is_to_come_anyway_is_not_replayed",
    ),
    Mutation(
        "what is in a worker's hands is replayed, too",
        "replay.sql",
        'coalesce(s.in_hand @> m."offset", false) OR ',
        "",
        REPLAY + "what_waits_or_is_in_hand_is_skipped",
    ),
    Mutation(
        "what was replayed and expires is dropped",
        "replay.sql",
        "f.body, 'infinity'",
        "f.body, f.expires_at",
        REPLAY + "neither_ttl_nor_age_ends_a_replay_but_what_was_cancelled_stays_so",
    ),
    Mutation(
        "what was replayed blocks its partition",
        "is_in_order.sql",
        " AND r.lane IS NOT NULL",
        "",
        REPLAY + "a_replay_holds_up_nothing_of_an_ordered_subscription",
    ),
    Mutation(
        "the place of a time is looked up as if times ascended",
        "offset_at.sql",
        "at - interval '10 seconds'",
        "at",
        STARTS + "the_offset_of_a_time_is_exact_among_holes_and_times_that_are_out_of_order",
    ),
    Mutation(
        "a reader forgets late messages beyond the limit",
        "next_place.sql",
        " OR next_place.ended IS NULL;",
        ";",
        READ + "late_messages_of_several_transactions_within_small_limits_are_neither_missed_nor_doubled",
    ),
    Mutation(
        "late messages that a reader saw do not raise their floor",
        "next_place.sql",
        """greatest(known.floor, caught."offset")""",
        "known.floor",
        READ + "a_huge_late_transaction_comes_in_limits_and_before_what_came_after_it",
    ),
    Mutation(
        "a reader takes rows of another cluster's transactions for late ones",
        "next_place.sql",
        """greatest(coalesce(known.floor, start), caught."offset")""",
        "coalesce(known.floor, start)",
        "crash/test_restore.py::test_a_reader_goes_on_in_a_restored_log_though_its_xids_come_again",
    ),
    Mutation(
        "a reader goes to the end of the log though a limit fell before it",
        "read.sql",
        "CASE WHEN late_rows < share AND fresh_rows < share THEN piece.ended END",
        "piece.ended",
        READ + "hundreds_of_partitions_are_read_whole",
    ),
    Mutation(
        "a reader reads on though late messages wait",
        "read.sql",
        "CONTINUE WHEN NOT is_late AND late_rows = share;",
        "",
        READ + "late_messages_of_a_partition_come_before_what_came_after_them_beside_a_busy_one",
    ),
    Mutation(
        "a reader does not wait for the generation before",
        "read.sql",
        "EXIT WHEN turns.generations[piece.nth] > stopped;",
        "",
        READ + "a_generation_is_read_when_those_before_it_were",
    ),
    Mutation(
        "a reader may look in a transaction that has an xid",
        "read.sql",
        "PERFORM outbox.require_own_transaction('read');",
        "",
        READ + "a_read_refuses_a_transaction_that_wrote_before_and_other_isolation_levels",
    ),
    Mutation(
        "new keys come before old ones go",
        "publish_changes.sql",
        "operation := CASE pass WHEN 1 THEN 'delete' ELSE 'insert' END;",
        "operation := CASE pass WHEN 2 THEN 'delete' ELSE 'insert' END;",
        CAPTURE + "a_row_whose_key_changes_is_deleted_and_inserted",
    ),
    Mutation(
        "a change of a row that got its key in the same statement is published before it is there",
        "publish_changes.sql",
        "(pass = 1) <> (first_moved IS NULL OR nth < first_moved)",
        "pass = 2",
        CAPTURE + "cascades_are_published_though_they_change_a_row_twice",
    ),
    Mutation(
        "the key of a change depends on the session's settings",
        "publish_changes.sql",
        "SET timezone = 'UTC'\n",
        "",
        CAPTURE + "values_are_shown_as_json_whatever_the_session_is_set_to",
    ),
    Mutation(
        "a cast of the application is run with our rights",
        "column_of_change.sql",
        "CASE WHEN t.oid < 16384 OR",
        "CASE WHEN true OR",
        "library/test_capture.py::test_a_cast_of_the_application_is_not_run_with_our_rights",
    ),
    Mutation(
        "a publisher that knows of no change has its slot emptied too soon",
        "slots_of.sql",
        "greatest(over_at, outbox.newest_in(leaf) + keep)",
        "over_at",
        RETENTION + "a_publisher_that_does_not_know_of_the_new_time_loses_nothing_by_it",
    ),
    Mutation(
        "a slot is over by a time that was not its own",
        "written_until.sql",
        "class.changed_at) END",
        "'-infinity') END",
        RETENTION + "a_class_that_keeps_messages_for_longer_now_keeps_what_it_has_for_longer",
    ),
    Mutation(
        "what is too large goes from its second oldest slot on",
        "slots_due.sql",
        "oldest := false;",
        "",
        RETENTION + "what_is_too_large_is_held_all_the_same_and_nothing_younger_goes_instead",
    ),
    Mutation(
        "late messages that are lost are not counted",
        "note_losses.sql",
        'm."offset" > o.floor AND',
        "false AND",
        RETENTION + "late_messages_that_go_before_they_are_taken_are_counted",
    ),
    Mutation(
        "what is carried forward counts as lost",
        "note_losses.sql",
        "NOT (t.compact AND",
        "NOT (false AND",
        RETENTION + "a_message_that_is_carried_forward_is_not_lost",
    ),
    Mutation(
        "what commits while messages are carried forward goes",
        "finish_slot.sql",
        "IF since IS NOT NULL THEN",
        "IF false THEN",
        RETENTION + "what_commits_while_messages_are_carried_forward_is_carried_too",
    ),
    Mutation(
        "a message can be changed while it is carried forward",
        "carry_forward.sql",
        "        FOR SHARE OF m\n",
        "",
        RETENTION + "a_message_that_is_cancelled_while_it_is_carried_forward_stays_where_it_is",
    ),
    Mutation(
        "a null goes though an older message lies elsewhere",
        "carry_forward.sql",
        "ELSE e.last <",
        "ELSE NOT n.ends_key AND e.last <",
        RETENTION + "an_older_message_does_not_come_back_when_its_null_goes_first",
    ),
    Mutation(
        "a slot that is about to be written is locked",
        "slots_of.sql",
        " OR slot = next OR",
        " OR",
        RETENTION + "a_slot_that_will_be_written_within_a_second_is_left_alone",
    ),
    Mutation(
        "a failure of a message that is gone can't be settled",
        "fail.sql",
        "(SELECT count(*) FROM failed f WHERE NOT f.redelivered)",
        "count(*) FILTER (WHERE NOT redelivered)",
        "crash/test_unlogged.py::test_leases_whose_messages_a_crash_took_end_like_others",
    ),
]


#: For the state machine: a rare failure is enough, and need not be small.
_LOOK_LONGER = {"OUTBOX_HYPOTHESIS_EXAMPLES": "600", "OUTBOX_HYPOTHESIS_SHRINK": "0"}


def is_caught(mutation: Mutation, folder: Path) -> bool:
    """Make the fault in a copy of the checkout and run its test there."""
    path = folder / "migrations" / "functions" / mutation.file
    sound = path.read_text()
    path.write_text(sound.replace(mutation.old, mutation.new))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{mutation.caught_by}"]
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **_LOOK_LONGER, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode in (0, 1), result.stdout + result.stderr
        return result.returncode == 1
    finally:
        path.write_text(sound)


def main(part: str = "") -> int:
    """Try all whose name has a part in it; returns how many were not caught."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="outbox-mutations-") as temporary:
        folder = Path(temporary) / "checkout"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "*.egg-info"))
        for mutation in (m for m in MUTATIONS if part in m.name):
            caught = is_caught(mutation, folder)
            survived += not caught
            print("caught  " if caught else "SURVIVED", mutation.name, flush=True)
    return survived


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
