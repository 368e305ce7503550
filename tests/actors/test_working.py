"""What dramatiq's worker does with the broker: retries, dead letters, prefetch, requeue, join and flush."""

from __future__ import annotations

import subprocess
import threading
import time
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, QueueJoinTimeout, Worker
from dramatiq.errors import ActorNotFound, ConnectionFailed

from outbox.dramatiq import PostgresBroker, kin
from outbox.dramatiq.intake import Intake
from outbox.payload import Limits
from tests.actors.work import working
from tests.servers import PgBouncer
from tests.shop_floor import PATIENCE, Database, outbox, wait_for


def test_many_messages_are_handled_once_each(broker: PostgresBroker, worker: Worker, seen: list[Any]) -> None:
    actor = dramatiq.actor(seen.append, actor_name="note")
    for number in range(500):
        actor.send(number)
    broker.join("default", timeout=120_000)
    assert sorted(seen) == [*range(500)]


def test_one_thread_handles_messages_in_the_order_in_which_they_were_sent(
    broker: PostgresBroker, seen: list[Any]
) -> None:
    actor = dramatiq.actor(seen.append, actor_name="note")
    for number in range(100):
        actor.send(number)
    with working(broker, threads=1):
        broker.join("default", timeout=120_000)
    assert seen == [*range(100)]


def test_an_actor_that_fails_is_tried_again_and_its_retry_commits_with_the_settlement(
    one_database: Database, broker: PostgresBroker, worker: Worker, seen: list[Any]
) -> None:
    @dramatiq.actor(min_backoff=10, max_backoff=20)
    def sometimes() -> None:
        seen.append(one_database.value("SELECT count(*) FROM outbox.scheduled"))
        if len(seen) < 4:
            raise RuntimeError("not yet")

    sometimes.send()
    broker.join("default", timeout=120_000)
    assert len(seen) == 4
    by_transaction = "SELECT count(DISTINCT xid) FROM outbox.message"
    assert one_database.value(by_transaction) == 4, "each try is a message"


def test_nothing_is_sent_again_by_a_message_whose_lease_was_lost(
    one_database: Database, broker: PostgresBroker, worker: Worker
) -> None:
    """A retry that others' settlement makes superfluous is not published."""
    began, go_on = threading.Event(), threading.Event()

    @dramatiq.actor(min_backoff=10, max_backoff=10, max_retries=1)
    def fail() -> None:
        began.set()
        go_on.wait(PATIENCE)
        raise RuntimeError("late")

    fail.send()
    assert began.wait(PATIENCE)
    one_database.execute("DELETE FROM outbox.lease")
    go_on.set()
    broker.join("default", timeout=120_000)
    assert broker._process is not None
    settler = broker._process._settler
    wait_for(lambda: not settler.known, "nothing is kept of the lease")
    assert one_database.value("SELECT count(*) FROM outbox.message") == 1
    assert one_database.value("SELECT count(*) FROM outbox.scheduled") == 0


def test_a_retry_is_never_too_large(one_database: Database, seen: list[Any]) -> None:
    """Its traceback comes on top of what was accepted; to refuse it would be to lose it."""
    broker = PostgresBroker(one_database.url, limits=Limits(payload=1_000))

    @dramatiq.actor(min_backoff=5, max_backoff=5, broker=broker)
    def sometimes(text: str) -> None:
        seen.append(len(text))
        if len(seen) == 1:
            raise RuntimeError("not yet " + "x" * 500)

    sometimes.send("x" * 700)
    with working(broker):
        broker.join("default", timeout=120_000)
    broker.close()
    assert seen == [700, 700]


def test_a_message_whose_next_step_can_not_be_sent_is_a_dead_letter_and_not_lost(
    one_database: Database, seen: list[Any]
) -> None:
    broker = PostgresBroker(one_database.url, limits=Limits(payload=1_000))
    large = dramatiq.actor(lambda: "x" * 2_000, actor_name="large", broker=broker)
    then = dramatiq.actor(seen.append, actor_name="then", broker=broker)
    dramatiq.pipeline([large.message(), then.message()], broker=broker).run()
    with working(broker):
        broker.join("default", timeout=120_000)
    assert (broker.count("default").dead, seen) == (1, [])
    error = one_database.value("SELECT error_class FROM outbox.dead_letter")
    assert error == "InvalidMessage"
    broker.close()


