"""A trace from the publisher through Postgres to the handler, and on to the messages that it publishes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.trace import SpanKind, StatusCode

from outbox import NewMessage, Outbox, tracing
from outbox.errors import InvalidMessage
from tests.library.workshop import PREAMBLE, wait_for_rest
from tests.shop_floor import Database, WorkerProcess, wait_for, worker


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Tracing is on, for this test only."""
    provider = TracerProvider()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", lambda *names, **more: provider.get_tracer(*names, **more))
    yield exporter
    provider.shutdown()


def headers(database: Database) -> list[dict[str, str]]:
    with database.connect() as connection:
        return [found or {} for (found,) in connection.execute('SELECT headers FROM outbox.message ORDER BY "offset"')]


def test_a_publish_is_a_span_whose_context_the_message_carries(
    one_database: Database, spans: InMemorySpanExporter
) -> None:
    with psycopg.connect(one_database.url) as connection:
        id = Outbox().publish(connection, "orders.placed", 1, headers={"h": "v"})
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("send orders.placed", SpanKind.PRODUCER)
    assert span.attributes == {
        messaging_attributes.MESSAGING_SYSTEM: "outbox",
        messaging_attributes.MESSAGING_OPERATION_NAME: "send",
        messaging_attributes.MESSAGING_OPERATION_TYPE: messaging_attributes.MessagingOperationTypeValues.SEND.value,
        messaging_attributes.MESSAGING_DESTINATION_NAME: "orders.placed",
        messaging_attributes.MESSAGING_MESSAGE_ID: str(id),
    }
    context = span.get_span_context()
    assert context is not None
    (carried,) = headers(one_database)
    assert carried["h"] == "v"
    assert carried["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


def test_a_context_that_a_message_has_already_stays(one_database: Database, spans: InMemorySpanExporter) -> None:
    own = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with psycopg.connect(one_database.url) as connection:
        Outbox().publish(connection, "t", 1, headers=own)
        Outbox().publish_many(connection, "t", [NewMessage(1, headers=own), 2])
    found = headers(one_database)
    assert [one == own for one in found] == [True, True, False]
    assert spans.get_finished_spans()[1].attributes["messaging.batch.message_count"] == 2  # type: ignore[index]


def test_a_message_with_as_many_headers_as_there_may_be_is_published(
    one_database: Database, spans: InMemorySpanExporter
) -> None:
    with psycopg.connect(one_database.url) as connection:
        Outbox().publish(connection, "t", 1, headers={f"h{number}": "v" for number in range(64)})
    assert len(headers(one_database)[0]) == 64


def test_a_publish_that_fails_is_a_span_with_the_errors_class_only(
    one_database: Database, spans: InMemorySpanExporter
) -> None:
    with psycopg.connect(one_database.url) as connection, pytest.raises(InvalidMessage):
        Outbox().publish(connection, "t", float("nan"))
    (span,) = spans.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "InvalidMessage")
    assert span.attributes is not None
    assert span.attributes["error.type"] == "InvalidMessage"
    assert span.events == ()


def test_nothing_is_traced_unless_the_application_asks(one_database: Database) -> None:
    assert not tracing.is_on()
    with psycopg.connect(one_database.url) as connection:
        Outbox().publish(connection, "t", 1)
    assert headers(one_database) == [{}]


TRACED = f"""{PREAMBLE}
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
spans = open("spans.jsonl", "a")
provider.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(out=spans, formatter=lambda span: span.to_json(indent=None) + "\\n"))
)
trace.set_tracer_provider(provider)

@app.subscribe("first", "orders.*", guarantee="exactly-once")
def follow_up(message, connection: psycopg.Connection):
    app.publish(connection, "follow-ups", message.payload)

@app.subscribe("second", "follow-ups")
async def end(message):
    note(trace.get_current_span().get_span_context().trace_id)

@app.subscribe("many", "orders.*")
def many(messages: list[Message]):
    pass

@app.subscribe("failing", "orders.*", retries=Retries(max_attempts=1))
def fail(message):
    raise ValueError("secret")

@app.subscribe("refusing", "orders.*")
def refuse(message):
    return Reject("secret")
"""


