"""Whatever handlers on another system's log ask for, and whoever is killed or goes away meanwhile: effects are once."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.relay.brokers import RabbitMQ
from tests.relay.feeding import (
    EACH_KIND,
    EXACTLY_ONCE,
    TAKERS,
    check_each_kind,
    check_once,
    count,
    feeding,
    left,
    send,
    send_to_queue,
)
from tests.relay.peers import KafkaPeer
from tests.shop_floor import CommandProcess, Database, outbox, wait_for, worker

MESSAGES = 500


def children(process: CommandProcess) -> list[int]:
    """The worker processes of one that has several."""
    parent = process.process.pid
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def kill(books: Database, process: CommandProcess, at: int, which: slice) -> None:
    """Some of its processes, when there are so many effects."""
    wait_for(lambda: count(books) >= at, f"{at} of them")
    for pid in children(process)[which]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def check_handled(books: Database, process: CommandProcess) -> None:
    wait_for(lambda: count(books) >= len(TAKERS) * MESSAGES, "all of them")
    wait_for(lambda: books.value("SELECT count(*) FROM outbox.redelivery") == 0, "nothing goes round")
    assert process.stop() == 0
    check_each_kind(books, range(MESSAGES))


def test_each_kind_of_handler_has_its_effects_once_on_kafka_though_processes_of_several_are_killed(
    books: Database, tmp_path: Path, mock: str, name: str
) -> None:
    send(mock, name, range(MESSAGES))
    with worker(books.url, tmp_path, EACH_KIND, *feeding(mock, name), "-p", "2", "--timeout", "2") as process:
        kill(books, process, 700, slice(None))  # one by one, each would take Kafka ten seconds to notice
        check_handled(books, process)


def test_each_kind_of_handler_has_its_effects_once_on_rabbitmq_though_processes_of_several_are_killed(
    books: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    for taker in TAKERS:
        send_to_queue(rabbitmq.url, f"{name}.{taker}", range(MESSAGES))
    arguments = ["--from", f"{rabbitmq.url}/?queue={name}.{{subscription}}", "-p", "2", "--timeout", "2"]
    with worker(books.url, tmp_path, EACH_KIND, *arguments) as process:
        kill(books, process, 200, slice(1))
        kill(books, process, 1200, slice(None))
        check_handled(books, process)
    assert [left(rabbitmq.url, f"{name}.{taker}") for taker in TAKERS] == [0] * len(TAKERS)


@pytest.mark.parametrize("peer", ["kafka", "librdkafka"], indirect=True)
def test_a_kafka_that_goes_away_in_the_middle_is_shown_and_loses_and_doubles_nothing_when_it_is_back(
    books: Database, tmp_path: Path, peer: KafkaPeer
) -> None:
    peer.create()
    send(peer.url, peer.name, range(200))
    app = EXACTLY_ONCE.format(more=", ordered=True, batch=5")
    with worker(books.url, tmp_path, app, *feeding(peer.url, peer.name)) as process:
        for so_far in 200, 400:
            wait_for(lambda so_far=so_far: count(books) >= so_far - 170, "some of them")  # type: ignore[misc]
            peer.vanish()
            process.wait_for_line("circuit open", times=so_far // 200)
            wait_for(lambda: "open" in outbox(books.url, "status").stdout, "it is seen")
            peer.reappear()
            wait_for(lambda: "open" not in outbox(books.url, "status").stdout, "it is seen that it is back")
            send(peer.url, peer.name, range(so_far, so_far + 200))
        wait_for(lambda: count(books) >= 600, "all of them")
        assert process.stop() == 0
    check_once(books, range(600))
