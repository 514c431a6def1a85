"""Built networks on the device: plans of the cache behind ``runtime.cuda.graph``, with `tensorrt` or `tensorrt-rtx`.

Memory for weights is allocated when the plans are opened, scratch memory when a graph is made, and none afterwards. A
failure is an EngineError with the library's first error message; a device that failed permanently is noticed by the
code that waits for the stream, which is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asperity.runtime.bundle.checks import graph_signature
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cuda.environment import find_gpu
from asperity.runtime.cuda.graph import DeviceGraph, DeviceGraphs, GraphBytes, Shape
from asperity.runtime.cuda.launch import Buffer, Device
from asperity.runtime.engines.tensorrt.library import (
    Library,
    Said,
    give_memory,
    load_library,
    new_logger,
    scratch_nbytes,
)
from asperity.runtime.engines.tensorrt.plan_cache import PlanCache, PlanSet, find_built, find_served, plan_key
from asperity.runtime.errors import EngineError
from asperity.runtime.manifest import Network
from asperity.runtime.settings.paths import engine_cache
from asperity.runtime.settings.station_toml import StationConfig


class TensorRtGraph(DeviceGraph):
    """One execution context with its own scratch memory."""

    def __init__(self, name: str, engine: Any, network: Network, device: Device, library: Library, said: Said) -> None:
        """Takes the scratch memory. Raises EngineError where it is not there."""
        self._name, self._said = name, said
        self._inputs, self._outputs = graph_signature(name, network)
        self._scratch: Buffer | None = device.alloc(scratch_nbytes(engine))
        said.clear()
        strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = engine.create_execution_context(strategy)
        if self._context is None:
            raise EngineError(f"{name}: {library.label} could not create an execution context ({said.first()})")
        give_memory(self._context, self._scratch.address, self._scratch.nbytes)

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """As ``DeviceGraph.inputs``."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """As ``DeviceGraph.outputs``."""
        return self._outputs

    def bind(self, addresses: Mapping[str, int]) -> None:
        """As ``DeviceGraph.bind``."""
        wanted = self._inputs.keys() | self._outputs.keys()
        if addresses.keys() != wanted:
            raise EngineError(f"{self._name} has the tensors {sorted(wanted)}, and {sorted(addresses)} were given")
        for name, address in addresses.items():
            if not self._open().set_tensor_address(name, address):
                raise EngineError(f"{self._name}: {name} cannot be placed at {address:#x} ({self._said.first()})")

    def enqueue(self, stream: int) -> None:
        """As ``DeviceGraph.enqueue``."""
        if not self._open().execute_async_v3(stream):
            raise EngineError(f"{self._name} was not enqueued ({self._said.first()})")

    def close(self) -> None:
        """As ``DeviceGraph.close``."""
        self._context = self._scratch = None

    def _open(self) -> Any:
        if self._context is None:
            raise EngineError(f"the graph of {self._name} is closed")
        return self._context


class TensorRtGraphs(DeviceGraphs):
    """All networks of a set of plans, deserialised."""

    def __init__(self, plans: PlanSet, network: Network, device: Device, library: Library) -> None:
        """Reads, checks and deserialises every plan: their weights are on the device afterwards.

        Raises EngineError naming the plan and the remedy: it is damaged, open to others, of another library, too
        large for the device, or its tensors are not the network's.
        """
        self._plans, self._network, self._device, self._library = plans, network, device, library
        self._logger, self._said = new_logger(library)
        self._runtime: Any = library.module.Runtime(self._logger)
        self._engines: dict[str, Any] = {}
        self._sizes: dict[str, int] = {file.graph: file.nbytes for file in plans.record.files}
        for name in plans.graphs:
            self._engines[name] = self._deserialised(name)

    @property
    def runtime(self) -> str:
        """As ``DeviceGraphs.runtime``."""
        return self._library.label

    @property
    def precision(self) -> str:
        """As ``DeviceGraphs.precision``."""
        return told_precision(self._plans)

    def names(self) -> frozenset[str]:
        """As ``DeviceGraphs.names``."""
        return frozenset(self._sizes)

    def nbytes(self, name: str) -> GraphBytes:
        """As ``DeviceGraphs.nbytes``; the weights' share is the size of the plan, which is mostly weights."""
        return GraphBytes(weights=self._sizes[self._known(name)], scratch=scratch_nbytes(self._engine(name)))

    def graph(self, name: str) -> TensorRtGraph:
        """As ``DeviceGraphs.graph``."""
        engine = self._engine(self._known(name))
        return TensorRtGraph(name, engine, self._network, self._device, self._library, self._said)

    def close(self) -> None:
        """As ``DeviceGraphs.close``."""
        self._engines.clear()
        self._runtime = None

    def _known(self, name: str) -> str:
        if name not in self._sizes:
            raise EngineError(f"the built networks hold no {name}; they hold {', '.join(sorted(self._sizes))}")
        return name

    def _engine(self, name: str) -> Any:
        if name not in self._engines:
            raise EngineError("the built networks are closed")
        return self._engines[name]

    def _deserialised(self, name: str) -> Any:
        data = self._plans.read(name)
        self._said.clear()
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(
                f"{self._library.label} does not open {name}.plan ({self._said.first()}); {self._plans.remedy}"
            )
        inputs, outputs = graph_signature(name, self._network)
        seen = _tensors(engine, self._library)
        wanted = {(tensor, "INPUT", shape) for tensor, shape in inputs.items()}
        wanted |= {(tensor, "OUTPUT", shape) for tensor, shape in outputs.items()}
        if seen != wanted:
            raise EngineError(f"{name}.plan has the tensors {sorted(seen)}, not {sorted(wanted)}; {self._plans.remedy}")
        return engine


