"""The log: topics, messages, subscriptions, leases, redeliveries, dead letters, workers, keys, roles."""

from outbox.ddl import create, drop_everything, execute

revision = "0001"
down_revision = None

TABLES = """
retention topic partition message subscription binding cursor position lease redelivery dead_letter worker
deduplication inbox scheduled schedule tick allowance loss owner capture relay producer source_position
result counter
"""

FUNCTIONS = """
schema_version wake_lock turn_lock key_hash partition_number topic_matches require_own_transaction log_end open_xids
subscription_id place older_partitions has_older without_cursor guards_of has_conditions adopt note_bindings
create_partition note_homes note_slots create_partitions declare_topic alter_topic
subscribe configure check_filter filter_problem require_read_committed lock_subscriptions take_turns partitions_of
offset_at parse_start start_target require_one_partition bind chosen_partitions move_cursors seek seek_to
drop_cursors unbind unsubscribe define_one define
nobody_sleeps wake slot route start_backfill add_to_backfill backfill
key_slot slot_lock enter_slot known_key known_keys claim_keys once
require_room publish publish_unique publish_many
lane_of lane_is_taken is_next is_in_order leave_lanes stuck_lanes mend_lanes change_order
redelivery_of messages reply_to
news older_is_read backlog has_more new_lease_id late
conditions fits_filter fits_any fits
place_in place_of next_place unread read read_from
add_error publish_dead_letters bury
again_in lease_batch move_position take_turn take history_of is_expired expire_redeliveries take_due
owns has_priorities in_turn left_over spend kept_from allotted
pull_batches pull pause resume purge
count_messages is_waiting replay_ranges replay
who_gets untaken cancel edit
fail raise_lease_lost settle hand_back release
register heartbeat mark_retired retire recover
letter_fits letter_filter dead_letters dead_letter_ids raise_dead redrive purge_dead expire_dead_letters
publish_later publish_scheduled publish_due cancel_scheduled edit_scheduled move_schedule
declare_schedule due_schedules next_tick_at publish_ticks tick_schedule note_schedule_error pause_schedule
resume_schedule run_schedule delete_schedule
column_of_change rows_of key_of_row plain_key publish_rows publish_changes
topic_of_changes capture_problem capture_statements change_triggers note_capture capture forget_capture uncapture
truncate_slot slot_holder written_until newest_in slots_of class_bytes is_too_large slots_due slot_keeper
compacted carry_forward carry_late note_losses finish_slot empty_slot rotate_keys rotate_as_of rotate
set_retention acknowledge_losses open_transactions
enlist unread_actors actors flush_queue result_slot store_result result_of rotate_results
add_counter move_counter move_counter_within counter_value expire_counters
note_relay open_producer dead_producers close_producer lock_source advance_source
begin_feed end_feed mark_once known_once detour detoured_keys move_feed fit_all
needed_grants grant_roles
"""

TYPES = "batch"

VIEWS = "lag in_flight dead_groups kept lost history"


def upgrade() -> None:
    for kind, names in ("tables", TABLES), ("types", TYPES), ("functions", FUNCTIONS), ("views", VIEWS):
        for name in names.split():
            create(kind, name)
    execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC")
    execute("SELECT outbox.grant_roles()")


def downgrade() -> None:
    drop_everything()
