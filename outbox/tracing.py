"""OpenTelemetry: the span of a publish, whose context the message carries to its handlers (`outbox.processing`).

Nothing happens without `opentelemetry-api`, nor unless the application has set up a tracer provider. Names and
attributes are those of the semantic conventions for messaging, 1.44; contexts are W3C's `traceparent`, in the headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from outbox.model import Message

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # the extra is not installed
    trace = None  # type: ignore[assignment]  # asked before each use

_SYSTEM = {"messaging.system": "outbox"}


def is_on() -> bool:
    """Does the application trace?"""
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def tracer() -> Any:
    """The tracer of this package; only if the application traces."""
    return trace.get_tracer("outbox", schema_url="https://opentelemetry.io/schemas/1.44.0")


class Silence:
    """The span of a publish that nobody traces."""

    #: The headers that carry it.
    context: Mapping[str, str] = {}

    def end(self, messages: int, id: object) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Span(Silence):
    """The span of a publish: its context is the messages' creation context."""

    def __init__(self, topic: str) -> None:
        named = operation("send", "send") | {"messaging.destination.name": topic}
        self._span = tracer().start_span(f"send {topic}", kind=trace.SpanKind.PRODUCER, attributes=named)
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(self._span))
        self.context = carrier

    def end(self, messages: int, id: object) -> None:
        if id is None:
            self._span.set_attribute("messaging.batch.message_count", messages)
        else:
            self._span.set_attribute("messaging.message.id", str(id))
        self._span.end()

    def fail(self, error: BaseException) -> None:
        note_failure(self._span, error)
        self._span.end()


_SILENCE = Silence()


def sending(topic: str) -> Silence:
    """Begin the span of a publish."""
    return Span(topic) if is_on() else _SILENCE


def carried(message: Message) -> dict[str, str]:
    """A message's headers; none if they can't be read, since what is published in SQL may hold anything."""
    try:
        return message.headers
    except msgspec.DecodeError:
        return {}


def trace_id(message: Message) -> str | None:
    """The trace that a message belongs to, as its publisher wrote it; None: it has none."""
    parts = carried(message).get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None


def operation(name: str, kind: str) -> dict[str, Any]:
    """What says of a span which operation it is."""
    return {**_SYSTEM, "messaging.operation.name": name, "messaging.operation.type": kind}


def note_failure(span: Any, error: BaseException | type[BaseException]) -> None:
    """Name the error's class; its text may show what the message holds."""
    name = (error if isinstance(error, type) else type(error)).__qualname__
    span.set_attribute("error.type", name)
    span.set_status(trace.Status(trace.StatusCode.ERROR, name))
