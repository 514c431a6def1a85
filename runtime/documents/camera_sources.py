"""The tables of ``docs/cameras.md``: keys of ``camera.toml``, with those of each source of this package."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from asperity.runtime.cameras import sources as room
from asperity.runtime.cameras.camera_toml import tables
from asperity.runtime.cameras.source import SourceKind
from asperity.runtime.documents.blocks import filled
from asperity.runtime.documents.toml_keys import described

PAGES = Path(__file__).resolve().parents[2] / "docs" / "cameras"


def sources() -> dict[str, SourceKind]:
    """The sources of this package, by name: each is the one ``SourceKind`` of the room of that name."""
    found: dict[str, SourceKind] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(room.__path__)):
        for value in vars(importlib.import_module(f"{room.__name__}.{name}.source")).values():
            if isinstance(value, SourceKind):
                found[name] = value
    return found


def keys() -> list[str]:
    """Every key of ``camera.toml``."""
    return described(tables({name: kind.options for name, kind in sources().items()}))


def table() -> list[str]:
    """Each source, with its page where it has one."""
    lines = ["| source | cameras | triggers | needs |", "|---|---|---|---|"]
    for name, kind in sources().items():
        link = f"[`{name}`](cameras/{name}.md)" if (PAGES / f"{name}.md").is_file() else f"`{name}`"
        needs = dict.fromkeys(kind.packages.values())
        extras = ", ".join(f"`{need}`" for need in needs) or "nothing"
        lines.append(f"| {link} | {kind.summary} | {', '.join(f'`{mode}`' for mode in kind.triggers)} | {extras} |")
    return lines


def page(present: str) -> str:
    """The page as it is, with its tables generated again. Raises DataError when a block is missing from it."""
    return filled(present, {"sources": table, "keys": keys})
