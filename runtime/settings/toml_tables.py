"""Configuration files as types: a TOML file of tables, each key with its default, range and description.

``settings.station_toml`` (station.toml) and ``gateways.config`` (gateway.toml) say which tables there are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from asperity.runtime.errors import ConfigError
from asperity.runtime.files import read_file
from asperity.runtime.text.addresses import check_endpoint, check_host
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_toml
from asperity.runtime.text.names import path_from

MAX_TOML_NBYTES = 2**20

NAME_PATTERN = r"\A[a-z0-9_-]{1,32}\Z"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
NAME_RULE = "1 to 32 characters from a-z 0-9 _ -"
FLAGS = "the flags"


def text(description: str) -> Meta:
    """What a key is."""
    return Meta(description=description)


def path_text(description: str, *, unless: str = "") -> Meta:
    """What a key is, whose value is a path, relative to the file. ``unless``: what a value begins with that is none."""
    return Meta(description=description, extra={"is": "path", "unless": unless})


def endpoint_text(description: str, *, binds: bool = False) -> Meta:
    """What a key is, whose value is an endpoint. ``binds``: of a socket of this process, so that its port may be 0."""
    return Meta(description=description, extra={"is": "endpoint", "binds": binds})


def host_text(description: str) -> Meta:
    """What a key is, whose value is an IP address or a host's name."""
    return Meta(description=description, extra={"is": "host"})


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
    elsewhere: Mapping[str, str] = {},
) -> Kind:
    """A TOML file of the tables of ``kind`` (a Section of Sections), with ``overrides`` over it. Raises ConfigError.

    Relative paths in the file are relative to its folder; those in ``overrides`` stay as they are. ``elsewhere``: why
    tables that another file may have are not for this one.
    """
    values: dict[str, Any] = {}
    where = where_of(path)
    if path is not None:
        try:
            values = decode_toml(read_file(path, MAX_TOML_NBYTES, follow=True))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}; give the path of a TOML file") from error
        except TextRefused as error:
            raise ConfigError(f"{path} {error}") from error
        _refuse_unknown(kind, values, where, elsewhere)
        _read_texts(kind, values, path.parent, where)
    given = {section: dict(entries) for section, entries in (overrides or {}).items()}
    _refuse_unknown(kind, given, FLAGS, elsewhere)
    _read_texts(kind, given, Path(), FLAGS)
    for section, entries in given.items():
        values.setdefault(section, {}).update(entries)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        flags = [f"$.{section}.{key}" for section, entries in given.items() for key in entries]
        origin = FLAGS if str(error).partition(" - at ")[2].strip("`") in flags else where
        raise ConfigError(f"{origin}: {_say(str(error), values, kind)}") from error


def entry_kind(hint: Any) -> type[Section] | None:
    """The kind of the tables of a list of tables, such as [[stations]]; None: not a list."""
    if get_origin(hint) is not list:
        return None
    kind: type[Section] = get_args(hint)[0]
    return kind


def where_of(path: Path | None) -> str:
    return FLAGS if path is None else str(path)


def _refuse_unknown(
    whole: type[Section], values: Mapping[str, Any], where: str, elsewhere: Mapping[str, str]
) -> None:
    sections = get_type_hints(whole)
    for section, entries in values.items():
        if section not in sections:
            why = elsewhere.get(section) or f"there is no [{section}]{_nearest(section, sections)}"
            raise ConfigError(f"{where}: {why}")
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


def _read_texts(whole: type[Section], values: dict[str, Any], base: Path, where: str) -> None:
    """Check every text, and make paths absolute in place. Raises ConfigError naming the key."""
    for section, hint in get_type_hints(whole, include_extras=True).items():
        entries, kind = values.get(section), entry_kind(hint) or hint
        if entries is None:
            continue
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            for name in entries:
                if not re.fullmatch(NAME_PATTERN, name):
                    raise ConfigError(f"{where}: [{section}] has the name {name!r}; use {NAME_RULE}")
            _read_table(dict.fromkeys(entries, _said_of(hint)), {}, entries, base, f"{where}: [{section}]")
            continue
        kinds = {key: _said_of(key_hint) for key, key_hint in get_type_hints(kind, include_extras=True).items()}
        defaults = msgspec.structs.asdict(kind())
        for table in entries if isinstance(entries, list) else [entries]:
            name = f"[[{section}]]" if isinstance(entries, list) else f"[{section}]"
            _read_table(kinds, defaults, table, base, f"{where}: {name}")


def _said_of(hint: Any) -> dict[str, Any]:
    """What ``path_text``, ``endpoint_text`` and ``host_text`` say of a key; empty: nothing."""
    metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    return next((meta.extra for meta in metas if meta.extra), {})


def _read_table(
    kinds: Mapping[str, dict[str, Any]], defaults: Mapping[str, Any], table: dict[str, Any], base: Path, where: str
) -> None:
    for key, value in table.items():
        if not isinstance(value, str) or value == defaults.get(key):
            continue
        try:
            table[key] = _read_text(kinds.get(key, {}), value, base)
        except TextRefused as error:
            raise ConfigError(f"{where} {key} {error}") from None


def _read_text(said: dict[str, Any], value: str, base: Path) -> str:
    """The value as it is used. Raises TextRefused."""
    what, unless = said.get("is"), said.get("unless")
    if what == "path" and not (unless and value.startswith(unless)):
        return str(path_from(value, base))
    if what == "endpoint":
        check_endpoint(value, binds=said["binds"])
    elif what == "host":
        check_host(value)
    elif not value.replace("\n", " ").replace("\t", " ").isprintable():
        raise TextRefused(f"is {value!r}, which holds characters that cannot be seen; remove them")
    return value


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"


def _say(message: str, values: Any, kind: type[Section]) -> str:
    """msgspec's ``Expected `int` >= 1 - at `$.limits.slots``` as ``[limits] slots: expected int >= 1, not 0``."""
    what, _, at = message.partition(" - at ")
    parts = at.strip("`").removeprefix("$.").split(".")
    what = what.replace("`", "").replace(f"matching regex {NAME_PATTERN!r}", f"of {NAME_RULE}")
    listed = re.fullmatch(r"(\w+)\[(\d+)\]", parts[0])
    table = f"[[{listed[1]}]] no. {int(listed[2]) + 1}," if listed else f"[{parts[0]}]"
    for part in re.findall(r"\w[\w-]*", at):
        if isinstance(values, list | dict):
            values = values[int(part)] if isinstance(values, list) else values.get(part)
    if what.startswith("Invalid enum value"):
        section = get_type_hints(kind)[listed[1] if listed else parts[0]]
        choices = get_args(get_type_hints(entry_kind(section) or section)[parts[1]])
        what = "expected " + " or ".join(choice or '""' for choice in choices)
    what = what.replace("xpected str, got", "xpected a text in quotes, got")
    what = what.replace("xpected bool, got", "xpected true or false, got")
    given = f"{':' if 'got' in what else ', not'} {values!r:.80}" if isinstance(values, str | int | float) else ""
    return f"{table} {'.'.join(parts[1:])}: {what[:1].lower()}{what[1:]}{given}" if at else what
