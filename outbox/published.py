"""What was published through an application, counted: from however many threads, for however many topics."""

from __future__ import annotations

import threading
from collections import Counter

from outbox.errors import PublishError

#: Topics that are counted by name; the others together.
_NAMED = 100
OTHERS = "other"


class Published:
    """Counts messages by topic, and errors by class."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: Counter[str] = Counter()
        #: With a 0 for those that are ours: of a series that begins above it, Prometheus does not see the first.
        self._errors: Counter[str] = Counter({error.__name__: 0 for error in PublishError.__subclasses__()})
        self._named: set[str] = set()

    def add(self, topic: str, messages: int) -> None:
        """So many were published."""
        with self._lock:
            self._messages[self._name(topic)] += messages

    def refuse(self, error: BaseException) -> None:
        """A publish failed."""
        with self._lock:
            self._errors[type(error).__name__] += 1

    def messages(self) -> list[tuple[str, int]]:
        with self._lock:
            return list(self._messages.items())

    def errors(self) -> list[tuple[str, int]]:
        """By the error's class."""
        with self._lock:
            return list(self._errors.items())

    def _name(self, topic: str) -> str:
        """A topic that was named once keeps its name, so that no count ever goes down."""
        if topic not in self._named:
            if len(self._named) >= _NAMED:
                return OTHERS
            self._named.add(topic)
        return topic
