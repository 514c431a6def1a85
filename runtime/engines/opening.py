"""Opens a bundle with the engine that the configuration names, and never with another one.

If something is missing, the error names it and the command that fixes it: a station configured to use the GPU does not
run without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.engines import Engine
from asperity.runtime.errors import ConfigError
from asperity.runtime.settings.station_toml import StationConfig

if TYPE_CHECKING:
    from asperity.runtime.engines.cuda import CudaEngine, Settings


def open_engine(bundle: Bundle, config: StationConfig) -> Engine:
    """The engine of a verified bundle; ``runtime.engines.parity_gate`` decides whether it may judge.

    Raises EngineError when it does not open, ConfigError for a name that opens no bundle.
    """
    if config.engine.name == "cpu":
        from asperity.runtime.engines.cpu import CpuEngine

        return CpuEngine.open(bundle, config.engine.threads or None)
    if config.engine.name == "cuda":
        return open_cuda(bundle, config)
    raise ConfigError(f"[engine] name {config.engine.name!r} cannot open a bundle; use cpu or cuda")


def settings_of(config: StationConfig) -> Settings:
    """The part of ``[engine]`` that the CUDA engine goes by."""
    from asperity.runtime.engines.cuda import Settings

    engine = config.engine
    return Settings(
        lanes=engine.lanes,
        recipes=engine.recipes_in_memory,
        wait_ms=engine.device_wait_ms,
        keep_warm_ms=engine.keep_warm_ms,
        keep_warm_for_s=engine.keep_warm_for_s,
    )


def open_cuda(bundle: Bundle, config: StationConfig) -> CudaEngine:
    """The CUDA engine of a verified bundle on ``[engine] gpu``.

    Raises EngineError where there is no driver, no GPU, no kernels, no built networks or no room on the GPU.
    """
    from asperity.runtime.cuda.frame_device import CudaFrameDevice
    from asperity.runtime.engines.cuda import CudaEngine
    from asperity.runtime.engines.tensorrt.graphs import open_graphs

    device = CudaFrameDevice(config.engine.gpu)
    try:
        with device.current():
            graphs = open_graphs(bundle, config, device)
    except BaseException:
        device.close()
        raise
    return CudaEngine.open(bundle, device, graphs, settings_of(config))
