"""What runs the networks of the cuda engine: each is named in the results and used only if it can be imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from asperity.benchmarks.gpu.cases import Case
from asperity.benchmarks.gpu.record import MeasuredDevice, own_fatbin
from asperity.benchmarks.gpu.torch_reference.graphs import CudaPlace, HostPlace, TorchGraphs
from asperity.benchmarks.gpu.torch_reference.modules import check_same_networks, folded
from asperity.runtime.cuda.graph import DeviceGraphs
from asperity.runtime.cuda.streams import FrameDevice
from asperity.runtime.engines.cuda import CudaEngine, Settings
from asperity.runtime.engines.tensorrt.library import LibraryName
from asperity.runtime.errors import EngineError


@dataclass(frozen=True, slots=True)
class Runtime:
    """One way to run networks."""

    name: str
    module: str
    """What must import."""
    open: Callable[[Case, FrameDevice, Path], DeviceGraphs]
    """``Path``: a folder in which it may keep what it builds."""
    on_shim: bool = False
    """Whether it can work on the CPU stand-in's memory."""
    only_if_named: bool = False
    """Whether it runs only when named."""

    def absent(self, kind: str) -> str:
        """Why it cannot be measured on this device; empty if it can."""
        if kind == "cpu-shim" and not self.on_shim:
            return "needs a GPU"
        if importlib.util.find_spec(self.module) is None:
            return f"no module {self.module} here"
        return ""


class MeasuredFrameDevice(FrameDevice, MeasuredDevice, Protocol):
    """A device that an engine can have and that can time what it is given."""


def open_frame_device(kind: str) -> MeasuredFrameDevice:
    """A device for one engine, which closes it. Raises EngineError."""
    if kind == "cpu-shim":
        from asperity.runtime.cuda.shim.streams import ShimFrameDevice

        return ShimFrameDevice()
    from asperity.runtime.cuda.frame_device import CudaFrameDevice

    return CudaFrameDevice(0, own_fatbin())


def open_engine(
    runtime: Runtime, case: Case, device: MeasuredFrameDevice, cache: Path, settings: Settings
) -> CudaEngine:
    """The cuda engine over a case; it closes the device. Raises EngineError."""
    try:
        with device.current():
            graphs = runtime.open(case, device, cache)
    except BaseException:
        device.close()
        raise
    heights = None if case.bundle is None else case.bundle.heights()
    return CudaEngine(
        device, graphs, case.geometry, case.network, case.decision, case.banks, case.masks, settings, heights
    )


def _torch(precision: str) -> Callable[[Case, FrameDevice, Path], DeviceGraphs]:
    def open_graphs(case: Case, device: FrameDevice, work: Path) -> DeviceGraphs:
        modules = folded(case.networks)
        if case.bundle is not None:
            check_same_networks(modules, case.bundle)
        later: Any = getattr(device, "enqueue", None)  # the CPU stand-in takes work of the host's
        place = CudaPlace() if later is None else HostPlace(later)
        return TorchGraphs(case.network, modules, place, precision)

    return open_graphs


def _compiled(name: LibraryName) -> Callable[[Case, FrameDevice, Path], DeviceGraphs]:
    def open_graphs(case: Case, device: FrameDevice, work: Path) -> DeviceGraphs:
        from asperity.benchmarks.gpu.compiled import opener

        return opener(name)(case, device, work)

    return open_graphs


RUNTIMES = (
    Runtime("torch-reference", "torch", _torch("fp16"), on_shim=True),
    # The oracle: where half is refused, it says whether half is the reason.
    Runtime("torch-reference-fp32", "torch", _torch("fp32"), on_shim=True, only_if_named=True),
    Runtime("tensorrt-rtx", "tensorrt_rtx", _compiled("tensorrt-rtx")),
    Runtime("tensorrt", "tensorrt", _compiled("tensorrt")),
)
"""In the order of their stages."""


def runtime_of(name: str) -> Runtime:
    """By name. Raises EngineError."""
    for runtime in RUNTIMES:
        if runtime.name == name:
            return runtime
    raise EngineError(f"no such runtime: {name}; there are {', '.join(r.name for r in RUNTIMES)}")
