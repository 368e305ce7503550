"""What does the log cost, and who holds what up?"""

from __future__ import annotations

from grafana.panels import Panel

ROWS = {
    "Who holds what up": (
        Panel(
            "Oldest transaction that writes",
            "Red: nothing that died since can be vacuumed. `outbox doctor` names the session; end it.",
            "s", {"max(outbox_oldest_transaction_with_xid_seconds)": "age"}, "number", 300, 900, 6,
        ),
        Panel(
            "Oldest transaction that reads",
            "Red: its snapshot keeps dead rows. `outbox doctor` names the session.",
            "s", {"max(outbox_oldest_transaction_without_xid_seconds)": "age"}, "number", 900, 3600, 6,
        ),
        Panel(
            "Oldest prepared transaction",
            "Red: its coordinator has forgotten it: COMMIT PREPARED or ROLLBACK PREPARED.",
            "s", {"max(outbox_oldest_prepared_transaction_seconds)": "age"}, "number", 300, 900, 6,
        ),
        Panel(
            "Slots that can't be emptied",
            "Red: a subscription or a lease still needs a slot whose time is over; below is who.",
            "short", {"count(max by (slot) (outbox_rotation_blocked) == 1) or "
            "vector(0)": "slots"}, "number", red=1, width=6,
        ),
        Panel(
            "Open transactions",
            "Ages. Red, and a line that rises for ever: one transaction; `outbox doctor` names its session, end it.",
            "s",
            {
                "max(outbox_oldest_transaction_with_xid_seconds)": "writes",
                "max(outbox_oldest_transaction_without_xid_seconds)": "reads",
                "max(outbox_oldest_prepared_transaction_seconds)": "prepared",
            },
            warn=300, red=900,
        ),
        Panel(
            "Slots overdue, and who holds them",
            "Red: the log grows. Let the subscription catch up, seek it on, delete it, or let its backlog expire.",
            "s",
            {
                "max by (retention, slot, holder, subscription) (outbox_rotation_overdue_seconds)":
                    "{{retention}} {{slot}} {{holder}} {{subscription}}"
            },
            warn=600, red=3600,
        ),
    ),
    "Size": (
        Panel(
            "Log by retention class",
            "It should level out when the first slots are emptied; `outbox retention` shows how long that is.",
            "bytes", {"sum by (retention) (max by (retention, slot) (outbox_slot_bytes))": "{{retention}}"},
        ),
        Panel(
            "Rows by slot",
            "One is written, the others wait for their time.",
            "short", {"max by (retention, slot) (outbox_slot_rows) > 0": "{{retention}} {{slot}}"},
        ),
        Panel(
            "Our tables",
            "With their indexes. `position`, `lease` and `worker` stay small; if they grow, vacuum is held up.",
            "bytes", {"max by (table) (outbox_table_bytes)": "{{table}}"},
        ),
        Panel(
            "Dead rows",
            "Red: vacuum is held up by an open transaction, or is off.",
            "short", {"max by (table) (outbox_table_dead_rows)": "{{table}}"}, warn=100_000, red=1_000_000,
        ),
        Panel(
            "Write-ahead log",
            "Bytes a second that the whole server writes.",
            "Bps", {"max(rate(outbox_wal_bytes_total[$__rate_interval]))": "WAL"},
        ),
        Panel(
            "Messages to come",
            "Published for later, and not due yet.",
            "short", {"max(outbox_scheduled_messages)": "messages"},
        ),
    ),
    "Head room": (
        Panel(
            "Queue of notifications",
            "Red: when it is full, commits fail. A session that listens has a transaction open: end it.",
            "percentunit", {"max(outbox_notification_queue_used_ratio)": "used"}, "number", 0.25, 0.5, 6,
        ),
        Panel(
            "Offsets",
            "How far the longest partition has used its numbers up. Red: publishes to it will fail soon: take another "
            "topic.",
            "percentunit", {"max(outbox_topic_offsets_used_ratio)": "used"}, "number", 0.5, 0.8, 6,
        ),
        Panel(
            "Scheduled overdue",
            "Red: a message for later is due and not published: does a worker run? `outbox scheduled list` shows "
            "errors.",
            "s", {"max(outbox_scheduled_overdue_seconds)": "overdue"}, "number", 60, 300, 6,
        ),
        Panel(
            "Schema outdated",
            "1: run `outbox migrate` before the next deploy.",
            "short", {"max(outbox_schema_outdated)": "outdated"}, "number", red=1, width=6,
        ),
        Panel(
            "Age of what is shown",
            "By statement of the exporter: one that takes long is run seldom.",
            "s", {"max by (reading) (outbox_reading_age_seconds)": "{{reading}}"},
        ),
        Panel(
            "Statements that fail",
            "0: a privilege is missing, or --timeout is too short: `outbox doctor` as the exporter's user.",
            "short", {"min by (reading) (outbox_reading_up)": "{{reading}}"}, red=1, less_is_worse=True,
        ),
    ),
}  # fmt: skip
