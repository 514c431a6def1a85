"""``station.toml``, ``gateway.toml`` and ``camera.toml`` of ``examples/``: every key, with its default as a comment."""

from __future__ import annotations

import textwrap
from typing import Any, get_type_hints

import msgspec

from asperity.runtime.cameras.camera_toml import tables
from asperity.runtime.documents.camera_sources import sources
from asperity.runtime.documents.toml_keys import metas, range_of
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.settings.toml_tables import Section, entry_kind

COLUMNS = 120
SAMPLES: dict[str, str] = {
    "recipes": 'part = "/var/lib/asperity/bundles/part"',
    "modbus.recipes": 'recipes = { 1 = "part" }',
    "modbus.hard_wired": "hard_wired = true",
    "ethernetip.recipes": 'recipes = { 1 = "part" }',
    "ethernetip.hard_wired": "hard_wired = true",
}
"""Lines for keys whose default cannot be written in TOML, or says nothing."""


def station() -> str:
    """The whole ``station.toml``."""
    head = "station.toml, for `asperity run --config station.toml`. Several stations in one process: stations.toml."
    return _file(StationConfig, head, "docs/station.md")


def gateway() -> str:
    """The whole ``gateway.toml``."""
    head = (
        "gateway.toml, for `asperity gateway PROTOCOL --config gateway.toml`: modbus, ethernetip, http, opcua, mqtt, "
        "sparkplug, io."
    )
    return _file(GatewayConfig, head, "docs/gateways.md")


def camera() -> str:
    """The whole ``camera.toml``: the tables of the sources are comments as a whole, since a file has one of them."""
    kinds = sources()
    head = "camera.toml, for `asperity camera live SOURCE --config camera.toml`. Uncomment the table of SOURCE alone."
    whole = _file(tables({name: kind.options for name, kind in kinds.items()}), head, "docs/cameras.md")
    for name in kinds:
        whole = whole.replace(f"\n[{name}]\n", f"\n#[{name}]\n")
    return whole


def _file(kind: type[Section], head: str, page: str) -> str:
    lines = [
        *_comment(head),
        *_comment("Made from the Python sources by `make documents`; copy it, then edit the copy."),
        *_comment(f"Every key has its default: remove the # before those to change. The same as tables: {page}."),
    ]
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if entry_kind(hint):
            continue
        lines += ["", f"[{name}]"]
        if not (isinstance(hint, type) and issubclass(hint, Section)):
            lines += [*_comment(metas(hint)[-1].description), f"#{SAMPLES[name]}"]
            continue
        lines += _comment(" ".join(str(hint.__doc__).split()))
        defaults = hint()
        for key, key_kind in get_type_hints(hint, include_extras=True).items():
            values = range_of(key_kind)
            allowed = f" ({values})" if values not in ("text", "table") else ""
            lines += ["", *_comment(f"{metas(key_kind)[-1].description}{allowed}")]
            lines.append(f"#{SAMPLES.get(f'{name}.{key}') or f'{key} = {_toml(getattr(defaults, key))}'}")
    return "\n".join(lines) + "\n"


def _comment(text: str | None) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(str(text), COLUMNS - 2, break_long_words=False)]


def _toml(value: Any) -> str:
    return msgspec.json.encode(value).decode()
