"""What a subscription reads: topics by pattern, and of their messages those with certain headers and content."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from outbox.errors import InvalidDeclaration

_PATTERN = re.compile(r"([A-Za-z0-9_-]+|\*|#)(\.([A-Za-z0-9_-]+|\*|#))*")


@dataclass(frozen=True, slots=True)
class Binding:
    """A message goes to a subscription if it fits one of its bindings: topic, headers and filter.

    Raises:
        InvalidDeclaration: the pattern or a setting is not one. What a filter means is checked by the database.
    """

    #: A topic, or words between dots, as in RabbitMQ: `*` is one word, `#` any number of words, none included.
    pattern: str
    #: Names and values that a message must have; None as a value: any.
    headers: dict[str, str | None] | None = None
    #: "all" of those headers, or "any".
    match: Literal["all", "any"] = "all"
    #: A predicate on the JSON payload, in SQL/JSON path: `$.total > 100 && $.country == "DE"`. Raw bytes never fit.
    filter: str | None = None
    #: Take only what fits no binding of another subscription that is not alternate, too.
    alternate: bool = False

    def __post_init__(self) -> None:
        if self.headers == {}:
            object.__setattr__(self, "headers", None)
        if not isinstance(self.pattern, str):
            raise InvalidDeclaration(f"a topic is {self.pattern!r}, it must be a str")
        if not _PATTERN.fullmatch(self.pattern):
            raise InvalidDeclaration(
                f"{self.pattern!r} is not a topic or pattern: words between dots, * or # as whole words"
            )
        if self.match not in ("all", "any"):
            raise InvalidDeclaration(f"match is {self.match!r}: 'all' of the headers, or 'any'")
        if self.headers is not None and not _are_headers(self.headers):
            raise InvalidDeclaration(f"headers are names and values, both text (None: any value), not {self.headers!r}")

    @property
    def is_plain(self) -> bool:
        """Does it take all messages of its topics?"""
        return not (self.headers or self.filter or self.alternate)

    def __str__(self) -> str:
        conditions = [f"headers {self.match} of {self.headers}"] if self.headers else []
        conditions += [f"filter {self.filter}"] if self.filter else []
        conditions += ["alternate"] if self.alternate else []
        return self.pattern + (f" ({', '.join(conditions)})" if conditions else "")


def _are_headers(headers: object) -> bool:
    return isinstance(headers, dict) and all(
        isinstance(name, str) and isinstance(value, str | None) for name, value in headers.items()
    )
