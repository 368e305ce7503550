"""`outbox doctor`: each thing that can be wrong is broken for real, found, and mended as the finding says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest
from typer.testing import CliRunner

from outbox.cli import app
from outbox.doctor import CHECKS, engine, settings
from tests.shop_floor import (
    Database,
    Pulled,
    drain,
    outbox,
    publish,
    pull,
    register,
    settle,
    subscribe,
    value,
    wait_for,
)


class Report(NamedTuple):
    found: list[dict[str, Any]]
    code: int

    def of(self, check: str) -> dict[str, Any]:
        """The only finding of a check."""
        of_check = [finding for finding in self.found if finding["check"] == check]
        assert len(of_check) == 1, self
        (finding,) = of_check
        return finding


WELL = Report([], 0)


def doctor(database: Database | str, *arguments: str) -> Report:
    """Run the command in this process; what is well is left out. The clusters of tests have fsync off."""
    url = database if isinstance(database, str) else database.url
    result = CliRunner().invoke(app, ["doctor", "-d", url, "--json", "--ignore", "fsync", *arguments])
    assert result.exit_code in (0, 1, 2), result.output
    findings = json.loads(result.stdout)
    for finding in findings:
        assert "\n" not in finding["what"] + (finding["mend"] or "")
    return Report([finding for finding in findings if finding["severity"] != "ok"], result.exit_code)


def mend(database: Database, finding: dict[str, Any]) -> None:
    """Run the SQL that a finding names, all but what has a gap to fill in."""
    with psycopg.connect(database.url, autocommit=True) as db:
        for statement in re.findall("`([A-Z][^`]*)`", finding["mend"]):
            if "…" not in statement:
                db.execute(statement)


def nack(db: psycopg.Connection[Any], worker: int, message: Pulled, delay: float = 3600) -> None:
    failures = json.dumps([{"lease": message.lease, "offset": message.offset, "delay": delay}])
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, [message.lease], failures))


def work(db: psycopg.Connection[Any], *payloads: str, **settings: Any) -> int:
    """Publish to `orders`, which `mailer` reads; returns a worker of it."""
    publish(db, "orders", *payloads, key="s3cret-key")
    subscribe(db, "mailer", "orders", **settings)
    return int(value(db, "SELECT outbox.register('host:1', '{mailer}', '1 hour')"))


def in_second_slot(db: psycopg.Connection[Any]) -> int:
    """Set the ring so that slot 1 is written, since long ago, and move what there is to the next one, which is due."""
    db.execute("UPDATE outbox.retention SET slot_width = make_interval(secs => floor(extract(epoch FROM now()) / 1.5))")
    db.execute("UPDATE outbox.message SET slot = 2, published_at = '1500-01-01'")
    return 2


@contextmanager
def role(database: Database, *granted: str) -> Iterator[str]:
    """A login role with a name of its own; yields its URL."""
    name = f"doctor_{database.name}_{database.postgres.port}"
    db = database.connect(autocommit=True)
    missing = [
        one for one in granted if one.startswith("outbox_") and not value(db, "SELECT to_regrole(%s) IS NOT NULL", one)
    ]
    for one in missing:
        db.execute(f"CREATE ROLE {one} NOLOGIN")
    db.execute("SELECT outbox.grant_roles()")
    db.execute(f"CREATE ROLE {name} LOGIN {'IN ROLE ' + ', '.join(granted) if granted else ''}")
    try:
        yield database.url.replace("postgres@", f"{name}@")
    finally:
        for one in (name, *missing):
            db.execute(f"DROP OWNED BY {one}")
            db.execute(f"DROP ROLE {one}")


def test_normal_work_leaves_all_well(database: Database) -> None:
    db = database.connect(autocommit=True)
    db.execute("SELECT outbox.grant_roles()")
    assert doctor(database) == WELL
    worker = work(db, *"abcdefgh")
    subscribe(db, "parker", "orders", guarantee="exactly-once", on_failure="park")
    subscribe(db, "fast", "#", guarantee="at-most-once")
    with database.connect() as rolled_back:
        publish(rolled_back, "orders", "never")
        rolled_back.rollback()
    db.execute("UPDATE outbox.worker SET subscriptions = '{mailer,parker,fast}'")
    assert doctor(database) == WELL
    for subscription in ("mailer", "parker", "fast"):
        first, *others = pull(db, subscription, worker, lease_size=1)
        if first.lease:
            nack(db, worker, first)
            settle(db, worker, [one for one in others if one.lease != first.lease])
        assert doctor(database) == WELL
    publish(db, "orders", "behind", key="s3cret-key")
    for subscription in ("mailer", "parker", "fast"):
        drain(db, subscription, worker) if subscription != "fast" else pull(db, subscription, worker)
    db.execute("SELECT outbox.retire(%s)", (worker,))
    assert doctor(database) == WELL


def test_without_ignoring_it_the_fsync_of_test_clusters_is_all_that_is_found(database: Database) -> None:
    database.value("SELECT outbox.grant_roles()")
    result = CliRunner().invoke(app, ["doctor", "-d", database.url])
    lines = result.stdout.splitlines()
    assert result.exit_code == 2
    assert len(lines) == len(CHECKS)
    assert [line for line in lines if not line.startswith("✓")] == [
        "✗ fsync: fsync is off: a crash of the machine can lose or damage everything, whatever was confirmed "
        "→ `ALTER SYSTEM SET fsync = on` and `SELECT pg_reload_conf()`"
    ]


def test_exit_codes_are_those_of_monitoring_plugins(one_database: Database) -> None:
    url, db = one_database.url, one_database.connect(autocommit=True)
    db.execute("SELECT outbox.grant_roles()")
    well = outbox(url, "doctor", "--ignore", "fsync")
    assert (well.returncode, well.stderr) == (0, "")
    db.execute("GRANT EXECUTE ON FUNCTION outbox.recover TO PUBLIC")
    warned = outbox(url, "doctor", "--ignore", "fsync")
    assert warned.returncode == 1
    assert "! public-functions: everybody may execute 1 functions" in warned.stdout
    assert outbox(url, "doctor", "--ignore", "fsync", "--ignore", "public-functions").returncode == 0
    broken = outbox(url, "doctor", "--json")
    assert broken.returncode == 2
    assert {finding["severity"] for finding in json.loads(broken.stdout)} == {"ok", "warning", "critical"}
    for result, why in (
        (outbox("postgresql://nobody:s3cret@127.0.0.1:1/nothing", "doctor"), "connection"),
        (outbox(url, "doctor", "--ignore", "nonsense"), "there is no check 'nonsense'"),
    ):
        assert (result.returncode, result.stdout) == (3, "")
        assert result.stderr.startswith("outbox: could not look: ")
        assert why in result.stderr
        assert "s3cret" not in result.stderr


def test_a_user_without_privileges_can_not_look(one_database: Database) -> None:
    with role(one_database) as url:
        result = outbox(url, "doctor")
        assert (result.returncode, result.stdout) == (3, "")
        assert "has no privileges on the schema outbox: GRANT outbox_monitor TO" in result.stderr


def test_a_schema_that_is_missing_is_critical(empty_database: Database) -> None:
    report = doctor(empty_database)
    assert report.code == 2
    assert report.found == [
        {
            "check": "schema",
            "severity": "critical",
            "what": "the schema outbox is missing, version 0001 is needed",
            "mend": "run `outbox migrate`",
            "fields": {"installed": None, "needed": "0001"},
        }
    ]
    outbox(empty_database.url, "migrate")
    empty_database.value("SELECT outbox.grant_roles()")
    assert doctor(empty_database) == WELL


@pytest.mark.parametrize(("installed", "severity"), [("0000", "critical"), ("9999", "warning")])
def test_another_version_of_the_schema_is_found(one_database: Database, installed: str, severity: str) -> None:
    db = one_database.connect(autocommit=True)
    db.execute(
        f"CREATE OR REPLACE FUNCTION outbox.schema_version() RETURNS text LANGUAGE sql IMMUTABLE RETURN '{installed}'"
    )
    finding = doctor(one_database).of("schema")
    assert (finding["severity"], finding["fields"]["installed"]) == (severity, installed)
    assert installed in finding["what"]
    assert engine.find("0001") == []


def test_a_sequence_that_went_backwards_is_found_from_both_sides(database: Database) -> None:
    db = database.connect(autocommit=True)
    worker = work(db, *"abcde")
    assert drain(db, "mailer", worker) == [*"abcde"]
    db.execute("ALTER SEQUENCE outbox.partition_1_offset RESTART")
    report = doctor(database)
    assert report.code == 2
    beyond = report.of("cursor-beyond-log")
    assert beyond["severity"] == "critical"
    assert beyond["what"] == (
        "the cursor of mailer stands at offset 5 of partition 1, 5 beyond the end of its log: "
        "the sequence went backwards"
    )
    assert beyond["fields"] == {"subscription": "mailer", "partition_id": 1, "offset": 5, "last_value": 0}
    assert "`SELECT outbox.seek('mailer', 1, …)`" in beyond["mend"]
    twice = report.of("log-beyond-sequence")
    assert (twice["severity"], twice["fields"]["offset"], twice["fields"]["last_value"]) == ("critical", 5, 0)
    mend(database, beyond)
    assert doctor(database) == WELL
    publish(db, "orders", "f")
    assert drain(db, "mailer", worker) == ["f"]


def test_a_log_beyond_its_sequence_is_found_without_a_cursor(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    publish(db, "orders", *"abc")
    db.execute("SELECT setval('outbox.partition_1_offset', 2)")
    report = doctor(one_database)
    assert [finding["check"] for finding in report.found] == ["log-beyond-sequence"]
    mend(one_database, report.found[0])
    assert doctor(one_database) == WELL


@pytest.mark.parametrize("altered", ["CACHE 10", "CYCLE", "INCREMENT BY 2"])
def test_a_sequence_that_was_altered_is_critical(one_database: Database, altered: str) -> None:
    db = one_database.connect(autocommit=True)
    publish(db, "orders", "a")
    db.execute(f"ALTER SEQUENCE outbox.partition_1_offset {altered}")
    finding = doctor(one_database).of("sequence-altered")
    assert (finding["severity"], finding["fields"]["sequence"]) == ("critical", "outbox.partition_1_offset")
    mend(one_database, finding)
    assert doctor(one_database) == WELL


def test_a_sequence_that_is_gone_is_critical(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    work(db, "a")
    db.execute("DROP SEQUENCE outbox.partition_1_offset")
    report = doctor(one_database)
    assert [(finding["check"], finding["severity"]) for finding in report.found] == [("sequence-altered", "critical")]


def test_partitions_are_looked_at_some_at_a_time(one_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sequence that a statement reads is a lock until its transaction ends."""
    monkeypatch.setattr("outbox.doctor.cursors._SLICE", 2)
    db = one_database.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('orders', 5)")
    subscribe(db, "mailer", "orders")
    for number in range(5):
        publish(db, "orders", *"ab", key=str(number))
    report = doctor(one_database)
    assert report.of("subscription-without-worker")["fields"]["lag"] == 10
    drain(db, "mailer", register(db))
    used = value(db, 'SELECT count(*) FROM outbox.position WHERE "offset" > 0')
    for partition in range(1, 6):
        db.execute(f"ALTER SEQUENCE outbox.partition_{partition}_offset RESTART")
    beyond = [finding for finding in doctor(one_database).found if finding["check"] == "cursor-beyond-log"]
    assert len(beyond) == used > 2