def exported(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "spans.jsonl").read_text().splitlines()]


def test_a_trace_goes_from_publish_to_handler_to_follow_up(
    shop: Database, tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    with psycopg.connect(shop.url) as connection, trace.get_tracer("test").start_as_current_span("order") as order:
        Outbox().publish(connection, "orders.placed", 1)
    trace_id = f"0x{order.get_span_context().trace_id:032x}"
    with worker(shop.url, tmp_path, TRACED) as process:
        wait_for(lambda: shop.value("SELECT count(*) FROM seen") == 1, "the follow-up")
        wait_for_rest(shop)
        log = process.log
        assert process.stop() == 0
    found = {
        (span["name"], span["attributes"].get("messaging.destination.subscription.name")): span
        for span in exported(tmp_path)
    }
    first, second = found["process orders.placed", "first"], found["process follow-ups", "second"]
    sent = found["send follow-ups", None]
    (published,) = (span for span in spans.get_finished_spans() if span.name == "send orders.placed")
    assert {one["context"]["trace_id"] for one in (first, sent, second)} == {trace_id}
    assert first["parent_id"] == span_id(published)
    assert sent["parent_id"] == first["context"]["span_id"]
    assert second["parent_id"] == sent["context"]["span_id"]
    assert first["kind"] == "SpanKind.CONSUMER"
    assert first["attributes"] == {
        "messaging.system": "outbox",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders.placed",
        "messaging.destination.subscription.name": "first",
        "messaging.destination.partition.id": "0",
        "messaging.message.id": "1-1",
        "messaging.message.body.size": 1,
        "messaging.outbox.message.attempt": 1,
    }
    many = found["process orders.placed", "many"]
    assert many["parent_id"] is None
    assert [link["context"]["trace_id"] for link in many["links"]] == [trace_id]
    assert many["attributes"]["messaging.batch.message_count"] == 1
    for name, error in (("failing", "ValueError"), ("refusing", "Reject")):
        failed = found["process orders.placed", name]
        assert failed["status"] == {"status_code": "ERROR", "description": error}
        assert failed["attributes"]["error.type"] == error
    assert "secret" not in (tmp_path / "spans.jsonl").read_text()
    assert re.search(rf"dead letter subscription=failing message=1-1 .*trace={trace_id[2:]}", log)


def span_id(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"0x{context.span_id:016x}"


def test_a_batch_links_to_each_of_its_messages(shop: Database, tmp_path: Path, spans: InMemorySpanExporter) -> None:
    app = Outbox()
    with psycopg.connect(shop.url) as connection:
        for number in range(3):
            app.publish(connection, "orders.placed", number)
    with worker(shop.url, tmp_path, TRACED, "--only", "many") as process:
        wait_for_rest(shop)
        assert process.stop() == 0
    links = [link for span in exported(tmp_path) for link in span["links"]]
    assert [link["context"]["span_id"] for link in links] == [span_id(span) for span in spans.get_finished_spans()]
    assert [link["attributes"]["messaging.message.id"] for link in links] == ["1-1", "1-2", "1-3"]


def test_all_works_without_the_extra(shop: Database, tmp_path: Path) -> None:
    """As if opentelemetry were not installed."""
    (tmp_path / "opentelemetry.py").write_text("raise ImportError\n")
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message):\n    note(message.payload)\n"
    with psycopg.connect(shop.url) as connection:
        Outbox().publish(connection, "t", "a")
    process = WorkerProcess(shop.url, tmp_path, app, more={"PYTHONPATH": f"{tmp_path}:{sys.path[0] or '.'}"})
    try:
        wait_for(lambda: shop.value("SELECT count(*) FROM seen") == 1, "it is handled")
    finally:
        process.kill()
