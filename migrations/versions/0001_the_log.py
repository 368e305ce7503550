"""The log: topics, messages, subscriptions, leases, redeliveries, dead letters, workers."""

from outbox.ddl import create, drop_everything

revision = "0001"
down_revision = None

TABLES = """
retention topic partition message subscription binding cursor position lease redelivery dead_letter worker
"""

FUNCTIONS = """
schema_version wake_lock turn_lock partition_number topic_matches require_own_transaction log_end open_xids place
create_partition adopt declare_topic subscribe bind seek wake route publish publish_many
redelivery_of messages news take take_due pull add_error fail raise_lease_lost settle hand_back release
register heartbeat mark_retired retire recover redrive
"""

VIEWS = "lag in_flight"


def upgrade() -> None:
    for kind, names in ("tables", TABLES), ("functions", FUNCTIONS), ("views", VIEWS):
        for name in names.split():
            create(kind, name)


def downgrade() -> None:
    drop_everything()