def test_a_message_whose_next_step_found_no_connection_is_handled_again(
    one_database: Database, broker: PostgresBroker, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next queue is new to this process, and must be created first."""
    monkeypatch.setattr("outbox.dramatiq.consumer._LATER", 0.05)
    first = dramatiq.actor(lambda: seen.append("first"), actor_name="first")
    then = dramatiq.actor(lambda _: seen.append("then"), actor_name="then", queue_name="new")
    ensure, failures = broker._ensure, [ConnectionFailed("away")]

    def fail_once(queue: str, works: bool = False) -> None:
        if queue == "new" and not works and failures:
            raise failures.pop()
        ensure(queue, works)

    monkeypatch.setattr(broker, "_ensure", fail_once)
    dramatiq.pipeline([first.message(), then.message()]).run()
    with working(broker):
        wait_for(lambda: "then" in seen, "the next step")
        broker.join("default", timeout=120_000)
    assert seen == ["first", "first", "then"]


def test_a_process_that_proc_hides_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' processes can't be seen where /proc is mounted with hidepid; recovering theirs would double messages."""
    sleeper = subprocess.Popen(["sleep", "60"])
    began = kin._began(sleeper.pid)
    name = f"host:{sleeper.pid} dramatiq/{kin._place()}-{began}"
    assert not kin.is_gone(name)
    with monkeypatch.context() as hidden:
        hidden.setattr(kin, "_began", lambda _: None)
        assert not kin.is_gone(name)
    sleeper.kill()
    wait_for(lambda: kin.is_gone(name), "a zombie is gone")
    sleeper.wait()
    assert kin.is_gone(name)


def test_what_is_given_up_on_is_a_dead_letter_with_its_error_and_can_be_redriven(
    one_database: Database, broker: PostgresBroker, worker: Worker, seen: list[Any]
) -> None:
    @dramatiq.actor(max_retries=0)
    def fail() -> None:
        if not seen:
            seen.append("failed")
            raise LookupError("no such thing")
        seen.append("handled")

    fail.send()
    with pytest.raises(LookupError, match="no such thing"):
        broker.join("default", timeout=120_000)
    broker.join("default", timeout=120_000)
    assert broker.get_queue_message_counts("default") == (0, 0, 1)
    letter = one_database.connect().execute("SELECT reason, error_class, place, headers FROM outbox.dead_letter")
    reason, error_class, place, headers = letter.fetchone() or ()
    assert (reason, error_class, headers["actor"]) == ("rejected", "LookupError", "fail")
    assert place.startswith("tests/actors/test_working.py:")
    assert outbox(one_database.url, "dead", "redrive", "dramatiq.default", "--all").returncode == 0
    broker.join("default", timeout=120_000)
    assert seen == ["failed", "handled"]


def test_messages_of_unknown_actors_and_those_that_can_not_be_decoded_are_dead_letters(
    one_database: Database, broker: PostgresBroker, worker: Worker
) -> None:
    broker.declare_queue("default")
    broker.enqueue(Message(queue_name="default", actor_name="nobody", args=(), kwargs={}, options={}))
    one_database.execute("SELECT outbox.publish('dramatiq.default', '\"no message\"', headers => '{\"actor\": \"x\"}')")
    with pytest.raises(ActorNotFound):
        broker.join("default", timeout=120_000)
    broker.join("default", timeout=120_000)
    assert broker.count("default").dead == 2


def test_a_worker_that_stops_gives_back_what_it_has_not_begun(
    one_database: Database, broker: PostgresBroker, seen: list[Any]
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def wait_until_stopped(worker: Worker) -> None:
        wait_for(lambda: not any(thread.running for thread in worker.workers), "its threads are told")
        go_on.set()

    class GoOn(dramatiq.Middleware):
        def before_worker_shutdown(self, broker: Any, worker: Worker) -> None:
            threading.Thread(target=wait_until_stopped, args=(worker,)).start()

    @dramatiq.actor
    def wait(number: int) -> None:
        began.set()
        go_on.wait(PATIENCE)
        seen.append(number)

    for number in range(20):
        wait.send(number)
    with working(broker, threads=1):
        assert began.wait(PATIENCE)
        wait_for(lambda: broker.count("default").in_flight >= 2, "messages prefetched")
        broker.add_middleware(GoOn())
    assert len(seen) == 1
    counts = broker.count("default")
    assert (counts.in_flight, counts.unfinished) == (0, 20 - len(seen))
    assert one_database.value("SELECT count(*) FROM outbox.redelivery WHERE attempt > 1 OR suspect") == 0
    with working(broker):
        broker.join("default", timeout=120_000)
    assert sorted(seen) == [*range(20)]


def test_no_more_messages_are_prefetched_than_was_asked_for(broker: PostgresBroker) -> None:
    go_on = threading.Event()
    actor = dramatiq.actor(lambda: go_on.wait(PATIENCE), actor_name="wait")
    for _ in range(20):
        actor.send()
    with working(broker, threads=1, prefetch=1):
        wait_for(lambda: broker.count("default").in_flight == 1, "one in hand")
        time.sleep(0.2)
        assert broker.count("default").in_flight == 1
        go_on.set()
        broker.join("default", timeout=120_000)
    with working(broker, threads=2, prefetch=5):
        go_on.clear()
        for _ in range(20):
            actor.send()
        wait_for(lambda: broker.count("default").in_flight >= 5, "five in hand")
        time.sleep(0.2)
        assert broker.count("default").in_flight == 5
        go_on.set()


def test_what_was_pulled_for_fast_actors_goes_back_when_they_become_slow(broker: PostgresBroker) -> None:
    go_on, is_slow = threading.Event(), threading.Event()

    @dramatiq.actor
    def work() -> None:
        if is_slow.is_set():
            go_on.wait(PATIENCE)

    for _ in range(3000):
        work.send()
    with working(broker, threads=2):
        intake = _intake(broker)
        wait_for(lambda: len(intake._buffer) > 30, "more pulled than dramatiq prefetches")
        is_slow.set()
        wait_for(lambda: broker.count("default").in_flight <= 20, "what is too much goes back")
        go_on.set()
        broker.join("default", timeout=120_000)


def _intake(broker: PostgresBroker) -> Intake:
    wait_for(lambda: broker._process, "a consumer")
    assert broker._process is not None
    return broker._process.intake("dramatiq.default")


def test_a_worker_can_pause_and_go_on(
    broker: PostgresBroker, worker: Worker, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.01)
    actor = dramatiq.actor(seen.append, actor_name="note")
    actor.send(1)
    broker.join("default", timeout=120_000)
    worker.pause()
    actor.send(2)
    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=300)
    worker.resume()
    broker.join("default", timeout=120_000)
    assert seen == [1, 2]


def test_flush_drops_what_waits_what_is_delayed_and_what_is_dead(broker: PostgresBroker) -> None:
    @dramatiq.actor(max_retries=0)
    def fail() -> None:
        raise RuntimeError

    broker.flush("default")
    fail.send()
    with working(broker):
        broker.join("default", timeout=120_000, fail_fast=False)
    fail.send()
    fail.send_with_options(delay=60_000)
    assert broker.get_queue_message_counts("default") == (1, 1, 1)
    broker.flush_all()
    assert broker.get_queue_message_counts("default") == (0, 0, 0)
    broker.join("default", timeout=1)


def test_join_waits_for_what_is_in_hand_and_gives_up_in_time(broker: PostgresBroker, worker: Worker) -> None:
    go_on = threading.Event()
    dramatiq.actor(lambda: go_on.wait(PATIENCE), actor_name="wait").send()
    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=200)
    go_on.set()
    broker.join("default", timeout=120_000)


