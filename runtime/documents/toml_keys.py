"""The keys of a TOML file as tables, from its types."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from asperity.runtime.settings.toml_tables import NAME_RULE, Section, entry_kind


def described(kind: type[Section]) -> list[str]:
    """A heading and a table of keys for each table of ``kind``, in Markdown."""
    lines: list[str] = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        listed = entry_kind(hint)
        table: Any = listed or hint
        lines += ["", f"## [[{name}]]" if listed else f"## [{name}]"]
        if isinstance(table, type) and issubclass(table, Section):
            lines += [line.strip() for line in str(table.__doc__).strip().splitlines()]
            lines += ["", "| key | default | range | what it is |", "|---|---|---|---|"]
            defaults = table()
            for key, key_kind in get_type_hints(table, include_extras=True).items():
                value = getattr(defaults, key)
                default = "absent" if value is None else f"`{msgspec.json.encode(value).decode()}`"
                lines.append(f"| `{key}` | {default} | {range_of(key_kind)} | {metas(key_kind)[-1].description} |")
        else:
            lines += [f"{metas(hint)[-1].description}"]
    return lines


def metas(kind: Any) -> list[Meta]:
    """The Metas of an Annotated type, innermost first."""
    return [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]


def range_of(kind: Any) -> str:
    """The values that a key takes, in words."""
    meta = metas(kind)[-1]
    base = kind.__origin__
    if get_origin(base) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(base))
    if get_origin(base) is dict:
        return "table"
    if meta.ge is not None:
        return f"{meta.ge} to {meta.le}"
    if bool in (base, *get_args(base)):
        return "true, false"
    return NAME_RULE if any(m.pattern for m in metas(kind)) else "text"
