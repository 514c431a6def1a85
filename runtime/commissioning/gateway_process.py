"""A gateway as a separate process that ends with the commissioning that started it, however that ends."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from asperity.runtime.gateways.config import load
from asperity.runtime.process import start
from asperity.runtime.process.child import end_with_parent
from asperity.runtime.settings import log_lines
from asperity.runtime.settings.station_toml import Log

MODULE = "asperity.runtime.commissioning.gateway_process"


def main(protocol: str, config: str) -> None:
    """Serve until its standard input is closed. Raises as ``serve`` of the gateway."""
    start.begin()
    end_with_parent()
    log_lines.begin(Log())
    import_module(f"asperity.runtime.gateways.{protocol}.gateway").serve(load(Path(config)))


if __name__ == "__main__":
    main(*sys.argv[1:])
