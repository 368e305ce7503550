"""librdkafka's own Kafka cluster, in this process: its brokers go and come with their data, answer as they are told."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
from confluent_kafka import KafkaError

#: Of Kafka's protocol.
PRODUCE = 0
_PRODUCER = 0


class MockCluster:
    """Three brokers. Their faults are reached through the C API: the Python client can only make them."""

    brokers = (1, 2, 3)

    def __init__(self) -> None:
        self._library = _librdkafka()
        settings, problem = self._library.rd_kafka_conf_new(), ctypes.create_string_buffer(512)
        self._library.rd_kafka_conf_set(settings, b"log_level", b"0", problem, 512)
        self._client = self._library.rd_kafka_new(_PRODUCER, settings, problem, 512)
        assert self._client, problem.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, len(self.brokers))
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 100)

    @property
    def url(self) -> str:
        return "kafka://" + self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def kill(self) -> None:
        """All brokers at once; they keep what they have."""
        for broker in self.brokers:
            self._library.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def start(self) -> None:
        for broker in self.brokers:
            self._library.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def create(self, topic: str, partitions: int) -> None:
        self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)

    def delete(self, topic: str) -> None:
        self._library.rd_kafka_mock_topic_delete(self._cluster, topic.encode())

    def slow(self, milliseconds: int) -> None:
        """Let each answer take so long; 0: none."""
        for broker in self.brokers:
            self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds)

    def refuse(self, topic: str, error: int = KafkaError.NO_ERROR) -> None:
        """Answer whatever concerns a topic with an error, until there is none."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), error)

    @contextmanager
    def answering(self, request: int, *errors: int) -> Iterator[None]:
        """Answer the next requests of a kind with errors, in this order."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, request, len(errors), array)
        try:
            yield
        finally:
            self._library.rd_kafka_mock_clear_request_errors(self._cluster, request)

    def remove(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)


def _librdkafka() -> ctypes.CDLL:
    """The one that the Python client has loaded."""
    assert confluent_kafka.libversion()
    maps = Path("/proc/self/maps").read_text().splitlines()
    library = ctypes.CDLL(next(line.split()[-1] for line in maps if "librdkafka" in line))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("conf_new", pointer, ()),
        ("conf_set", number, (pointer, text, text, text, ctypes.c_size_t)),
        ("new", pointer, (number, pointer, text, ctypes.c_size_t)),
        ("destroy", None, (pointer,)),
        ("mock_cluster_new", pointer, (pointer, number)),
        ("mock_cluster_destroy", None, (pointer,)),
        ("mock_cluster_bootstraps", text, (pointer,)),
        ("mock_group_initial_rebalance_delay_ms", None, (pointer, ctypes.c_int32)),
        ("mock_broker_set_down", number, (pointer, ctypes.c_int32)),
        ("mock_broker_set_up", number, (pointer, ctypes.c_int32)),
        ("mock_broker_set_rtt", number, (pointer, ctypes.c_int32, number)),
        ("mock_topic_create", number, (pointer, text, number, number)),
        ("mock_topic_delete", number, (pointer, text)),
        ("mock_topic_set_error", None, (pointer, text, number)),
        ("mock_push_request_errors_array", None, (pointer, ctypes.c_int16, ctypes.c_size_t, pointer)),
        ("mock_clear_request_errors", None, (pointer, ctypes.c_int16)),
    ):
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library
