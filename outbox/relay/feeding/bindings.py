"""Which messages of another log a subscription takes: what its bindings mean, outside of our own log."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from outbox.binding import Binding
from outbox.relay.feeding.message import Fed

#: Asks the database which of some messages fit one of some conditions.
Ask = Callable[[list[dict[str, object]], list[Fed]], Coroutine[Any, Any, list[bool]]]


class Sieve:
    """Lets through what fits one of some bindings; only filters need the database."""

    def __init__(self, bindings: Sequence[Binding]) -> None:
        self._bindings = [(re.compile(_expression(one.pattern)), one) for one in bindings]
        self._of_topics: dict[str, list[Binding]] = {}

    async def through(self, messages: list[Fed], ask: Ask) -> list[Fed]:
        """Those that fit, in order."""
        doubtful: dict[str, list[Fed]] = {}
        fits: set[int] = set()
        for message in messages:
            bindings = self._of(message.topic)
            if any(not one.filter and _has(one, message.headers) for one in bindings):
                fits.add(id(message))
            elif any(one.filter for one in bindings):
                doubtful.setdefault(message.topic, []).append(message)
        for topic, some in doubtful.items():
            found = await ask([_condition(one) for one in self._of(topic)], some)
            fits.update(id(message) for message, fit in zip(some, found, strict=True) if fit)
        return [message for message in messages if id(message) in fits]

    def _of(self, topic: str) -> list[Binding]:
        found = self._of_topics.get(topic)
        if found is None:
            found = [one for expression, one in self._bindings if expression.fullmatch(f".{topic}")]
            if len(self._of_topics) < 10_000:  # topics may come of keys, without end
                self._of_topics[topic] = found
        return found


def _expression(pattern: str) -> str:
    """Of a topic behind a dot: `*` is one word, `#` any number of words."""
    words = {"#": r"([.][^.]+)*", "*": r"[.][^.]+"}
    return "".join(words.get(word) or "[.]" + re.escape(word) for word in pattern.split("."))


def _has(binding: Binding, headers: dict[str, str]) -> bool:
    """Has a message the headers that a binding wants?"""
    if binding.headers is None:
        return True
    found = (name in headers and (value is None or headers[name] == value) for name, value in binding.headers.items())
    return all(found) if binding.match == "all" else any(found)


def _condition(binding: Binding) -> dict[str, object]:
    return {"headers": binding.headers, "match": binding.match, "filter": binding.filter}
