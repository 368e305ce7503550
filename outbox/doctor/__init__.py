"""Is all well? Every invariant that the database can show, a check each.

A check is an operation: whoever runs it gives each statement a short transaction of its own, so that no look holds
many locks. No check reads payloads, keys or headers, or walks the log. `outbox.cli.doctor` runs them all.
"""

from outbox.doctor import (
    captures,
    cursors,
    engine,
    leases,
    privileges,
    redeliveries,
    replication,
    schedules,
    settings,
    slots,
    transactions,
)
from outbox.doctor.finding import Check, Finding, Limits, Severity, ok, warning

#: If this is critical, nothing else can be looked at.
FIRST = engine.SCHEMA

CHECKS: tuple[Check, ...] = (
    FIRST,
    *cursors.CHECKS,
    *leases.CHECKS,
    *redeliveries.CHECKS,
    *schedules.CHECKS,
    *captures.CHECKS,
    *slots.CHECKS,
    *transactions.CHECKS,
    *privileges.CHECKS,
    *replication.CHECKS,
    *settings.CHECKS,
)

hindrance = engine.hindrance

__all__ = ["CHECKS", "FIRST", "Check", "Finding", "Limits", "Severity", "hindrance", "ok", "warning"]
