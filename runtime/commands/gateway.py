"""`asperity gateway PROTOCOL`: one process per protocol, between a station and a PLC, a broker or a browser."""

from __future__ import annotations

import importlib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from asperity.runtime.gateways.config import GatewayConfig

app = typer.Typer(name="gateway", no_args_is_help=True, help="Connect a station to a PLC, a broker or a browser.")


class LogFormat(str, Enum):
    """How the log is written."""

    TEXT = "text"
    JSON = "json"


Config = Annotated[Path | None, typer.Option("--config", help="Configuration file, gateway.toml.")]
Station = Annotated[str | None, typer.Option(help="Override [station] name.")]
Results = Annotated[str | None, typer.Option(help="Override [station] results, the results socket of the inspector.")]
Control = Annotated[str | None, typer.Option(help="Override [station] control, the control socket of the inspector.")]
Format = Annotated[
    LogFormat, typer.Option("--log-format", help="Format of the log: text, or one JSON object per line.")
]


PASSWORD_MAX_NBYTES = 4096
LISTENS = ("--host", "the address to listen on", "; 0: any free one, named in the log")


def _add(name: str, does: str, host_flag: str, host: str, port: str, table: str = "", prefix: str = "") -> None:
    """Add the command of a protocol, whose gateway is ``serve`` in ``gateways/NAME/gateway.py``.

    ``table``: where host and port stand; empty: in the table of that name. ``prefix``: of their keys there.
    """
    table = table or name
    host_type = Annotated[str | None, typer.Option(host_flag, help=f"Override [{table}] {prefix}host, {host}.")]
    port_type = Annotated[int | None, typer.Option("--port", help=f"Override [{table}] {prefix}port{port}.")]

    def command(
        config: Config = None,
        station: Station = None,
        results: Results = None,
        control: Control = None,
        host: str | None = None,
        port: int | None = None,
        log_format: Format = LogFormat.TEXT,
    ) -> None:
        gateway = importlib.import_module(f"asperity.runtime.gateways.{name}.gateway")
        own = {f"{prefix}host": host, f"{prefix}port": port}
        gateway.serve(_begin(config, station, results, control, log_format, table, own))

    # Typer takes help and names of options from the annotations.
    command.__annotations__ |= {"host": host_type, "port": port_type}
    app.command(name, help=does)(command)


_add("modbus", "A Modbus TCP server: one register block, acknowledged results, triggers and recipes.", *LISTENS)
_add("ethernetip", "An EtherNet/IP adapter: the Modbus block as assemblies, by messages or cyclic.", *LISTENS)
_add("http", "An HTTP server for people and Prometheus: / /livez /readyz /metrics.", *LISTENS)
_add("opcua", "An OPC UA server: flat tags, and a subset of OPC 40100-1 (Machine Vision).", *LISTENS)
BROKER = ("--broker", "the address of the broker", " of the broker")
_add("mqtt", "An MQTT client: results, state and accept as JSON to a broker.", *BROKER)
MODULE = ("--module", "the address of the Modbus module", " of the module")
_add("io", "Digital outputs: ready, busy, accept, reject, strobe, on GPIO or a Modbus module.", *MODULE, "", "module_")
_add("sparkplug", "A Sparkplug B edge node: results and state for SCADA and MES, over a broker.", *BROKER, "mqtt")


@app.command()
def user(
    file: Annotated[Path, typer.Argument(help="The file of [users]; created if missing.")],
    name: Annotated[str, typer.Argument(help="Name of the user: 1 to 32 characters from A-Z a-z 0-9 _ . @ -")],
    operate: Annotated[
        bool, typer.Option("--operate", help="Allow the user to call methods; without it, only to read.")
    ] = False,
) -> None:
    """Add a user of the OPC UA and HTTP gateways or change a password.

    The password is asked for, or read from a pipe.
    """
    from asperity.runtime.gateways.log_ins.users import new_user, put_user

    put_user(file, new_user(name, "operate" if operate else "read", _password(f"password of {name}: ")))


def _password(prompt: str) -> str:
    """Typed, or the first line of a pipe. Raises UsageError."""
    import codecs
    import sys
    from getpass import getpass

    from asperity.runtime.errors import UsageError
    from asperity.runtime.text.encoding import TextRefused, decode

    try:
        if sys.stdin.isatty():
            return getpass(prompt)
        line = sys.stdin.buffer.readline(PASSWORD_MAX_NBYTES + 1)
        if line.startswith(codecs.BOM_UTF16_LE):
            line += sys.stdin.buffer.read(1)  # the other half of the line's end
        if len(line) > PASSWORD_MAX_NBYTES:
            raise UsageError(f"the password has more than {PASSWORD_MAX_NBYTES} bytes; write it in one short line")
        return decode(line).rstrip("\n")
    except UnicodeDecodeError:
        raise UsageError("the password is not UTF-8 text; set the terminal to UTF-8") from None
    except TextRefused as error:
        raise UsageError(f"the password {error}") from None


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
    from asperity.runtime.gateways.config import load
    from asperity.runtime.settings import log_lines
    from asperity.runtime.settings.station_toml import Log

    flags = {"station": {"name": station, "results": results, "control": control}, table: own}
    given = {
        name: {key: value for key, value in entries.items() if value is not None} for name, entries in flags.items()
    }
    loaded = load(path, given)
    repeats = log_lines.Repeats(loaded.log.repeat_ms, loaded.log.kinds_max, loaded.log.lines_max)
    log_lines.begin(Log(format=log_format.value), log_lines.Rate(repeats))
    return loaded
