"""Configuration files as types: a TOML file of tables, each key with its default, range and description.

``settings.station_toml`` (station.toml) and ``gateways.config`` (gateway.toml) say which tables there are.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from asperity.runtime.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME_PATTERN = r"\A[a-z0-9_-]{1,32}\Z"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
NAME_RULE = "1 to 32 characters from a-z 0-9 _ -"


def text(description: str) -> Meta:
    """What a key is."""
    return Meta(description=description)


def number(low: float, high: float, description: str) -> Meta:
    """What a key is, and its range."""
    return Meta(ge=low, le=high, description=description)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all tables of the file."""


Kind = TypeVar("Kind", bound=Section)


def read_sections(
    kind: type[Kind],
    path: Path | None,
    overrides: Mapping[str, Mapping[str, Any]] | None,
    make_absolute: Callable[[dict[str, Any], Path], None],
) -> Kind:
    """A TOML file of the tables of ``kind`` (a Section of Sections), with ``overrides`` over it. Raises ConfigError.

    ``make_absolute`` is given the file's values and its folder, and makes relative paths absolute in place.
    """
    values: dict[str, Any] = {}
    where = where_of(path)
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from error
        make_absolute(values, path.parent)
    for section, entries in (overrides or {}).items():
        table = values.setdefault(section, {})
        if isinstance(table, dict):
            table.update(entries)
    _refuse_unknown(kind, values, where)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_say(str(error))}") from error


def entry_kind(hint: Any) -> type[Section] | None:
    """The kind of the tables of a list of tables, such as [[stations]]; None: not a list."""
    if get_origin(hint) is not list:
        return None
    kind: type[Section] = get_args(hint)[0]
    return kind


def where_of(path: Path | None) -> str:
    return "the flags" if path is None else str(path)


def _refuse_unknown(whole: type[Section], values: Mapping[str, Any], where: str) -> None:
    sections = get_type_hints(whole)
    for section, entries in values.items():
        if section not in sections:
            raise ConfigError(f"{where}: there is no [{section}]{_nearest(section, sections)}")
        kind = sections[section]
        listed = entry_kind(kind)
        if listed is not None:
            if not isinstance(entries, list) or not all(isinstance(table, Mapping) for table in entries):
                raise ConfigError(f"{where}: {section} are tables; write each as [[{section}]]")
            for table in entries:
                _refuse_unknown_keys(listed, table, f"{where}: [[{section}]]")
            continue
        if not isinstance(entries, Mapping):
            raise ConfigError(f"{where}: {section} is a table; write it as [{section}]")
        if isinstance(kind, type) and issubclass(kind, Section):
            _refuse_unknown_keys(kind, entries, f"{where}: [{section}]")


def _refuse_unknown_keys(kind: type[Section], entries: Mapping[str, Any], where: str) -> None:
    for key in entries:
        if key not in kind.__struct_fields__:
            raise ConfigError(f"{where} has no key {key}{_nearest(key, kind.__struct_fields__)}")


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"


def _say(message: str) -> str:
    """msgspec's ``Expected `int` >= 1 - at `$.limits.slots``` as ``[limits] slots: expected int >= 1``."""
    what, _, at = message.partition(" - at ")
    parts = at.strip("`").removeprefix("$.").split(".")
    what = what.replace("`", "").replace(f"matching regex {NAME_PATTERN!r}", f"of {NAME_RULE}")
    listed = re.fullmatch(r"(\w+)\[(\d+)\]", parts[0])
    table = f"[[{listed[1]}]] no. {int(listed[2]) + 1}," if listed else f"[{parts[0]}]"
    return f"{table} {'.'.join(parts[1:])}: {what[:1].lower()}{what[1:]}" if at else what
