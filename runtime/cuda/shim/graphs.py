"""Networks on the CPU stand-in's memory: ONNX Runtime behind ``runtime.cuda.graph``, for tests of the whole engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from asperity.runtime.cuda.graph import GraphBytes, Shape
from asperity.runtime.cuda.shim.streams import ShimFrameDevice
from asperity.runtime.errors import EngineError

Spoil = Callable[[str], None]
"""Called with a network's name before each run; what it raises is what the library's call did."""


class OnnxGraph:
    """One network. ``spoil`` is called when it is enqueued: a fault of the library's call."""

    def __init__(self, name: str, session: Any, device: ShimFrameDevice, spoil: Spoil) -> None:
        self.name, self._session, self._device, self._spoil = name, session, device, spoil
        self._arrays: dict[str, NDArray[np.float32]] = {}

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """As ``DeviceGraph.inputs``."""
        return {value.name: tuple(value.shape) for value in self._session.get_inputs()}

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """As ``DeviceGraph.outputs``."""
        return {value.name: tuple(value.shape) for value in self._session.get_outputs()}

    def bind(self, addresses: Mapping[str, int]) -> None:
        """As ``DeviceGraph.bind``."""
        shapes = {**self.inputs, **self.outputs}
        if set(addresses) != set(shapes):
            raise EngineError(f"{self.name} has {sorted(shapes)}, and was bound to {sorted(addresses)}")
        for name, shape in shapes.items():
            count = int(np.prod(shape, dtype=np.int64))
            self._arrays[name] = self._device.view(addresses[name], 4 * count).view(np.float32).reshape(shape)

    def enqueue(self, stream: int) -> None:
        """As ``DeviceGraph.enqueue``."""
        with self._device.on(self._device.branch_of(stream)):
            self._device.enqueue(self._run)

    def close(self) -> None:
        """As ``DeviceGraph.close``."""
        self._arrays.clear()

    def _run(self) -> None:
        self._spoil(self.name)
        feeds = {name: self._arrays[name] for name in self.inputs}
        try:
            results = self._session.run(None, feeds)
        except Exception as error:  # ONNX Runtime's own errors share no base class
            raise EngineError(f"{self.name} failed: {error}") from error
        for name, result in zip(self.outputs, results, strict=True):
            self._arrays[name][...] = result


class OnnxGraphs:
    """The networks of a bundle, by name; ``precision`` is what they claim."""

    runtime = f"onnxruntime {ort.__version__}"

    def __init__(
        self, graphs: Mapping[str, bytes], device: ShimFrameDevice, precision: str = "fp32", spoil: Spoil | None = None
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._sessions = {name: ort.InferenceSession(model, options) for name, model in graphs.items()}
        self._bytes = {name: len(model) for name, model in graphs.items()}
        self._device, self.precision = device, precision
        self.spoil: Spoil = spoil or (lambda name: None)

    def names(self) -> frozenset[str]:
        """As ``DeviceGraphs.names``."""
        return frozenset(self._sessions)

    def nbytes(self, name: str) -> GraphBytes:
        """As ``DeviceGraphs.nbytes``; ONNX Runtime's scratch is not known."""
        return GraphBytes(self._bytes[name], 0)

    def graph(self, name: str) -> OnnxGraph:
        """As ``DeviceGraphs.graph``."""
        if name not in self._sessions:
            raise EngineError(f"there is no network {name}; available: {', '.join(sorted(self._sessions))}")
        return OnnxGraph(name, self._sessions[name], self._device, self._spoil)

    def close(self) -> None:
        """As ``DeviceGraphs.close``."""
        self._sessions.clear()

    def _spoil(self, name: str) -> None:
        self.spoil(name)
