"""Definitions as text: TOML, or YAML (with the extra `yaml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from outbox import duration
from outbox.binding import Binding
from outbox.definitions.definition import Definitions, check, convert, duration_fields, quoted, sections
from outbox.errors import InvalidDeclaration

_YAML = (".yaml", ".yml")


class _BindingTable(msgspec.Struct, forbid_unknown_fields=True):
    """A binding that is more than a pattern. A header of true: any value, as there is no null in TOML."""

    topic: str
    headers: dict[str, str | bool | None] = {}
    match: str = "all"
    filter: str | None = None
    alternate: bool = False


def read(path: str | Path) -> Definitions:
    """Read a file: YAML if its name says so, else TOML.

    Raises:
        InvalidDeclaration: the file, the path of the field in it, and what is expected there.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidDeclaration(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidDeclaration(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        return parse(text, "yaml" if Path(path).suffix.lower() in _YAML else "toml")
    except InvalidDeclaration as error:
        raise InvalidDeclaration(f"{path}: {error}") from None


def parse(text: str, language: str = "toml") -> Definitions:
    """Definitions from "toml" or "yaml". Raises InvalidDeclaration: the path of the field, and what is expected."""
    raw = _load_yaml(text) if language == "yaml" else _load_toml(text)
    if not isinstance(raw, dict):
        raise InvalidDeclaration(f"it must be tables of {', '.join(sections())}, not {type(raw).__name__}")
    if strange := [str(name) for name in raw if name not in sections()]:
        raise InvalidDeclaration(f"{quoted(strange[0])}: there is no such section; there are {', '.join(sections())}")
    found: dict[str, Any] = {section: _section(section, kind, raw.get(section)) for section, kind in sections().items()}
    definitions = Definitions(**found)
    check(definitions)
    return definitions


def text(definitions: Definitions, language: str = "toml") -> str:
    """Definitions as "toml" or "yaml", sorted by name, defaults left out: `parse` reads the same."""
    sorted_plain = {
        section: {name: plain(one) for name, one in sorted(getattr(definitions, section).items())}
        for section in sections()
        if getattr(definitions, section)
    }
    return _dump_yaml(sorted_plain) if language == "yaml" else tomli_w.dumps(sorted_plain)


def _section(section: str, kind: type[msgspec.Struct], raw: Any) -> dict[str, msgspec.Struct]:
    found = {}
    for name, fields in _table(section, raw or {}).items():
        where = f"{section}.{quoted(str(name))}"
        named = {field: value for field, value in _table(where, fields or {}).items() if value is not None}
        for field in duration_fields(kind) & set(named):
            named[field] = _duration(f"{where}.{field}", named[field])
        if isinstance(start := named.get("start"), datetime):  # both languages have times of their own
            named["start"] = start.isoformat()
        if isinstance(named.get("bindings"), list):
            named["bindings"] = [_binding(f"{where}.bindings[{n}]", one) for n, one in enumerate(named["bindings"])]
        found[str(name)] = convert(named, kind, where)
    return found


def _table(where: str, raw: Any) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise InvalidDeclaration(f"{where}: expected a table of fields, got {raw!r}")
    return raw


def _duration(where: str, raw: Any) -> timedelta:
    try:
        return duration.parse(raw)
    except ValueError as error:
        raise InvalidDeclaration(f"{where}: {error}") from None


def _binding(where: str, raw: Any) -> str | Binding:
    if isinstance(raw, str):
        return raw
    table = convert(_table(where, raw), _BindingTable, where)
    headers = {name: None if value is True else value for name, value in table.headers.items()}
    try:
        return Binding(table.topic, headers or None, table.match, table.filter, table.alternate)  # type: ignore[arg-type]  # it checks
    except InvalidDeclaration as error:
        raise InvalidDeclaration(f"{where}: {error}") from None


def plain(one: msgspec.Struct) -> dict[str, Any]:
    """Its fields, but for defaults; durations as text."""
    defaults = type(one)()
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    fields = {name: value for name, value in fields.items() if value != getattr(defaults, name)}
    if "bindings" in fields:
        fields["bindings"] = [_plain_binding(b if isinstance(b, Binding) else Binding(b)) for b in fields["bindings"]]
    return {name: _readable(value) for name, value in fields.items()}


def _readable(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return plain(value)
    if isinstance(value, tuple):
        return [_readable(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return duration.text(value) if isinstance(value, timedelta) else value


def _plain_binding(binding: Binding) -> str | dict[str, Any]:
    more: dict[str, Any] = {}
    if binding.headers:
        more["headers"] = {name: True if value is None else value for name, value in sorted(binding.headers.items())}
    more |= {"match": binding.match} if binding.match != "all" else {}
    more |= {"filter": binding.filter} if binding.filter is not None else {}
    more |= {"alternate": True} if binding.alternate else {}
    return {"topic": binding.pattern, **more} if more else binding.pattern


def _load_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidDeclaration(f"it is not TOML: {error}") from None


def _load_yaml(text: str) -> Any:
    yaml = _yaml()
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InvalidDeclaration(f"it is not YAML: {' '.join(str(error).split())}") from None


def _dump_yaml(plain: dict[str, Any]) -> str:
    written: str = _yaml().safe_dump(plain, sort_keys=False, allow_unicode=True) if plain else ""
    return written


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise InvalidDeclaration("YAML needs a package: pip install 'outbox-pg[yaml]'") from None
    return yaml
