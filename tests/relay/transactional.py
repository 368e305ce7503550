"""A Kafka broker for tests of transactions: one node, all in memory of this process, faults as it is told.

Clients are librdkafka on both ends: a producer with the state of its transaction, a consumer that sorts out what was
aborted.
"""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import KafkaError

from tests.relay.stored import Partition, Producer, batches_of, epoch_of

PRODUCE, FETCH, LIST_OFFSETS, METADATA, FIND_COORDINATOR, VERSIONS = 0, 1, 2, 3, 10, 18
CREATE_TOPICS, INIT_PRODUCER, ADD_PARTITIONS, END_TRANSACTION = 19, 22, 24, 26
#: The one version of each request that it speaks.
_SPOKEN = {
    PRODUCE: 3, FETCH: 4, LIST_OFFSETS: 1, METADATA: 1, FIND_COORDINATOR: 1, VERSIONS: 0,
    INIT_PRODUCER: 3, ADD_PARTITIONS: 0, END_TRANSACTION: 1,
}  # fmt: skip


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, format: str) -> int:
        (found,) = struct.unpack_from(f">{format}", self._data, self._at)
        self._at += struct.calcsize(format)
        return int(found)

    def bytes(self, size: int) -> bytes:
        self._at += max(size, 0)
        return self._data[self._at - max(size, 0) : self._at]

    def text(self) -> str:
        return self.bytes(self.number("h")).decode()

    def compact(self) -> str:
        return self.bytes(self.number("B") - 1).decode()

    def each(self, read: Callable[[], Any]) -> list[Any]:
        return [read() for _ in range(max(self.number("i"), 0))]


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _array(items: list[bytes]) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(items)


