"""The log: topics, messages, subscriptions, leases, redeliveries, dead letters, workers, keys, roles."""

from outbox.ddl import create, drop_everything, execute

revision = "0001"
down_revision = None

TABLES = """
retention topic partition message subscription binding cursor position lease redelivery dead_letter worker
deduplication inbox
"""

FUNCTIONS = """
schema_version wake_lock turn_lock key_hash partition_number topic_matches require_own_transaction log_end open_xids
place create_partition without_cursor adopt declare_topic subscribe configure check_filter filter_problem bind seek
require_read_committed lock_subscriptions partitions_of drop_cursors unbind unsubscribe define_one define
wake slot route
key_slot slot_lock enter_slot known_keys claim_keys once publish publish_unique publish_many
lane_of lane_is_taken is_next is_in_order has_more take_turns leave_lanes stuck_lanes mend_lanes change_order
redelivery_of messages news new_lease_id late take take_due pull_batches pull
add_error fail raise_lease_lost settle hand_back release register heartbeat mark_retired retire recover redrive
truncate_slot slot_holder slots_due rotate_keys rotate_as_of rotate open_transactions needed_grants grant_roles
"""

TYPES = "batch"

VIEWS = "lag in_flight"


def upgrade() -> None:
    for kind, names in ("tables", TABLES), ("types", TYPES), ("functions", FUNCTIONS), ("views", VIEWS):
        for name in names.split():
            create(kind, name)
    execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC")
    execute("SELECT outbox.grant_roles()")


def downgrade() -> None:
    drop_everything()
