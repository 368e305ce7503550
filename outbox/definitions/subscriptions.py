"""Subscriptions with their settings and bindings: what there is, what differs, and how it becomes what is defined."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from outbox import duration
from outbox import settings as settings_of
from outbox import start as starts
from outbox.binding import Binding
from outbox.definitions.change import Change
from outbox.definitions.definition import Subscription
from outbox.operations import Operation, Statement

SECTION = "subscriptions"

#: What workers declare, too, with the defaults of a new subscription.
_DECLARED: dict[str, Any] = {"guarantee": "at-least-once", "max_attempts": 20, "on_failure": None}

#: Seconds for durations: an interval's text depends on the session.
_SELECT = "SELECT name, guarantee, max_attempts, on_failure, " + ", ".join(
    f"extract(epoch FROM {name})::float8" if kind is timedelta else name for name, kind in settings_of.KINDS.items()
)


def read() -> Operation[dict[str, Subscription]]:
    """All subscriptions, by name, with every field; but where a cursor started is not known any more."""
    rows = yield Statement(f"{_SELECT} FROM outbox.subscription ORDER BY name")
    bound = yield Statement(
        "SELECT s.name, b.pattern, b.headers::text, b.match, b.filter, b.alternate FROM outbox.binding b "
        "JOIN outbox.subscription s ON s.id = b.subscription_id "
        "ORDER BY b.pattern, b.alternate, b.match, b.headers, b.filter"
    )
    bindings: dict[str, list[str | Binding]] = {}
    for name, pattern, headers, *rest in bound:
        named = msgspec.json.decode(headers, type=dict[str, str | None]) if headers else None
        bindings.setdefault(name, []).append(Binding(pattern, named, *rest))
    return {name: _read(row, tuple(bindings.get(name, ()))) for name, *row in rows}


def _read(row: Sequence[Any], bindings: tuple[str | Binding, ...]) -> Subscription:
    guarantee, max_attempts, on_failure, *values = row
    settings: dict[str, Any] = {
        name: timedelta(seconds=value) if kind is timedelta and value is not None else value
        for (name, kind), value in zip(settings_of.KINDS.items(), values, strict=True)
    }
    return Subscription(
        guarantee=guarantee, max_attempts=max_attempts, on_failure=on_failure, bindings=bindings, **settings
    )


def changes(wanted: dict[str, Subscription], prune: bool = False, force: bool = False) -> Operation[list[Change]]:
    """What differs, and what is not possible: a filter that is none, a subscription to remove that is in use."""
    found = yield from read()
    strange = yield from _strange_filters(wanted)
    differing = [diff(name, one, found.get(name), prune, strange) for name, one in sorted(wanted.items())]
    others = []
    for name in sorted(set(found) - set(wanted)):
        others.append(
            (yield from _removal(name, force)) if prune else Change(section=SECTION, name=name, action="keep")
        )
    return [change for change in differing if change] + others


def _strange_filters(wanted: dict[str, Subscription]) -> Operation[dict[str, str]]:
    """What is wrong with filters, by their texts."""
    strange = {}
    filters = {b.filter for one in wanted.values() for b in one.bound or () if b.filter is not None}
    for text in sorted(filters):
        rows = yield Statement("SELECT outbox.filter_problem(CAST(%s AS text))", (text,))
        if rows[0][0]:
            strange[text] = rows[0][0]
    return strange


def _removal(name: str, force: bool) -> Operation[Change]:
    rows = yield Statement(
        "SELECT (SELECT string_agg(w.name, ', ') FROM outbox.worker w WHERE s.name = ANY (w.subscriptions) "
        "AND w.alive_until > clock_timestamp() AND w.retired_at IS NULL), "
        "(SELECT count(*) FROM outbox.dead_letter d WHERE d.subscription_id = s.id) "
        "FROM outbox.subscription s WHERE s.name = %s",
        (name,),
    )
    workers, dead = rows[0] if rows else (None, 0)
    problem = None
    if workers and not force:
        problem = f"live workers run it: {workers}; stop them first, or force it"
    elif dead and not force:
        problem = f"it has {dead} dead letters; redrive or purge them first, or force it"
    order = {"name": name, "remove": True, "force": force}
    return Change(section=SECTION, name=name, action="remove", problem=problem, order=order)


def diff(
    name: str,
    wanted: Subscription,
    found: Subscription | None,
    prune: bool = False,
    strange: dict[str, str] | None = None,
) -> Change | None:
    """How one subscription becomes what is defined; None if it is, and nothing is extra.

    A binding that is not in the file goes if one of the same pattern is, from which it was changed; or with `prune`.
    `strange` says what is wrong with filters.
    """
    new, gone, extra = _bindings(wanted.bound, found.bound or () if found else (), prune)
    declared = _declared(wanted, found)
    fields = {**declared, **wanted.settings}
    before = {f: getattr(found, f) for f in fields} if found else {**_DECLARED, **Subscription().settings}
    arrow = {f: f"{_text(before[f])} → " if found else "" for f in fields}
    lines = [f"{f}: {arrow[f]}{_text(value)}" for f, value in fields.items() if value != before[f]]
    lines += [f"+ {describe(binding)}, from {wanted.start}" for binding in new]
    lines += [f"- {describe(binding)}" for binding in gone]
    if found is not None and not lines and not extra:
        return None
    order = {
        "name": name,
        **declared,
        "settings": settings_of.plain(wanted.settings),  # type: ignore[arg-type]  # all of them
        "start": starts.text(wanted.start),
        "bind": [_plain(binding) for binding in new],
        "unbind": [_plain(binding) for binding in gone],
    }
    return Change(
        section=SECTION,
        name=name,
        action="create" if found is None else "change" if lines else "keep",
        lines=tuple(lines),
        extra=tuple(describe(binding) for binding in extra),
        problem="; ".join(_problems(new, fields, strange or {})) or None,
        order=order,
    )


def _problems(new: list[Binding], fields: dict[str, Any], strange: dict[str, str]) -> list[str]:
    """What the database would refuse."""
    problems = [f"{describe(b)}: {strange[b.filter]}" for b in new if b.filter in strange]
    guarantee, on_failure = fields["guarantee"], fields["on_failure"]
    if on_failure and guarantee == "at-most-once":
        problems.append("at-most-once tries nothing again, so it can't be ordered")
    if fields["fair"] and (on_failure or guarantee == "at-most-once"):
        problems.append(f"it is {guarantee}, on_failure {on_failure}: it can't be fair")
    return problems


def _bindings(
    wanted: tuple[Binding, ...] | None, found: tuple[Binding, ...], prune: bool
) -> tuple[list[Binding], list[Binding], list[Binding]]:
    """New ones, those that go, and those that stay though they are not in the file."""
    if wanted is None:
        return [], [], []
    patterns = {binding.pattern for binding in wanted}
    others = [binding for binding in found if binding not in wanted]
    gone = [binding for binding in others if prune or binding.pattern in patterns]
    return [b for b in wanted if b not in found], gone, [b for b in others if b not in gone]


def _declared(wanted: Subscription, found: Subscription | None) -> dict[str, Any]:
    """What workers declare, too, as it shall be."""
    base = {name: getattr(found, name) for name in _DECLARED} if found and wanted.guarantee is None else _DECLARED
    return {name: base[name] if (value := getattr(wanted, name)) is None else value for name in _DECLARED}


def apply(changes: list[Change]) -> Operation[None]:
    """Do it, all in one statement, which must be the beginning of the transaction: it places cursors."""
    if changes:
        orders = msgspec.json.encode([change.order for change in changes]).decode()
        yield Statement("SELECT outbox.define(CAST(CAST(%s AS text) AS jsonb))", (orders,))


def describe(binding: Binding) -> str:
    """A binding in a line."""
    parts = [f"binding {binding.pattern}"]
    if binding.headers:
        headers = (name if value is None else f"{name}={value}" for name, value in sorted(binding.headers.items()))
        parts.append(f"with {'all' if binding.match == 'all' else 'any'} of {', '.join(headers)}")
    parts += [f"where {binding.filter}"] if binding.filter is not None else []
    parts += ["alternate"] if binding.alternate else []
    return " ".join(parts)


def _plain(binding: Binding) -> dict[str, Any]:
    return {name: getattr(binding, name) for name in ("pattern", "headers", "match", "filter", "alternate")}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.15g}"
    return duration.text(value) if isinstance(value, timedelta) else str(value)
