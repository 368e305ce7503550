"""Handlers whose calls are spans: OpenTelemetry's, with the contexts that messages carry (`outbox.tracing`)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from outbox.model import Message
from outbox.subscription import Subscription
from outbox.tracing import carried, is_on, note_failure, operation, tracer

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # the extra is not installed: nothing is traced
    pass


def traced(subscription: Subscription) -> Subscription:
    """The same with a handler whose calls are spans; the subscription itself if the application does not trace."""
    if not is_on():
        return subscription
    handler = subscription.handler

    @functools.wraps(handler)
    def call(messages: Any, **given: Any) -> Any:
        with _processing(subscription, messages) as note:
            return note(handler(messages, **given))

    @functools.wraps(handler)
    async def call_async(messages: Any, **given: Any) -> Any:
        with _processing(subscription, messages) as note:
            return note(await handler(messages, **given))

    return replace(subscription, handler=call_async if subscription.is_async else call)


@contextmanager
def _processing(subscription: Subscription, messages: Message | list[Message]) -> Iterator[Any]:
    """The span around a call; it is told what the handler returned."""
    many = messages if isinstance(messages, list) else [messages]
    span = _start(subscription, many, isinstance(messages, list))
    token = contexts.attach(trace.set_span_in_context(span))
    try:
        yield functools.partial(_note, span)
    except BaseException as error:
        note_failure(span, error)
        raise
    finally:
        contexts.detach(token)
        span.end()


def _start(subscription: Subscription, messages: Sequence[Message], batch: bool) -> Any:
    """One message: its publish is the parent. Of many each has a link to its own."""
    found = [TraceContextTextMapPropagator().extract(carried(message), contexts.Context()) for message in messages]
    created = [trace.get_current_span(context).get_span_context() for context in found]
    links = [
        trace.Link(context, None if not batch else _of_message(message))
        for message, context in zip(messages, created, strict=True)
        if context.is_valid
    ]
    topics = {message.topic for message in messages}
    topic = next(iter(topics)) if len(topics) == 1 else None
    attributes = operation("process", "process") | _of_subscription(subscription, topic)
    attributes |= {"messaging.batch.message_count": len(messages)} if batch else _of_message(messages[0])
    return tracer().start_span(
        f"process {topic or subscription.name}",
        context=contexts.Context() if batch else found[0],
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        links=links,
    )


def _of_subscription(subscription: Subscription, topic: str | None) -> dict[str, Any]:
    named = {"messaging.destination.subscription.name": subscription.name}
    return named if topic is None else {**named, "messaging.destination.name": topic}


def _of_message(message: Message) -> dict[str, Any]:
    return {
        "messaging.message.id": str(message.id),
        "messaging.message.body.size": len(message.raw),
        "messaging.destination.partition.id": str(message.partition),
        "messaging.outbox.message.attempt": message.attempt,
    }


def _note(span: Any, returned: Any) -> Any:
    """A returned Retry or Reject is as good as a raised one."""
    for outcome in returned if isinstance(returned, list | tuple) else (returned,):
        if isinstance(outcome, BaseException) or (isinstance(outcome, type) and issubclass(outcome, BaseException)):
            note_failure(span, outcome)
            break
    return returned