class TransactionalBroker:
    """Its topics are made when they are first asked for, with three partitions."""

    def __init__(self) -> None:
        self._topics: dict[str, list[Partition]] = {}
        self._producers: dict[str, Producer] = {}
        self._numbers = 0
        self._changed = threading.Condition()
        self._faults: dict[int, deque[int | str | threading.Event]] = defaultdict(deque)
        #: What a batch must not hold; a broker refuses all of it.
        self.poison: bytes | None = None
        #: Topics that nobody may write to.
        self.refused: set[str] = set()
        #: How many requests of each kind have come, those that are held included.
        self.asked: dict[int, int] = defaultdict(int)
        broker = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(ConnectionError):  # who asked is gone
                    broker._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self._port}"

    @property
    def open_transactions(self) -> int:
        """Those with something in them."""
        with self._changed:
            return sum(bool(p.open) for partitions in self._topics.values() for p in partitions)

    @property
    def aborted(self) -> int:
        """How often a transaction was aborted in a partition."""
        with self._changed:
            return sum(len(p.aborted) for partitions in self._topics.values() for p in partitions)

    @property
    def ids(self) -> list[str]:
        """The transactional ids that were ever used."""
        with self._changed:
            return list(self._producers)

    @contextmanager
    def failing(self, request: int, *faults: int | str | threading.Event) -> Iterator[None]:
        """Let the next requests of a kind fail: an error is answered; "lost": it is done, and the answer is lost;
        "cut": nothing is done; an event: it is done when that is set. "": nothing happens to it."""
        self._faults[request].extend(faults)
        try:
            yield
        finally:
            self._faults[request].clear()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, connection: Any) -> None:
        stream = connection.makefile("rb")
        while size := stream.read(4):
            request = _Reader(stream.read(struct.unpack(">i", size)[0]))
            kind, version, number = request.number("h"), request.number("h"), request.number("i")
            if kind != VERSIONS:
                request.text()  # who asks
            if kind == INIT_PRODUCER:
                request.number("b")  # fields with tags: there are none
            answer = self._answered(kind, version, request)
            if answer is None:
                return
            answer = struct.pack(">i", number) + (b"\0" if kind == INIT_PRODUCER else b"") + answer
            connection.sendall(struct.pack(">i", len(answer)) + answer)

    def _answered(self, kind: int, version: int, request: _Reader) -> bytes | None:
        """None: the connection ends."""
        self.asked[kind] += 1
        fault = self._faults[kind].popleft() if self._faults[kind] else ""
        if isinstance(fault, threading.Event):
            fault.wait(60)
        if fault == "cut":
            return None
        with self._changed:
            error = fault if isinstance(fault, int) else int(KafkaError.NO_ERROR)
            answer = _ANSWERS[kind](self, request, error) if kind != VERSIONS else _versions(version)
            self._changed.notify_all()
        return None if fault == "lost" else answer

    def _topic(self, name: str) -> list[Partition]:
        return self._topics.setdefault(name, [Partition() for _ in range(3)])

    @property
    def _here(self) -> bytes:
        return struct.pack(">i", 1) + _text("127.0.0.1") + struct.pack(">i", self._port)

    def _metadata(self, request: _Reader, error: int) -> bytes:
        names = request.each(request.text) or list(self._topics)

        def partition(number: int) -> bytes:
            return struct.pack(">hii", 0, number, 1) + 2 * _array([struct.pack(">i", 1)])

        def topic(name: str) -> bytes:
            numbers = range(len(self._topic(name)))
            return struct.pack(">h", error) + _text(name) + b"\0" + _array([partition(n) for n in numbers])

        topics = [topic(name) for name in names]
        return _array([self._here + _text("")]) + struct.pack(">i", 1) + _array(topics)

    def _coordinator(self, request: _Reader, error: int) -> bytes:
        return struct.pack(">ihh", 0, error, -1) + self._here

    def _init(self, request: _Reader, error: int) -> bytes:
        id, _, _, epoch = request.compact(), request.number("i"), request.number("q"), request.number("h")
        self._numbers += 1
        producer = self._producers.setdefault(id, Producer(self._numbers)) if id else Producer(self._numbers)
        error = error or producer.begin_anew(epoch)
        return struct.pack(">ihqhB", 0, error, producer.number, producer.epoch, 0)

    def _asking(self, request: _Reader) -> tuple[Producer, int]:
        producer, (_, epoch) = self._producers[request.text()], (request.number("q"), request.number("h"))
        return producer, int(KafkaError.NO_ERROR if epoch == producer.epoch else KafkaError.INVALID_PRODUCER_EPOCH)

    def _add(self, request: _Reader, error: int) -> bytes:
        producer, fenced = self._asking(request)
        error = error or fenced

        def topic() -> bytes:
            name, numbers = request.text(), request.each(lambda: request.number("i"))
            for number in () if error else numbers:
                producer.add(self._topic(name)[number])
            return _text(name) + _array([struct.pack(">ih", number, error) for number in numbers])

        return struct.pack(">i", 0) + _array(request.each(topic))

    def _end(self, request: _Reader, error: int) -> bytes:
        producer, fenced = self._asking(request)
        error = error or fenced or producer.end(bool(request.number("b")))
        return struct.pack(">ih", 0, error)

    def _produce(self, request: _Reader, error: int) -> bytes:
        request.text(), request.number("h"), request.number("i")

        def topic() -> bytes:
            name = request.text()

            def partition() -> bytes:
                number, records = request.number("i"), request.bytes(request.number("i"))
                problem, offset = error, -1
                for batch in () if error else batches_of(records):
                    problem, offset = self._stored(name, number, batch)
                return struct.pack(">ihqq", number, problem, offset, -1)

            return _text(name) + _array(request.each(partition))

        return _array(request.each(topic)) + struct.pack(">i", 0)

    def _stored(self, name: str, number: int, batch: bytes) -> tuple[int, int]:
        producer, epoch = epoch_of(batch)
        owner = next((one for one in self._producers.values() if one.number == producer), None)
        partition = self._topic(name)[number]
        if name in self.refused:
            return int(KafkaError.TOPIC_AUTHORIZATION_FAILED), -1
        if self.poison is not None and self.poison in batch:
            return int(KafkaError.INVALID_RECORD), -1
        if owner is not None and epoch != owner.epoch:
            return int(KafkaError.INVALID_PRODUCER_EPOCH), -1
        if owner is not None and partition not in (owner.partitions or ()):
            return int(KafkaError.INVALID_TXN_STATE), -1
        return partition.append(batch)

    def _offsets(self, request: _Reader, error: int) -> bytes:
        request.number("i")

        def topic() -> bytes:
            name = request.text()

            def partition() -> bytes:
                number, at = request.number("i"), request.number("q")
                return struct.pack(">ihqq", number, error, -1, 0 if at == -2 else self._topic(name)[number].end)

            return _text(name) + _array(request.each(partition))

        return _array(request.each(topic))

    def _fetch(self, request: _Reader, error: int) -> bytes:
        _, wait, _, _, isolation = (request.number(format) for format in "iiiib")
        wanted = request.each(
            lambda: (request.text(), request.each(lambda: tuple(request.number(format) for format in "iqi")))
        )
        until = time.monotonic() + wait / 1000
        while True:
            found = [
                (name, [(n, self._topic(name)[n], *self._topic(name)[n].read(at, isolation == 1)) for n, at, _ in some])
                for name, some in wanted
            ]
            left = until - time.monotonic()
            if left <= 0 or any(records for _, some in found for *_, records, _ in some):
                break
            self._changed.wait(left)

        def partition(number: int, one: Partition, records: bytes, aborted: list[tuple[int, int]]) -> bytes:
            gone = _array([struct.pack(">qq", *each) for each in aborted])
            ends = struct.pack(">ihqq", number, error, one.end, one.stable)
            return ends + gone + struct.pack(">i", len(records)) + records

        topics = [_text(name) + _array([partition(*one) for one in some]) for name, some in found]
        return struct.pack(">i", 0) + _array(topics)


_ANSWERS: dict[int, Callable[[TransactionalBroker, _Reader, int], bytes]] = {
    PRODUCE: TransactionalBroker._produce,
    FETCH: TransactionalBroker._fetch,
    LIST_OFFSETS: TransactionalBroker._offsets,
    METADATA: TransactionalBroker._metadata,
    FIND_COORDINATOR: TransactionalBroker._coordinator,
    INIT_PRODUCER: TransactionalBroker._init,
    ADD_PARTITIONS: TransactionalBroker._add,
    END_TRANSACTION: TransactionalBroker._end,
}


def _versions(version: int) -> bytes:
    """In the form of its version 0, whichever is asked for."""
    error = KafkaError.NO_ERROR if version == 0 else KafkaError.UNSUPPORTED_VERSION
    return struct.pack(">h", error) + _array([struct.pack(">hhh", kind, v, v) for kind, v in _SPOKEN.items()])
