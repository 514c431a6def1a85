"""``gateway.toml`` as types: which station, and every bound, wait and port of the gateways.

One file serves all gateways of a station; each reads the first two tables and its own. ``docs/gateways.md`` holds the
tables made from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from runtime.config import Name, Section, control_endpoint, describe, number, read_sections, text


class Station(Section, frozen=True, forbid_unknown_fields=True):
    """The station that the gateway speaks for."""

    name: Annotated[Name, text("the station's name")] = "st1"
    results: Annotated[str, text("the inspector's results socket")] = "tcp://127.0.0.1:5561"
    control: Annotated[str, text("its control socket; empty: the one in this user's runtime folder")] = ""


class Gateway(Section, frozen=True, forbid_unknown_fields=True):
    """What all gateways do alike."""

    accept_simulated: Annotated[
        bool, text("let simulated results reach accept: only while a PLC is being programmed, never on a line")
    ] = False
    accept_hold_ms: Annotated[
        int, number(10, 3_600_000, "accept is cleared this long after its result was handed on, if none followed")
    ] = 2000
    commands: Annotated[bool, text("pass requests (trigger, start, stop, ...) on to the station")] = True
    poll_ms: Annotated[int, number(1, 1000, "longest wait for a message of the station")] = 20
    tick_ms: Annotated[int, number(5, 1000, "the protocol's picture is refreshed at least this often")] = 50
    queue_results: Annotated[int, number(16, 1_000_000, "results that may wait for the protocol")] = 8192
    requests_max: Annotated[int, number(1, 16, "requests to the station that may be under way")] = 8
    patience_ms: Annotated[int, number(100, 3_600_000, "a missing result is named a gap after this long")] = 5000


class GatewayConfig(Section, frozen=True, forbid_unknown_fields=True):
    """A whole ``gateway.toml``."""

    station: Station = Station()
    gateway: Gateway = Gateway()


def load(path: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> GatewayConfig:
    """Read ``gateway.toml`` and put ``overrides`` over it, as ``runtime.config.load`` does. Raises ConfigError."""
    return read_sections(GatewayConfig, path, overrides, _make_absolute)


def control_of(config: GatewayConfig) -> str:
    """The control endpoint in force."""
    return control_endpoint(config.station.name, config.station.control)


def document() -> str:
    """The tables of ``docs/gateways.md``."""
    return "\n".join([*describe(GatewayConfig), ""])


def _make_absolute(values: dict[str, Any], base: Path) -> None:
    """Keys that end in ``_file`` or ``_folder`` are paths, relative to the file."""
    for table in values.values():
        if isinstance(table, dict):
            for key, value in table.items():
                if key.endswith(("_file", "_folder")) and isinstance(value, str) and value:
                    table[key] = str(base / value)
