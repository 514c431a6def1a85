"""``runtime.cuda.graph.DeviceGraphs`` by plain PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from asperity.benchmarks.gpu.torch_reference.modules import (
    ADAPTORS,
    Graph,
    Signature,
    check_same_networks,
    folded,
    graph_of,
    signatures,
)
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cuda.graph import GraphBytes, Shape
from asperity.runtime.errors import EngineError, first_line
from asperity.runtime.manifest import Network

PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32}
SPARE_BLOCKS, SPARE_BYTES = 64, 512
"""Small blocks left in a graph's pool: attention asks for a seed's place only while a stream is captured."""


class Place(Protocol):
    """Where tensors lie and work is enqueued."""

    device: torch.device

    def tensor(self, address: int, shape: Shape) -> Tensor:
        """Float32 memory as a tensor, without a copy."""

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream."""

    def pool(self) -> Any:
        """Memory of one graph's own; None: the allocator's."""


class CudaPlace:
    """A GPU's memory and streams, through PyTorch's view of the primary context, which is pycuda's too."""

    def __init__(self, index: int = 0) -> None:
        self.device = torch.device("cuda", index)
        # Chosen in the first, eager run, and kept for the recorded ones.
        torch.backends.cudnn.benchmark = True

    def tensor(self, address: int, shape: Shape) -> Tensor:
        """As ``Place.tensor``."""
        return torch.as_tensor(_DeviceArray(address, shape), device=self.device)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """As ``Place.enqueue``."""
        outside = torch.cuda.ExternalStream(stream, device=self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(outside):
            work()

    def pool(self) -> Any:
        """As ``Place.pool``."""
        return torch.cuda.MemPool()


class HostPlace:
    """The CPU stand-in's memory. ``later``: how its device takes work (``ShimFrameDevice.enqueue``); None: at once."""

    device = torch.device("cpu")

    def __init__(self, later: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._later = later

    def tensor(self, address: int, shape: Shape) -> Tensor:
        """As ``Place.tensor``."""
        count = int(np.prod(shape, dtype=np.int64))
        raw = (ctypes.c_float * count).from_address(address)
        return torch.from_numpy(np.ctypeslib.as_array(raw).reshape(shape))

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """As ``Place.enqueue``."""
        if self._later is None:
            work()
        else:
            self._later(work)

    def pool(self) -> Any:
        """As ``Place.pool``."""
        return None


class _DeviceArray:
    """Device memory in the form that ``torch.as_tensor`` takes without a copy."""

    def __init__(self, address: int, shape: Shape) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": "<f4", "data": (address, False), "version": 3, "strides": None,
        }  # fmt: skip


class TorchGraph:
    """As ``runtime.cuda.graph.DeviceGraph``. Scratch comes from a separate pool, filled by the first run."""

    def __init__(self, name: str, graph: Graph, signature: Signature, place: Place) -> None:
        self.name, self._graph, self._signature, self._place = name, graph, signature, place
        self._pool: Any = place.pool()
        self._tensors: dict[str, Tensor] = {}
        self._is_warm = False

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """As ``DeviceGraph.inputs``."""
        return self._signature.inputs

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """As ``DeviceGraph.outputs``."""
        return self._signature.outputs

    def bind(self, addresses: Mapping[str, int]) -> None:
        """As ``DeviceGraph.bind``."""
        shapes = {**self.inputs, **self.outputs}
        if set(addresses) != set(shapes):
            raise EngineError(f"{self.name} has {sorted(shapes)}, and was bound to {sorted(addresses)}")
        self._tensors = {name: self._place.tensor(addresses[name], shape) for name, shape in shapes.items()}

    def enqueue(self, stream: int) -> None:
        """As ``DeviceGraph.enqueue``."""
        if not self._tensors:
            raise EngineError(f"{self.name} was not bound to memory, or is closed")
        try:
            self._place.enqueue(stream, self._run)
        except RuntimeError as error:  # PyTorch's own errors, out of memory among them
            raise EngineError(f"{self.name} failed in PyTorch: {first_line(error)}") from error

    def close(self) -> None:
        """As ``DeviceGraph.close``."""
        self._tensors, self._pool = {}, None

    @torch.inference_mode()
    def _run(self) -> None:
        with self._own_memory():
            if not self._is_warm and self._pool is not None:
                spare = [torch.empty(SPARE_BYTES, dtype=torch.uint8, device=self._place.device)
                         for _ in range(SPARE_BLOCKS)]  # fmt: skip
                del spare
            (output,) = self._signature.outputs
            result = self._graph(*(self._tensors[name] for name in self._signature.inputs))
            self._tensors[output].copy_(result)
        self._is_warm = True

    def _own_memory(self) -> AbstractContextManager[None]:
        if self._pool is None:
            return nullcontext()
        context: AbstractContextManager[None] = torch.cuda.use_mem_pool(self._pool, device=self._place.device)
        return context


class TorchGraphs:
    """As ``runtime.cuda.graph.DeviceGraphs``: weights once, ``precision`` inside, float32 outside."""

    def __init__(self, network: Network, modules: Mapping[str, nn.Module], place: Place, precision: str) -> None:
        """``modules``: ``folded``'s. Raises EngineError for a precision that is not known, or without memory."""
        if precision not in PRECISIONS:
            raise EngineError(f"torch-reference has no precision {precision!r}; there are {', '.join(PRECISIONS)}")
        self.precision = precision
        self._place, self._signatures = place, signatures(network)
        try:
            self._graphs = self._loaded(modules, PRECISIONS[precision])
            self._scratch = {name: self._measured(name) for name in self._graphs}
        except RuntimeError as error:
            raise EngineError(f"the networks do not load on {place.device}: {first_line(error)}") from error

    @property
    def runtime(self) -> str:
        """As ``DeviceGraphs.runtime``."""
        return f"torch-reference {torch.__version__}"

    def names(self) -> frozenset[str]:
        """As ``DeviceGraphs.names``."""
        return frozenset(self._graphs)

    def nbytes(self, name: str) -> GraphBytes:
        """As ``DeviceGraphs.nbytes``: parameters, and the most that a trial run took."""
        graph = self._known(name)
        # Both sizes of the points adaptor share one module.
        own = 0 if name == "adaptor_points_full" else sum(p.nbytes for p in graph.parameters())
        return GraphBytes(own, self._scratch[name])

    def graph(self, name: str) -> TorchGraph:
        """As ``DeviceGraphs.graph``."""
        return TorchGraph(name, self._known(name), self._signatures[name], self._place)

    def close(self) -> None:
        """As ``DeviceGraphs.close``."""
        self._graphs = {}

    def _known(self, name: str) -> Graph:
        if name not in self._graphs:
            raise EngineError(f"no such network: {name}; there are: {', '.join(sorted(self._graphs)) or 'none'}")
        return self._graphs[name]

    def _loaded(self, modules: Mapping[str, nn.Module], dtype: torch.dtype) -> dict[str, Graph]:
        made: dict[str, Graph] = {}
        for name in self._signatures:
            module = ADAPTORS.get(name, name)
            if module in made:
                made[name] = made[module]
            else:
                made[name] = graph_of(name, modules, dtype).to(self._place.device).eval().requires_grad_(False)
        return made

    @torch.inference_mode()
    def _measured(self, name: str) -> int:
        device = self._place.device
        if device.type != "cuda":
            return 0
        inputs = [torch.ones(shape, device=device) for shape in self._signatures[name].inputs.values()]
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        self._graphs[name](*inputs)
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)


def open_graphs(bundle: Bundle, networks: TorchNetworks, place: Place, precision: str = "fp16") -> TorchGraphs:
    """A bundle's networks, out of the calibration that it was exported from. Raises DataError, EngineError."""
    modules = folded(networks)
    check_same_networks(modules, bundle)
    return TorchGraphs(bundle.manifest.network, modules, place, precision)


def stored(calibration: Path) -> TorchNetworks:
    """The networks of a calibration folder. Raises DataError."""
    from asperity.calibration.record import load_folder
    from asperity.export.bundle import stored_networks

    return stored_networks(load_folder(calibration))
