"""``python stand_in_inspector.py STATION.TOML FAULT``: the real inspector with the CUDA engine on the CPU stand-in.

FAULT is a file. What it holds happens at the next run of the colour network: ``error`` (the library's call fails),
``lost`` (and every call after it), ``hang`` (the device never comes back), ``stuck`` (the call itself never returns).
The gate is left out: a toy's golden scores are made up.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cli import end_at_once
from asperity.runtime.commands.run import serve
from asperity.runtime.cuda.shim.graphs import OnnxGraphs
from asperity.runtime.cuda.shim.streams import ShimFrameDevice
from asperity.runtime.engines import opening
from asperity.runtime.engines import parity_gate as gate
from asperity.runtime.engines.cuda import CudaEngine
from asperity.runtime.errors import AsperityError, EngineError, EngineLostError
from asperity.runtime.settings.station_toml import StationConfig

config_path, fault = Path(sys.argv[1]), Path(sys.argv[2])


def open_stand_in(bundle: Bundle, config: StationConfig) -> CudaEngine:
    """In place of ``runtime.engines.opening.open_cuda``."""
    device = ShimFrameDevice()

    def spoil(name: str) -> None:
        if name != "rgb" or not fault.exists():
            return
        word = fault.read_text()
        fault.unlink()
        if word == "stuck":
            time.sleep(3600)
        device.hangs = word == "hang"
        device.lost = "an illegal memory access was encountered" if word == "lost" else ""
        if word != "hang":
            raise EngineError(f"the library's call failed: {word}")

    graphs = OnnxGraphs({name: bundle.graph(name) for name in bundle.graph_names()}, device, spoil=spoil)
    return CudaEngine.open(bundle, device, graphs, opening.settings_of(config))


opening.open_cuda = open_stand_in
gate.prove = lambda bundle, engine, progress: bundle.manifest.decision  # type: ignore[assignment,misc]
gate.gate_steps = lambda *arguments: iter(())  # type: ignore[assignment]
try:
    serve(config_path, {}, None)
except EngineLostError as error:  # as ``runtime.cli.main``
    print(f"asperity: {error}", file=sys.stderr)
    end_at_once(error.exit_code)
except AsperityError as error:
    print(f"asperity: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
