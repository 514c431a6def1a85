"""An FP16 graph of a bundle's graph: half weights and activations at products, float32 where half loses too much.

Networks are built strongly typed, so a tensor's type in the ONNX is its type in the engine. Inputs and outputs stay
float32. What stays float32 inside:

- everything before the first product with weights that sums ``MIN_INNER`` terms or more: heights, planes and distances
  of points are differences of nearly equal numbers (``calibration.networks.surface``), a layer that takes coordinates
  has nothing for tensor cores to gain; the logarithm of counts;
- statistics: LayerNormalization and sums, whose squares are the first to leave half's range;
- attention's softmax where ``softmax`` is fp32.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from asperity.export.graphs import Array, constants, element_types, load, products, save, set_constants
from asperity.runtime.errors import EngineError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
MIN_INNER = 16
STATISTICS = frozenset(
    {"LayerNormalization", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Pow", "Sqrt", "Reciprocal", "Log"}
)
LARGEST = float(np.finfo(np.float16).max)
AS_HALF, AS_FLOAT = "__half", "__float"


def half_graph(model: bytes, name: str, softmax: Literal["half", "fp32"] = "half") -> bytes:
    """The FP16 form of a float32 graph; names, shapes and types of inputs and outputs stay.

    Raises EngineError for weights that half cannot hold, BundleError for a graph that cannot be read.
    """
    made = load(model, name)
    _Conversion(made, name, _half_nodes(made, softmax)).run()
    return save(made, name)


def _half_nodes(model: ModelProto, softmax: str) -> set[int]:
    """Indices of the nodes that compute in half: those behind a large product, but for the exceptions above."""
    types = element_types(model)
    inner = {product.index: product.inner for product in products(model)}
    kept_float = STATISTICS | (frozenset({"Softmax"}) if softmax == "fp32" else frozenset())
    behind: set[str] = set()
    chosen: set[int] = set()
    for index, node in enumerate(model.graph.node):
        if not (inner.get(index, 0) >= MIN_INNER or any(name in behind for name in node.input)):
            continue
        behind.update(node.output)
        if node.op_type not in kept_float and types[node.output[0]] == FLOAT:
            chosen.add(index)
    return chosen


class _Conversion:
    """Rewrites a model's nodes in order; a cast stands where a tensor is needed in its other type, once for all."""

    def __init__(self, model: ModelProto, name: str, half_nodes: set[int]) -> None:
        self._model, self._name, self._half_nodes = model, name, half_nodes
        self._types = element_types(model)
        self._constants = constants(model)
        self._outputs = {value.name for value in model.graph.output}
        self._is_half: set[str] = set()
        self._nodes: list[NodeProto] = []
        self._there: set[str] = set()

    def run(self) -> None:
        """Replace the model's nodes and constants."""
        for index, node in enumerate(self._model.graph.node):
            half = index in self._half_nodes
            for place, name in enumerate(node.input):
                if name and self._types[name] == FLOAT:
                    node.input[place] = self._as_half(name) if half else self._as_float(name)
            self._nodes.append(node)
            if half:
                self._give_half(node)
        del self._model.graph.node[:]
        self._model.graph.node.extend(self._nodes)
        set_constants(self._model, self._constants)

    def _give_half(self, node: NodeProto) -> None:
        for place, name in enumerate(node.output):
            if name in self._outputs:
                node.output[place] = name + AS_HALF
                self._nodes.append(helper.make_node("Cast", [name + AS_HALF], [name], to=FLOAT))
                self._there.add(name + AS_HALF)
            else:
                self._is_half.add(name)

    def _as_half(self, name: str) -> str:
        if name in self._is_half:
            return name
        other = name + AS_HALF
        if name in self._constants:
            if other not in self._constants:
                self._constants[other] = self._rounded(name)
        elif other not in self._there:
            self._nodes.append(helper.make_node("Cast", [name], [other], to=HALF))
            self._there.add(other)
        return other

    def _as_float(self, name: str) -> str:
        if name not in self._is_half:
            return name
        other = name + AS_FLOAT
        if other not in self._there:
            self._nodes.append(helper.make_node("Cast", [name], [other], to=FLOAT))
            self._there.add(other)
        return other

    def _rounded(self, name: str) -> Array:
        values = np.asarray(self._constants[name], dtype=np.float32)
        # Clip's bounds may be at float32's end; there half's end means the same.
        bound = values.size == 1 and np.abs(values).max() >= np.finfo(np.float32).max
        if not bound and not np.abs(values).max(initial=0.0) <= LARGEST:
            raise EngineError(
                f"{self._name}.onnx: weight {name!r} reaches {np.abs(values).max():.3g}, beyond half's {LARGEST:.0f}; "
                "use precision fp32"
            )
        return np.clip(values, -LARGEST, LARGEST).astype(np.float16)
