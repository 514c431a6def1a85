"""Every file that is made from the sources, and how. ``make documents`` writes them; a test keeps them current."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asperity.runtime.documents import (
    camera_sources,
    ethernetip_tables,
    gateways_page,
    modbus_scl,
    modbus_st,
    plc_page,
    profinet_page,
    receiver_constants,
    sample_toml,
    states_page,
    station_page,
)

PAGES: dict[str, Callable[[str], str]] = {
    "docs/cameras.md": camera_sources.page,
    "docs/gateways.md": gateways_page.page,
    "docs/plc.md": plc_page.page,
    "docs/plc/ethernetip.md": ethernetip_tables.page,
    "docs/plc/profinet.md": profinet_page.page,
    "docs/states.md": lambda _: states_page.page(),
    "docs/station.md": lambda _: station_page.page(),
    "examples/camera.toml": lambda _: sample_toml.camera(),
    "examples/gateway.toml": lambda _: sample_toml.gateway(),
    "examples/station.toml": lambda _: sample_toml.station(),
    "examples/generated/asperity.h": lambda _: receiver_constants.c_header(),
    "examples/generated/asperity.mjs": lambda _: receiver_constants.node_module(),
    "examples/generated/asperity_constants.py": lambda _: receiver_constants.python_module(),
    "examples/generated/asperity.st": lambda _: receiver_constants.structured_text(),
    "examples/generated/asperity_gvl.st": lambda _: receiver_constants.global_list(),
    "examples/generated/asperity_modbus.st": lambda _: modbus_st.structured_text(),
    "examples/generated/asperity_modbus.scl": lambda _: modbus_scl.scl(),
    "examples/generated/asperity.eds": lambda _: ethernetip_tables.eds(),
}
"""File of the checkout -> its text, from the text that it has now (of which a page keeps what people wrote)."""


def made(checkout: Path, file: str) -> str:
    """What ``file`` must contain. Raises OSError when it is a page that people began and it is not there."""
    path = checkout / file
    present = path.read_text(encoding="utf-8") if path.suffix == ".md" else ""
    return PAGES[file](present)


def write_all(checkout: Path) -> list[str]:
    """Rewrite every file; the ones that changed."""
    changed = []
    for file in PAGES:
        path, text = checkout / file, made(checkout, file)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(file)
    return changed
