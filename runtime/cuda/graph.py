"""A network on the device, as the frame path sees it: static shapes, float32 in and out, on the caller's memory.

Implemented by TensorRT's plans (``engines.tensorrt.graphs``), plain PyTorch (``benchmarks``), and ONNX Runtime on the
CPU stand-in's memory (``runtime.cuda.shim.graphs``); the engine around them is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GraphBytes:
    """Device memory of one network."""

    weights: int
    """Once, whatever the number of lanes; taken already when a ``DeviceGraphs`` is there."""
    scratch: int
    """Every graph made of the network takes that much for itself."""


class DeviceGraph(Protocol):
    """One network with its own scratch memory, for one frame at a time. Used by one thread at a time.

    All tensors are float32 in C order; names are those of the bundle's ONNX (``export.onnx.export_graphs``). What is
    computed inside may be of any precision.
    """

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Every input's shape, by name."""

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """Every output's shape, by name."""

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Where every input and output is on the device, from now on; each is aligned to 256 bytes.

        Called once, before the first ``enqueue``. Raises EngineError where a name is missing or not known.
        """

    def enqueue(self, stream: int) -> None:
        """Enqueue one run on the stream (a CUstream's handle), and nothing else anywhere.

        Waits for nothing and allocates nothing: the second and later calls may be captured into a CUDA graph on that
        same stream. Raises EngineError.
        """

    def close(self) -> None:
        """Free its scratch memory. The stream is idle. May be called twice."""


class DeviceGraphs(Protocol):
    """The networks of one bundle on one device. The weights are there once, every lane makes graphs of them.

    Made and used with the device's primary context current, by the thread that uses the engine.
    """

    @property
    def runtime(self) -> str:
        """What runs the networks, with its version: ``tensorrt 10.3.0``."""

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16``, ``int8``, with a remark where one is due (``fp16, softmax fp32``)."""

    def names(self) -> frozenset[str]:
        """rgb, points and, where the bundle has them, adaptor_rgb, adaptor_points, adaptor_points_full."""

    def nbytes(self, name: str) -> GraphBytes:
        """Device memory of one of the networks."""

    def graph(self, name: str) -> DeviceGraph:
        """Another graph of the network. Raises EngineError where there is none of the name, or no memory for it."""

    def close(self) -> None:
        """Free the weights; every graph was closed before. May be called twice."""
