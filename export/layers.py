"""Layer by layer: how far a derived graph (fp16, int8) is from the bundle's float32 one, on the station's own frames.

The derived graph is judged in its rounding form (``export.rounding``) on the CPU; an engine that fuses rounds less.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from asperity.export.graphs import Array, load
from asperity.export.observe import Inputs, chunks, session_of
from asperity.export.rounding import rounded_graph
from asperity.runtime.errors import EngineError

COMPARED = frozenset({"Conv", "Gemm", "LayerNormalization", "MatMul", "ReduceMax", "Softmax"})


class LayerParity(msgspec.Struct, frozen=True):
    """One tensor of a graph, derived against float32, over all frames given."""

    tensor: str
    operator: str
    largest: float
    """Largest |value| in float32; half ends at 65504."""
    rms_error: float
    """Root of the mean squared difference, in units of the float32 values' standard deviation."""
    largest_error: float
    """Largest |difference|, in the same units."""


def compare_layers(
    reference: bytes, derived: bytes, name: str, frames: Sequence[Inputs], threads: int = 1
) -> list[LayerParity]:
    """Products, norms, softmaxes and the output of a graph, in its order. Raises EngineError without frames."""
    if not frames:
        raise EngineError(f"{name}: layers are compared on frames, and none is given")
    theirs, ours = load(reference, name), load(rounded_graph(derived, name), name)
    there = {output for node in ours.graph.node for output in node.output}
    final = {value.name for value in theirs.graph.output}
    operators = {
        node.output[0]: node.op_type
        for node in theirs.graph.node
        if node.output[0] in there and (node.op_type in COMPARED or node.output[0] in final)
    }
    compared: list[LayerParity] = []
    for chunk in chunks(theirs, list(operators)):
        sessions = [session_of(model, chunk, threads) for model in (theirs, ours)]
        sums = {tensor: _Sums() for tensor in chunk}
        for frame in frames:
            expected, seen = (session.run(chunk, dict(frame)) for session in sessions)
            for tensor, wanted, found in zip(chunk, expected, seen, strict=True):
                sums[tensor].add(wanted, found)
        compared += [sums[tensor].parity(tensor, operators[tensor]) for tensor in chunk]
    return compared


class _Sums:
    """What is kept of a tensor over the frames."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares, self._errors = 0, 0.0, 0.0, 0.0
        self._largest, self._largest_error = 0.0, 0.0

    def add(self, wanted: Array, found: Array) -> None:
        difference = np.subtract(found, wanted, dtype=np.float64)
        self._count += wanted.size
        self._sum += float(wanted.sum(dtype=np.float64))
        self._squares += float(np.square(wanted, dtype=np.float64).sum())
        self._errors += float(np.square(difference).sum())
        self._largest = max(self._largest, float(np.abs(wanted).max()))
        # max() would pass over a NaN
        self._largest_error = float(np.maximum(self._largest_error, np.abs(difference).max()))

    def parity(self, tensor: str, operator: str) -> LayerParity:
        mean = self._sum / self._count
        spread = float(np.sqrt(max(self._squares / self._count - mean**2, 0.0)))
        unit = spread if spread > 0 else 1.0
        rms = float(np.sqrt(self._errors / self._count))
        return LayerParity(tensor, operator, self._largest, rms / unit, self._largest_error / unit)