def test_a_worker_reads_the_queues_that_it_is_told_to(one_database: Database, broker: PostgresBroker) -> None:
    a = dramatiq.actor(lambda: None, actor_name="a", queue_name="one")
    b = dramatiq.actor(lambda: None, actor_name="b", queue_name="two")
    a.send()
    b.send()
    worker = Worker(broker, queues={"one"}, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        broker.join("one", timeout=120_000)
        runs = "SELECT subscriptions FROM outbox.worker WHERE retired_at IS NULL"
        wait_for(lambda: one_database.value(runs) == ["dramatiq.one"], "it says what it runs")
    finally:
        worker.stop()
    assert broker.count("two").waiting == 1
    assert one_database.value("SELECT count(*) FROM outbox.worker WHERE retired_at IS NULL") == 0


def test_acknowledging_what_is_not_ours_or_twice_is_passed_over(broker: PostgresBroker, seen: list[Any]) -> None:
    actor = dramatiq.actor(seen.append, actor_name="note")
    consumer = broker.consume("default", prefetch=2, timeout=120_000)
    message = actor.message(1)
    consumer.ack(dramatiq.MessageProxy(message))
    consumer.nack(dramatiq.MessageProxy(message))
    actor.send(1)
    taken = next(consumer)
    consumer.ack(taken)
    consumer.ack(taken)
    consumer.nack(taken)
    broker.join("default", timeout=120_000)
    assert broker.count("default").dead == 0
    consumer.close()


def test_a_worker_that_was_found_dead_registers_anew_and_goes_on(
    one_database: Database, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = PostgresBroker(one_database.url, timeout=timedelta(seconds=5))
    actor = dramatiq.actor(seen.append, actor_name="note", broker=broker)
    with working(broker):
        wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.worker") == 1, "a worker")
        one_database.execute("SELECT outbox.recover(id) FROM outbox.worker")
        actor.send(1)
        broker.join("default", timeout=120_000)
    assert seen == [1]
    broker.close()


def test_a_restart_of_the_database_is_survived(own_postgres: Database, seen: list[Any]) -> None:
    broker = PostgresBroker(own_postgres.url)
    actor = dramatiq.actor(seen.append, actor_name="note", broker=broker)
    with working(broker):
        actor.send(1)
        broker.join("default", timeout=120_000)
        own_postgres.postgres.stop()
        own_postgres.postgres.start()
        actor.send(2)
        broker.join("default", timeout=120_000)
    assert seen == [1, 2]
    broker.close()


def test_dramatiqs_worker_and_ours_serve_one_database(
    one_database: Database, broker: PostgresBroker, worker: Worker, seen: list[Any]
) -> None:
    """And whoever subscribes to a queue's topic sees its messages, too."""
    db = one_database.connect(autocommit=True)
    db.execute("SELECT outbox.subscribe('audit')")
    db.execute("SELECT outbox.bind('audit', 'dramatiq.*')")
    dramatiq.actor(seen.append, actor_name="note").send(1)
    broker.join("default", timeout=120_000)
    db.execute("SELECT outbox.register('ours', '{audit}')")
    pulled = "SELECT payload ->> 'actor_name' FROM outbox.pull('audit', (SELECT max(id) FROM outbox.worker))"
    assert db.execute(pulled).fetchall() == [("note",)]


def test_it_works_behind_pgbouncer(one_database: Database, pgbouncer: PgBouncer, seen: list[Any]) -> None:
    broker = PostgresBroker(pgbouncer.url(one_database.name))
    actor = dramatiq.actor(seen.append, actor_name="note", broker=broker)
    with working(broker):
        for number in range(50):
            actor.send(number)
        actor.send_with_options(args=(50,), delay=100)
        broker.join("default", timeout=120_000)
    broker.close()
    assert sorted(seen) == [*range(51)]
