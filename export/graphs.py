"""What the passes over ONNX graphs share: constants by name, element types, folding, the products with weights.

Only `onnx` and numpy are needed, so that a machine without torch can make its engines (docs/engines.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from asperity.runtime.errors import BundleError

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Product:
    """A MatMul, Gemm or Conv with constant weights."""

    index: int
    """Of its node in the graph."""
    activation: str
    weight: str
    inner: int
    """Products that are summed for one output value."""
    axis: int
    """Axis of the weight that holds the output channels."""


def load(model: bytes, name: str) -> ModelProto:
    """The model with its constant parts folded. Raises BundleError when it is none."""
    try:
        made = onnx.load_from_string(model)
    except Exception as error:  # protobuf's DecodeError is not among onnx's public names
        raise BundleError(f"{name}.onnx cannot be read ({error}); export the bundle again") from error
    del made.graph.value_info[:]  # inferred anew where types are asked for
    fold_constants(made)
    return made


def save(model: ModelProto, name: str) -> bytes:
    """Bytes of the model, the same for the same model. Raises BundleError when ONNX's checker refuses it."""
    del model.graph.value_info[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"{name}.onnx cannot be converted ({error}); use precision fp32") from error
    return bytes(model.SerializeToString(deterministic=True))


def constants(model: ModelProto) -> dict[str, Array]:
    """Initialisers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def element_types(model: ModelProto) -> dict[str, int]:
    """TensorProto element type of every tensor of the graph, by name."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    types = {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def set_constants(model: ModelProto, values: dict[str, Array]) -> None:
    """Replace all initialisers; those that no node reads are left out."""
    read = {name for node in model.graph.node for name in node.input}
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in values.items() if name in read
    )


def fold_constants(model: ModelProto) -> None:
    """Compute once what depends on constants alone (sliced or transposed weights), so that weights are seen as such."""
    known = constants(model)
    kept: list[NodeProto] = []
    opset = model.opset_import[0].version
    for node in model.graph.node:
        names = [name for name in node.input if name]
        if not names or any(name not in known for name in names) or len(node.output) != 1:
            kept.append(node)
            continue
        known[node.output[0]] = _computed(node, {name: known[name] for name in names}, opset)
    if len(kept) == len(model.graph.node):
        return
    del model.graph.node[:]
    model.graph.node.extend(kept)
    set_constants(model, known)


def _computed(node: NodeProto, inputs: dict[str, Array], opset: int) -> Array:
    graph = helper.make_graph(
        [node],
        "constant",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in inputs.items()
        ],
        [helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(made).run(None, inputs)
    return np.asarray(next(iter(results)))


def products(model: ModelProto) -> Iterator[Product]:
    """Every product with constant weights, in the graph's order."""
    known = constants(model)
    for index, node in enumerate(model.graph.node):
        if node.op_type not in {"MatMul", "Gemm", "Conv"} or node.input[1] not in known or node.input[0] in known:
            continue
        shape = known[node.input[1]].shape
        if node.op_type == "Conv":
            yield Product(index, node.input[0], node.input[1], int(np.prod(shape[1:])), 0)
        elif node.op_type == "MatMul" and len(shape) == 2:
            yield Product(index, node.input[0], node.input[1], shape[0], 1)
        elif node.op_type == "Gemm":
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            yield Product(index, node.input[0], node.input[1], shape[1] if turned else shape[0], 0 if turned else 1)