def test_cursors_and_positions_go_together(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    worker = work(db, "a")
    assert drain(db, "mailer", worker) == ["a"]
    db.execute("DELETE FROM outbox.position")
    report = doctor(one_database)
    finding = report.of("cursor-without-position")
    assert (finding["severity"], finding["fields"]["partition_id"]) == ("critical", 1)
    assert "`SELECT outbox.seek('mailer', 1, 0)`" in finding["mend"]
    mend(one_database, finding)
    assert drain(db, "mailer", worker) == ["a"]
    assert doctor(one_database) == WELL

    subscribe(db, "stays", "orders", start="next")
    db.execute("DELETE FROM outbox.subscription WHERE name = 'mailer'")
    finding = doctor(one_database).of("position-without-cursor")
    assert (finding["severity"], finding["fields"]["subscription_id"], finding["fields"]["positions"]) == (
        "warning",
        1,
        1,
    )
    mend(one_database, finding)
    assert doctor(one_database) == WELL


@pytest.mark.parametrize("pattern", ["orders.*", "orders.eu"])
def test_a_partition_that_nobody_adopted_is_found(one_database: Database, pattern: str) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('orders.eu', 3), outbox.declare_topic('other')")
    subscribe(db, "mailer")
    db.execute("INSERT INTO outbox.binding SELECT id, %s FROM outbox.subscription", (pattern,))
    finding = doctor(one_database).of("partition-without-cursor")
    assert finding["severity"] == "warning"
    assert finding["fields"] == {"subscription": "mailer", "topic": "orders.eu", "partitions": 3}
    assert finding["mend"] == "`SELECT outbox.adopt(1)`"
    mend(one_database, finding)
    assert doctor(one_database) == WELL


def test_lag_without_a_worker_and_behind_a_worker(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    publish(db, "orders", *"abc")
    subscribe(db, "mailer", "orders")
    report = doctor(one_database, "--overdue", "0")
    finding = report.of("subscription-without-worker")
    assert (len(report.found), finding["severity"], finding["fields"]["lag"]) == (1, "warning", 3)
    worker = value(db, "SELECT outbox.register('host:1', '{mailer}', '1 hour')")
    assert doctor(one_database) == WELL
    finding = doctor(one_database, "--overdue", "0").of("subscription-behind")
    assert (finding["severity"], finding["fields"]["workers"], finding["fields"]["lag"]) == ("warning", 1, 3)
    drain(db, "mailer", worker)
    assert doctor(one_database, "--overdue", "0") == WELL


def test_a_lease_without_its_worker_is_critical(database: Database) -> None:
    db = database.connect(autocommit=True)
    worker = work(db, *"ab")
    pull(db, "mailer", worker, lease_size=1)
    db.execute("DELETE FROM outbox.worker")
    report = doctor(database)
    finding = report.of("lease-without-worker")
    assert (report.code, finding["severity"], finding["fields"]["worker_id"]) == (2, "critical", worker)
    assert (finding["fields"]["leases"], finding["fields"]["subscription"]) == (2, "mailer")
    mend(database, finding)
    assert doctor(database) == WELL
    assert drain(db, "mailer", register(db)) == [*"ab"]


def test_leases_that_nobody_recovers_are_found(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    worker = work(db, "a")
    pull(db, "mailer", worker)
    db.execute("UPDATE outbox.worker SET alive_until = now() - interval '30 seconds'")
    assert doctor(one_database) == WELL
    db.execute("UPDATE outbox.worker SET alive_until = now() - interval '3 minutes'")
    finding = doctor(one_database).of("lease-of-dead-worker")
    assert (finding["severity"], finding["fields"]["worker_id"]) == ("warning", worker)
    assert finding["fields"]["age_seconds"] == pytest.approx(180, abs=60)
    assert "no worker is running" in finding["what"]
    register(db)
    assert "none of 1 live workers" in doctor(one_database).of("lease-of-dead-worker")["what"]
    mend(one_database, finding)
    assert doctor(one_database) == WELL


def test_a_lease_that_is_held_for_long_is_found(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    worker = work(db, "a")
    (message,) = pull(db, "mailer", worker)
    db.execute("UPDATE outbox.lease SET leased_at = now() - interval '3 hours'")
    finding = doctor(one_database).of("lease-held-long")
    assert (finding["severity"], finding["fields"]["lease_id"]) == ("warning", message.lease)
    assert "for up to 3 h" in finding["what"]
    mend(one_database, finding)
    assert doctor(one_database) == WELL


def test_a_redelivery_whose_lease_is_gone_is_critical(database: Database) -> None:
    db = database.connect(autocommit=True)
    worker = work(db, "a")
    nack(db, worker, *pull(db, "mailer", worker), delay=0)
    pull(db, "mailer", worker)
    assert doctor(database) == WELL
    db.execute("DELETE FROM outbox.lease")
    report = doctor(database)
    finding = report.of("redelivery-without-lease")
    assert (report.code, finding["severity"], finding["fields"]["redeliveries"]) == (2, "critical", 1)
    mend(database, finding)
    assert doctor(database) == WELL
    assert drain(db, "mailer", worker) == ["a"]


def test_a_lease_whose_redelivery_is_gone_is_found(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    worker = work(db, "a")
    nack(db, worker, *pull(db, "mailer", worker), delay=0)
    (message,) = pull(db, "mailer", worker)
    db.execute("DELETE FROM outbox.redelivery")
    finding = doctor(one_database).of("lease-without-redelivery")
    assert (finding["severity"], finding["fields"]["lease_id"]) == ("warning", message.lease)
    mend(one_database, finding)
    assert doctor(one_database) == WELL


def test_overdue_redeliveries_say_whether_a_worker_runs(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    worker = work(db, *"ab")
    for message in pull(db, "mailer", worker, lease_size=1):
        nack(db, worker, message, delay=0)
    db.execute("UPDATE outbox.redelivery SET due_at = due_at - interval '5 minutes'")
    finding = doctor(one_database).of("redelivery-overdue")
    assert (finding["severity"], finding["fields"]["redeliveries"], finding["fields"]["workers"]) == ("warning", 2, 1)
    assert "though 1 live workers run it" in finding["what"]
    db.execute("UPDATE outbox.worker SET alive_until = now()")
    finding = doctor(one_database).of("redelivery-overdue")
    assert finding["what"] == "2 redeliveries of mailer have been due for up to 5 min, and no live worker runs it"
    assert "start a worker that runs mailer" in finding["mend"]
    assert doctor(one_database, "--overdue", "400") == WELL
    drain(db, "mailer", worker)
    assert doctor(one_database) == WELL


def test_messages_to_come_that_do_not_come_are_found(database: Database) -> None:
    db = database.connect(autocommit=True)
    work(db)
    db.execute("""SELECT outbox.publish_later('later', '"s3cret"', now() - interval '5 minutes')""")
    finding = doctor(database).of("schedule-overdue")
    assert (finding["severity"], finding["fields"]["messages"], finding["fields"]["workers"]) == ("warning", 1, 1)
    db.execute("UPDATE outbox.worker SET alive_until = now()")
    assert "no live worker runs" in doctor(database).of("schedule-overdue")["what"]
    db.execute("UPDATE outbox.worker SET alive_until = now() + interval '1 hour'")
    db.execute("UPDATE outbox.scheduled SET due_at = now(), attempts = 3, error = 's3cret'")
    report = doctor(database)
    assert report.of("schedule-refused")["fields"] == {"topic": "later", "messages": 1, "attempts": 3}
    assert "s3cret" not in str(report)
    db.execute("SELECT outbox.publish_due(10, true)")
    assert doctor(database) == WELL


def test_a_lane_that_waits_for_nobody_is_found_without_its_key(database: Database) -> None:
    db = database.connect(autocommit=True)
    worker = work(db, "s3cret-a", on_failure="park")
    nack(db, worker, *pull(db, "mailer", worker))
    publish(db, "orders", "s3cret-b", key="s3cret-key")
    assert pull(db, "mailer", worker) == []
    assert doctor(database) == WELL
    db.execute('DELETE FROM outbox.redelivery WHERE "offset" = 1')
    report = doctor(database)
    finding = report.of("lane-stuck")
    assert (finding["severity"], finding["fields"]["lanes"], finding["fields"]["offset"]) == ("warning", 1, 2)
    assert "s3cret" not in str(report)
    mend(database, finding)
    assert doctor(database) == WELL
    assert drain(db, "mailer", worker) == ["s3cret-b"]


def test_a_slot_says_which_subscription_and_which_lease_hold_it(database: Database) -> None:
    db = database.connect(autocommit=True)
    worker = work(db, *"ab")
    slot = in_second_slot(db)
    finding = doctor(database).of("slot-due")
    assert (finding["severity"], finding["fields"]["log"], finding["fields"]["slot"]) == ("warning", "message", slot)
    assert "subscription mailer stands at offset 0 of partition 1" in finding["what"]
    assert db.execute("SELECT * FROM outbox.rotate()").fetchall() == [("message", slot, finding["fields"]["held_by"])]
    messages = pull(db, "mailer", worker)
    finding = doctor(database).of("slot-due")
    assert f"lease {messages[0].lease} of worker {worker} holds messages" in finding["what"]
    settle(db, worker, messages)
    finding = doctor(database).of("slot-due")
    assert "nobody holds it, and nobody rotates" in finding["what"]
    mend(database, finding)
    assert doctor(database) == WELL
    assert value(db, "SELECT count(*) FROM outbox.message") == 0


def test_a_slot_says_which_transaction_uses_it(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    publish(db, "orders", "a")
    slot = in_second_slot(db)
    reader = one_database.connect(application_name="report")
    reader.execute(f"SELECT count(*) FROM outbox.message_{slot}")
    finding = doctor(one_database, "--overdue", "0").of("slot-due")
    assert finding["fields"]["pid"] == reader.info.backend_pid
    assert finding["fields"]["application_name"] == "report"
    assert finding["fields"]["age_seconds"] > 0
    assert "nobody rotates" in doctor(one_database).of("slot-due")["what"], (
        "a transaction that has just begun is no holder"
    )
    reader.execute(f"LOCK TABLE outbox.message_{slot} IN SHARE MODE")
    reader.execute("SELECT pg_current_xact_id()")
    reader.execute("PREPARE TRANSACTION 'left over'")
    finding = doctor(one_database, "--overdue", "0").of("slot-due")
    assert (finding["fields"]["pid"], finding["fields"]["gid"]) == (None, "left over")
    db.execute("ROLLBACK PREPARED 'left over'")
    mend(one_database, doctor(one_database).of("slot-due"))
    assert doctor(one_database) == WELL


@pytest.mark.parametrize("log", ["deduplication", "inbox"])
def test_a_slot_of_keys_that_nobody_rotates_is_found(one_database: Database, log: str) -> None:
    db = one_database.connect(autocommit=True)
    slot = value(db, "SELECT mod(outbox.key_slot(now()) + 1, 16)")
    columns = 'topic_id, key, partition_id, "offset"' if log == "deduplication" else "consumer, key"
    values = "1, 's3cret', 1, 1" if log == "deduplication" else "'c', 's3cret'"
    db.execute(
        f"INSERT INTO outbox.{log} (slot, {columns}, expires_at) VALUES ({slot}, {values}, now() - interval '2 days')"
    )
    report = doctor(one_database)
    due = value(db, "SELECT extract(epoch FROM now() - due_at)::float8 FROM outbox.slots_due()")
    if due < 610:  # the slot has only just changed
        assert report == WELL
        return
    finding = report.of("slot-due")
    assert (finding["fields"]["log"], finding["fields"]["slot"]) == (log, slot)
    assert "s3cret" not in str(report)
    mend(one_database, finding)
    assert doctor(one_database) == WELL


@pytest.mark.parametrize(
    ("statement", "isolation", "holds"),
    [
        ("SELECT pg_current_xact_id()", psycopg.IsolationLevel.READ_COMMITTED, "xid"),
        ("SELECT 's3cret query'", psycopg.IsolationLevel.REPEATABLE_READ, "snapshot"),
        ("SELECT 's3cret query'", psycopg.IsolationLevel.READ_COMMITTED, "locks"),
    ],
)
def test_a_long_transaction_is_named(database: Database, statement: str, isolation: Any, holds: str) -> None:
    holder = database.connect(application_name="a [red]report\x1b[31m")
    holder.isolation_level = isolation
    holder.execute(statement)
    assert doctor(database) == WELL
    report = doctor(database, "--long-transaction", "0")
    finding = report.of("long-transaction")
    assert (finding["severity"], finding["fields"]["pid"]) == ("warning", holder.info.backend_pid)
    assert (finding["fields"]["holds"], finding["fields"]["state"]) == (holds, "idle in transaction")
    assert (finding["fields"]["user"], finding["fields"]["age_seconds"] > 0) == ("postgres", True)
    assert "idle_in_transaction_session_timeout" in finding["mend"]
    assert "s3cret" not in str(report)
    line = CliRunner().invoke(app, ["doctor", "-d", database.url, "--long-transaction", "0"]).stdout
    assert "a [red]report" in line
    assert "\x1b" not in line
    mend(database, finding)
    wait_for(lambda: doctor(database, "--long-transaction", "0") == WELL, "the end of a session")


def test_a_prepared_transaction_is_named(database: Database) -> None:
    gid = f"it's {database.name}"
    other = database.connect()
    other.execute("SELECT pg_current_xact_id()")
    other.execute(f"PREPARE TRANSACTION '{gid.replace(chr(39), chr(39) * 2)}'")
    assert doctor(database) == WELL
    finding = doctor(database, "--long-transaction", "0").of("prepared-transaction")
    assert (finding["severity"], finding["fields"]["gid"]) == ("warning", gid)
    statement = re.findall("`([^`]*)`", finding["mend"])[1]
    database.connect(autocommit=True).execute(statement)
    assert doctor(database, "--long-transaction", "0") == WELL


def test_dead_rows_name_the_transaction_that_keeps_them(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("ALTER TABLE outbox.position SET (autovacuum_enabled = false)")  # it would mend by itself
    holder = one_database.connect(application_name="dump")
    holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    holder.execute("SELECT 1")
    db.execute("INSERT INTO outbox.position SELECT 1, 1, n, '{}', '{}' FROM generate_series(1, 100001) AS n")
    db.execute("DELETE FROM outbox.position")
    db.execute("SELECT pg_stat_force_next_flush()")
    finding = wait_for(lambda: doctor(one_database).found, "the statistics of a table")[0]
    assert (finding["check"], finding["severity"], finding["fields"]["table"]) == ("dead-rows", "warning", "position")
    assert finding["fields"]["dead_rows"] > 100_000
    assert finding["mend"] == f"end pid {holder.info.backend_pid} (dump)"
    holder.rollback()
    finding = doctor(one_database).of("dead-rows")
    assert "no transaction holds them back" in finding["what"]
    mend(one_database, finding)
    db.execute("ALTER TABLE outbox.position RESET (autovacuum_enabled)")
    wait_for(lambda: doctor(one_database) == WELL, "the statistics of a table")


def test_a_monitor_sees_what_an_owner_sees(database: Database) -> None:
    db = database.connect(autocommit=True)
    worker = work(db, *"ab")
    pull(db, "mailer", worker, 1)
    db.execute("DELETE FROM outbox.worker")
    in_second_slot(db)
    with role(database, "outbox_monitor") as url:
        db.execute("INSERT INTO outbox.deduplication VALUES (0, 1, 's3cret-key', 1, 1, now() + interval '7 days')")
        with database.connect(application_name="holder") as holder:
            holder.execute("SELECT pg_current_xact_id()")
            owner, monitor = (doctor(who, "--long-transaction", "0") for who in (database, url))
            assert monitor.of("long-transaction")["fields"]["pid"] == holder.info.backend_pid
            assert monitor.of("long-transaction")["fields"]["state"] == "idle in transaction"
        assert [finding["check"] for finding in monitor.found] == [finding["check"] for finding in owner.found]
        assert {"lease-without-worker", "slot-due"} <= {finding["check"] for finding in monitor.found}
        assert "could not look" not in str(monitor)
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT payload FROM outbox.message")


def test_sessions_that_nobody_may_see_are_counted(one_database: Database) -> None:
    """The owner of the schema may see no more than the monitor: on a managed server, say."""
    with role(one_database, "outbox_monitor") as url, one_database.connect() as holder:
        db = one_database.connect(autocommit=True)
        name = url.split("/")[2].split("@")[0]
        db.execute(f"ALTER FUNCTION outbox.open_transactions OWNER TO {name}")
        holder.execute("SELECT pg_current_xact_id()")
        finding = doctor(url).of("long-transaction")
        assert finding["fields"] == {"sessions": 1}
        assert "GRANT pg_read_all_stats TO postgres" in finding["mend"]
        assert doctor(one_database) == WELL, "a superuser sees for himself"
        db.execute("ALTER FUNCTION outbox.open_transactions OWNER TO postgres")


def test_privileges_that_a_role_lacks_are_found(database: Database) -> None:
    db = database.connect(autocommit=True)
    with role(database, "outbox_publisher", "outbox_worker", "outbox_monitor", "outbox_reader", "outbox_admin"):
        assert doctor(database) == WELL
        db.execute("REVOKE EXECUTE ON FUNCTION outbox.pull FROM outbox_worker")
        finding = doctor(database).of("grants")
        assert (finding["severity"], finding["fields"]) == ("warning", {"role": "outbox_worker", "missing": 1})
        assert "EXECUTE on outbox.pull" in finding["what"]
        db.execute("REVOKE SELECT (due_at) ON outbox.redelivery FROM outbox_monitor")
        db.execute("REVOKE DELETE ON outbox.dead_letter FROM outbox_admin")
        db.execute("REVOKE USAGE ON SCHEMA outbox FROM outbox_publisher")
        assert [finding["fields"]["role"] for finding in doctor(database).found] == [
            "outbox_admin",
            "outbox_monitor",
            "outbox_publisher",
            "outbox_worker",
        ]
        mend(database, finding)
        assert doctor(database) == WELL


def test_functions_that_are_open_to_others_are_found(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("SELECT outbox.grant_roles()")
    db.execute("GRANT EXECUTE ON FUNCTION outbox.recover TO PUBLIC")
    finding = doctor(one_database).of("public-functions")
    assert (finding["severity"], finding["fields"]) == ("warning", {"functions": 1})
    assert "outbox.recover(bigint)" in finding["what"]
    mend(one_database, finding)
    db.execute("ALTER FUNCTION outbox.recover RESET search_path")
    finding = doctor(one_database).of("search-path")
    assert (finding["severity"], finding["fields"]) == ("warning", {"function": "outbox.recover(bigint)"})
    mend(one_database, finding)
    assert doctor(one_database) == WELL


@pytest.mark.parametrize("on", ["outbox.message", "outbox.message_3", "columns"])
def test_whoever_may_insert_past_publish_is_found(database: Database, on: str) -> None:
    db = database.connect(autocommit=True)
    with role(database, "outbox_admin") as url:
        name = url.split("/")[2].split("@")[0]
        table = "outbox.message" if on == "columns" else on
        db.execute(f"GRANT INSERT {'(slot, payload)' if on == 'columns' else ''} ON {table} TO {name}")
        finding = doctor(database).of("direct-insert")
        assert (finding["severity"], finding["fields"]) == ("warning", {"role": name, "tables": [table]})
        mend(database, finding)
        assert doctor(database) == WELL


def test_triggers_and_rules_on_the_log_are_found(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("CREATE FUNCTION public.noise() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    db.execute("CREATE TRIGGER noise AFTER INSERT ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.noise()")
    db.execute("CREATE RULE copy AS ON INSERT TO outbox.message DO ALSO NOTHING")
    report = doctor(one_database)
    assert [(finding["check"], finding["fields"]["name"]) for finding in report.found] == [
        ("message-trigger", "copy"),
        ("message-trigger", "noise"),
    ]
    for finding in report.found:
        mend(one_database, finding)
    assert doctor(one_database) == WELL


@pytest.mark.filterwarnings("ignore")
def test_publications_of_our_tables_are_found(database: Database) -> None:
    db = database.connect(autocommit=True)
    db.add_notice_handler(lambda notice: None)
    db.execute("CREATE PUBLICATION mirror FOR TABLE outbox.message, outbox.lease")
    finding = doctor(database).of("publication")
    assert (finding["severity"], finding["fields"]) == ("warning", {"publication": "mirror", "tables": 25})
    mend(database, finding)
    assert doctor(database) == WELL
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    finding = doctor(database).of("publication")
    assert "leave the schema outbox out of it" in finding["mend"]
    db.execute("DROP PUBLICATION everything")
    assert doctor(database) == WELL


@pytest.mark.parametrize("whom", ["database", "role", "role in database"])
def test_whoever_publishes_without_waiting_for_the_disk_is_found(one_database: Database, whom: str) -> None:
    db = one_database.connect(autocommit=True)
    with role(one_database, "outbox_publisher") as url:
        name = url.split("/")[2].split("@")[0]
        of = {
            "database": f"DATABASE {one_database.name}",
            "role": f"ROLE {name}",
            "role in database": f"ROLE {name} IN DATABASE {one_database.name}",
        }[whom]
        db.execute(f"ALTER {of} SET synchronous_commit = off")
        finding = doctor(one_database).of("synchronous-commit")
        assert finding["severity"] == "warning"
        assert finding["mend"] == f"`ALTER {of} RESET synchronous_commit`"
        mend(one_database, finding)
        assert doctor(one_database) == WELL


def test_a_check_that_takes_too_long_says_so(one_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.cli.doctor._TIMEOUT", 0.3)
    publish(one_database.connect(autocommit=True), "orders", "a")
    with one_database.connect() as locker:
        locker.execute("LOCK TABLE outbox.message")
        report = doctor(one_database)
        found = {finding["check"]: finding for finding in report.found}
        assert set(found) >= {"log-beyond-sequence", "slot-due"}
        assert found["slot-due"]["severity"] == "warning"
        assert "took longer than 0.3 s" in found["slot-due"]["what"]
        locker.rollback()
    assert doctor(one_database) == WELL


def test_a_pull_locks_no_more_than_is_counted(database: Database) -> None:
    db = database.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('orders', 40)")
    worker = work(db, *"abc")
    nack(db, worker, pull(db, "mailer", worker, 1)[0], delay=0)
    with database.connect() as puller:
        pull(puller, "mailer", worker)
        locked = value(
            puller,
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation > 16384",
        )
        puller.rollback()
    row = db.execute(settings._LOCKS).fetchone()
    assert row is not None
    (relations, sequences) = (row[3], row[5])
    assert sequences == 40
    assert locked <= relations + sequences <= 1.3 * locked


@pytest.mark.slow
def test_settings_of_the_server_with_which_messages_are_lost_are_found(own_postgres: Database) -> None:
    db = own_postgres.connect(autocommit=True)
    subscribe(db, "mailer", "#")
    db.execute("SELECT outbox.declare_topic('wide', 500)")
    db.execute("SELECT outbox.register('host:1', '{mailer}', '1 hour')")
    changed = {
        "full_page_writes": "off",
        "autovacuum": "off",
        "track_counts": "off",
        "synchronous_commit": "off",
        "max_locks_per_transaction": "20",
    }
    for name, setting in changed.items():
        db.execute(f"ALTER SYSTEM SET {name} = {setting}")
    restart(own_postgres)
    report = doctor(own_postgres)
    assert report.code == 2
    assert [(finding["check"], finding["severity"]) for finding in report.found] == [
        ("full-page-writes", "critical"),
        ("autovacuum", "warning"),
        ("autovacuum", "warning"),
        ("max-locks", "warning"),
        ("synchronous-commit", "warning"),
    ]
    locks = report.of("max-locks")["fields"]
    assert (locks["max_locks_per_transaction"], locks["sequences"]) == (20, 500)
    for finding in report.found:
        mend(own_postgres, finding)
    restart(own_postgres)
    assert doctor(own_postgres) == WELL
    db = own_postgres.connect(autocommit=True)
    db.execute("ALTER TABLE outbox.lease SET (autovacuum_enabled = off)")
    finding = doctor(own_postgres).of("autovacuum")
    assert finding["fields"] == {"table": "outbox.lease"}
    mend(own_postgres, finding)
    assert doctor(own_postgres) == WELL


@pytest.mark.slow
def test_what_replication_and_notifications_do_is_found(own_postgres: Database) -> None:
    db = own_postgres.connect(autocommit=True)
    db.execute("ALTER SYSTEM SET wal_level = logical")
    db.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
    restart(own_postgres)
    url = own_postgres.url
    db = own_postgres.connect(autocommit=True)
    db.execute("CREATE DATABASE source TEMPLATE template0")
    with psycopg.connect(own_postgres.postgres.url("source"), autocommit=True) as source:
        source.execute("CREATE SCHEMA outbox")
        source.execute("CREATE TABLE outbox.dead_letter (subscription_id int)")
        source.execute("CREATE PUBLICATION mirror FOR TABLE outbox.dead_letter")
        source.execute("SELECT pg_create_logical_replication_slot('mirror', 'pgoutput')")
    finding = doctor(own_postgres).of("replication-slot")
    assert (finding["severity"], finding["fields"]["slot"], finding["fields"]["active"]) == ("warning", "mirror", False)
    db.execute(
        f"CREATE SUBSCRIPTION mirror CONNECTION '{own_postgres.postgres.url('source')}' PUBLICATION mirror "
        "WITH (create_slot = false, enabled = false, copy_data = false)"
    )
    finding = doctor(own_postgres).of("replicated-table")
    assert (finding["severity"], finding["fields"]) == ("critical", {"subscription": "mirror", "tables": 1})
    db.execute("ALTER SUBSCRIPTION mirror SET (slot_name = NONE)")
    db.execute("DROP SUBSCRIPTION mirror")
    mend(own_postgres, doctor(own_postgres).of("replication-slot"))
    assert doctor(own_postgres) == WELL

    listener = own_postgres.connect(autocommit=True)
    listener.execute("LISTEN outbox")
    listener.execute("BEGIN")
    for number in range(50):
        db.execute("SELECT pg_notify('outbox', repeat('x', 7900) || %s::text)", (number,))
    report = doctor(url)
    finding = report.of("notification-queue")
    assert (finding["severity"], finding["fields"]["usage"] > 0.5) == ("warning", True)
    listener.close()
    wait_for(lambda: doctor(own_postgres) == WELL, "the queue to be read")


def restart(database: Database) -> None:
    database.close()
    database.postgres.stop()
    database.postgres.start()
