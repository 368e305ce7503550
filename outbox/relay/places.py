"""Where a message goes there, and where what comes from there goes here."""

from __future__ import annotations

import re

from outbox.model import Message

_STRANGE = re.compile(r"[^A-Za-z0-9_.-]+")


def address_of(template: str, message: Message) -> str:
    """A template with {topic} and {key} in it, of a message; without a key that is nothing."""
    return template.replace("{topic}", message.topic).replace("{key}", message.key or "")


def topic_of(template: str, address: str, type: str | None) -> str:
    """A template with {address} and {type} in it; what no topic's name may hold becomes `_`."""
    return template.replace("{address}", as_topic(address)).replace("{type}", as_topic(type or "untyped"))


def as_topic(text: str) -> str:
    """Words between single dots, none of them empty."""
    words = [word for word in _STRANGE.sub("_", text).split(".") if word]
    return ".".join(words)[:255].rstrip(".") or "_"
