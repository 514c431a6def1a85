"""`asperity gateway PROTOCOL`: one process a protocol that speaks to a PLC, a broker or a browser for one station."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from runtime.gateways.config import GatewayConfig

app = typer.Typer(name="gateway", no_args_is_help=True, help="Speak to PLCs and people for a running station.")


class LogFormat(str, Enum):
    """How the log is written."""

    TEXT = "text"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", help="gateway.toml (docs/gateways.md)")]
Station = Annotated[str | None, typer.Option(help="[station] name")]
Results = Annotated[str | None, typer.Option(help="[station] results: the inspector's results socket")]
Control = Annotated[str | None, typer.Option(help="[station] control: the inspector's control socket")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="for people, or one JSON object a line")]
Host = Annotated[str | None, typer.Option(help="address to listen on")]
Port = Annotated[int | None, typer.Option(help="port to listen on; 0: any that is free")]


@app.command()
def modbus(
    config: Config = None,
    station: Station = None,
    results: Results = None,
    control: Control = None,
    host: Host = None,
    port: Port = None,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """A Modbus TCP server: one register block, acknowledged results, triggers and recipes."""
    from runtime.gateways.modbus import serve

    serve(_begin(config, station, results, control, log_format, "modbus", {"host": host, "port": port}))


@app.command()
def http(
    config: Config = None,
    station: Station = None,
    results: Results = None,
    control: Control = None,
    host: Host = None,
    port: Port = None,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """An HTTP server for people and Prometheus: / /livez /readyz /metrics."""
    from runtime.gateways.http import serve

    serve(_begin(config, station, results, control, log_format, "http", {"host": host, "port": port}))


def _begin(
    path: Path | None,
    station: str | None,
    results: str | None,
    control: str | None,
    log_format: LogFormat,
    table: str,
    own: dict[str, Any],
) -> GatewayConfig:
    """Read ``gateway.toml`` with the flags over it, and begin to log. Raises ConfigError."""
    from runtime import log_lines
    from runtime.config import Log
    from runtime.gateways.config import load

    flags = {"station": {"name": station, "results": results, "control": control}, table: own}
    given = {
        name: {key: value for key, value in entries.items() if value is not None} for name, entries in flags.items()
    }
    loaded = load(path, given)
    log_lines.begin(Log(format=log_format.value))
    return loaded
