"""A publish that is under way: what it comes to is counted, and traced if the application traces."""

from __future__ import annotations

from outbox import tracing
from outbox.published import Published


class Sending:
    """One call of `publish`, `publish_many` or `publish_later`."""

    def __init__(self, topic: str, published: Published) -> None:
        self._topic, self._published = topic, published
        self._span = tracing.sending(topic)

    def headers(self, own: dict[str, str] | None, most: int) -> dict[str, str] | None:
        """A message's headers with the context that its handlers' traces go on from.

        The message's own context, if it has one, stays; so do its headers, if there is no room for more.
        """
        context = self._span.context
        if not context or not isinstance(own, dict | None) or "traceparent" in (own or {}):
            return own
        return own if len(own or {}) + len(context) > most else {**(own or {}), **context}

    def sent(self, messages: int, id: object = None) -> None:
        """The statement has succeeded."""
        self._published.add(self._topic, messages)
        self._span.end(messages, id)

    def failed(self, error: BaseException) -> None:
        """Nothing was published."""
        if isinstance(error, Exception):
            self._published.refuse(error)
        self._span.fail(error)