def told_precision(plans: PlanSet) -> str:
    """``fp32``, ``fp16``, ``int8``, and of the latter two whether softmax had to be kept in float32."""
    key = plans.record.key
    remark = ", softmax fp32" if key.precision != "fp32" and key.softmax == "fp32" else ""
    return key.precision + remark


def _tensors(engine: Any, library: Library) -> set[tuple[str, str, Shape]]:
    """(name, INPUT or OUTPUT, shape) of an engine's tensors. Raises EngineError for one that is not float32."""
    seen = set()
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_dtype(name) != library.module.float32:
            raise EngineError(f"tensor {name} of a plan is not float32; build the bundle's networks again")
        seen.add((name, engine.get_tensor_mode(name).name, tuple(engine.get_tensor_shape(name))))
    return seen


def open_graphs(bundle: Bundle, config: StationConfig, device: Device) -> TensorRtGraphs:
    """The built networks of a bundle for this machine's GPU, as ``[engine]`` asks for them, to open a recipe with.

    Raises EngineError: no library, no GPU, no networks in the cache (the sentence says how to build them), not safe.
    """
    library = load_library()
    key = plan_key(bundle.digest, config.engine.precision, "half", library, find_gpu(config.engine.gpu))
    plans = find_served(plan_cache(config), key)
    return TensorRtGraphs(plans, bundle.manifest.network, device, library)


def networks_missing(bundle: Bundle, config: StationConfig) -> bool:
    """Whether building could help: there is a library and a GPU, and the cache holds no networks of this bundle for it.

    Raises EngineError: no library, or a cache that others may write.
    """
    gpu = find_gpu(config.engine.gpu)
    key = plan_key(bundle.digest, config.engine.precision, "half", load_library(), gpu)
    return gpu is not None and find_built(plan_cache(config), key) is None


def plan_cache(config: StationConfig) -> PlanCache:
    """The cache that ``[engine]`` names."""
    return PlanCache(engine_cache(config), config.engine.cache_max_mbytes * 10**6)
