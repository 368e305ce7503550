"""Handlers on a queue of RabbitMQ instead of the log: what is delivered again has no second effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.relay.brokers import RabbitMQ
from tests.relay.feeding import EXACTLY_ONCE, FAILING, check_once, count, left, send_to_queue, told
from tests.shop_floor import Database, wait_for, worker


@pytest.mark.parametrize("more", [", ordered=True, batch=5, concurrency=2", ", concurrency=4"])
def test_effects_are_exactly_once_though_workers_are_killed_again_and_again(
    books: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str, more: str
) -> None:
    send_to_queue(rabbitmq.url, name, range(600))
    app = EXACTLY_ONCE.format(more=more)
    arguments = ["--from", f"{rabbitmq.url}/?queue={name}", "--timeout", "2"]
    for wanted in 30, 150, 350:
        with worker(books.url, tmp_path, app, *arguments) as process:
            wait_for(lambda wanted=wanted: count(books) >= wanted, f"{wanted} of them")  # type: ignore[misc]
            process.kill()
    with worker(books.url, tmp_path, app, *arguments) as process:
        send_to_queue(rabbitmq.url, name, range(600, 800))
        wait_for(lambda: count(books) >= 800, "all of them")
        assert process.stop() == 0
    assert left(rabbitmq.url, name) == 0
    check_once(books, range(800), in_order="ordered" in more)
    assert books.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_a_failing_message_is_tried_again_here_and_the_queue_goes_on(
    books: Database, tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    """The queue is that of the subscription's name."""
    books.execute("INSERT INTO broken VALUES (3)")
    send_to_queue(rabbitmq.url, "books", range(30))
    with worker(books.url, tmp_path, FAILING.format(more=""), "--from", rabbitmq.url) as process:
        wait_for(lambda: books.value("SELECT count(*) FROM outbox.dead_letter") == 1, "a dead letter")
        wait_for(lambda: count(books) == 29, "the others")
        assert [one[5] for one in told(process.log) if one[1] == "3"] == [1, 2, 3]
        assert process.stop() == 0
    assert left(rabbitmq.url, "books") == 0


def test_an_ordered_subscription_reads_a_queue_in_one_process_and_another_takes_over(
    books: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    app = EXACTLY_ONCE.format(more=", ordered=True")
    arguments = ["--from", f"{rabbitmq.url}/?queue={name}"]
    (tmp_path / "b").mkdir()
    send_to_queue(rabbitmq.url, name, range(50))
    with worker(books.url, tmp_path, app, *arguments) as first:
        wait_for(lambda: count(books) == 50, "the first")
        with worker(books.url, tmp_path / "b", app, *arguments) as second:
            second.wait_for_line("circuit open")
            first.kill()
            send_to_queue(rabbitmq.url, name, range(50, 100))
            wait_for(lambda: count(books) == 100, "the rest")
            assert second.stop() == 0
    check_once(books, range(100))


def test_a_broker_that_restarts_loses_and_doubles_nothing(books: Database, tmp_path: Path, name: str) -> None:
    broker = RabbitMQ()
    try:
        send_to_queue(broker.url, name, range(300))
        arguments = ["--from", f"{broker.url}/?queue={name}"]
        with worker(books.url, tmp_path, EXACTLY_ONCE.format(more=", concurrency=2"), *arguments) as process:
            wait_for(lambda: count(books) >= 20, "the first")
            broker.kill()
            broker.start()
            wait_for(lambda: count(books) >= 300, "all of them")
            wait_for(lambda: left(broker.url, name) == 0, "all acknowledged")
            assert process.stop() == 0
        check_once(books, range(300), in_order=False)
    finally:
        broker.remove()
