"""Read a bundle's ONNX graphs without the onnx package, and refuse whatever ``export`` would not have written.

A graph from outside is a program. ONNX can loop forever, keep weights in other files, and carry graphs inside nodes,
functions and foreign operators; ``export`` uses none of that. So the list of what a graph may hold is the
list of what ``export`` writes, field by field and operator by operator: anything else is refused by name, whether
known to be dangerous or not. Field numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import BundleError

OPERATORS = frozenset({
    "Add", "Clip", "Concat", "Conv", "Div", "Erf", "Expand", "Gather", "Gemm", "LayerNormalization", "Log", "MatMul",
    "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape",
    "Resize", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
})  # fmt: skip
"""All that a bundle's graphs may use. None of them contains a graph, and TensorRT 10's parser takes them all
(onnx-tensorrt, docs/operators.md). FP16 and INT8 forms use others; they are made locally from a graph that passed."""
OPERATOR_DOMAINS = frozenset({b"", b"ai.onnx"})
MAX_FIELDS = 250_000
"""Protobuf fields of one graph; the largest network of a profile has 8 000."""
MAX_TENSOR_VALUES = 2**28
"""Numbers in one tensor that a graph computes; the largest of a profile has 1.2e8."""
MAX_GRAPH_VALUES = 2**32
"""In all of them together; the most that a network of a profile computes is 8.7e8."""
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 8
ORT_FORMAT = b"ORTM"
"""At byte 4 of a file these make ONNX Runtime read another format, whatever else the bytes may mean."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class Weight:
    """A float tensor stored in a graph, flattened."""

    name: str
    values: NDArray[np.floating]


@dataclass(slots=True)
class Graph:
    """Contents of a graph's bytes."""

    weights: list[Weight] = field(default_factory=list)
    """Its float initialisers."""
    tensors: list[str] = field(default_factory=list)
    """Names of what its nodes compute."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A protobuf message: its name for people, and the fields that it may have."""

    name: str
    fields: frozenset[int]


_MODEL = _Kind("model", frozenset({1, 2, 3, 7, 8}))  # ir_version, producer_name and _version, graph, opset_import
_OPSET = _Kind("operator set", frozenset({1, 2}))  # domain, version
_GRAPH = _Kind("graph", frozenset({1, 2, 5, 11, 12, 13}))  # node, name, initializer, input, output, value_info
_NODE = _Kind("node", frozenset({1, 2, 3, 4, 5, 7}))  # input, output, name, op_type, attribute, domain
_ATTRIBUTE = _Kind("attribute", frozenset({1, 2, 3, 4, 7, 8, 20}))  # name, f, i, s, floats, ints, type
_TENSOR = _Kind("weight", frozenset({1, 2, 8, 9, 14}))  # dims, data_type, name, raw_data, data_location
_REFUSED = {
    ("model", 20): "training information",
    ("model", 25): "custom functions",
    ("graph", 15): "sparse weights",
    ("attribute", 5): "a tensor in an attribute",
    ("attribute", 6): "a graph inside a node",
    ("attribute", 10): "tensors in an attribute",
    ("attribute", 11): "graphs inside a node",
    ("attribute", 22): "a sparse tensor in an attribute",
    ("attribute", 23): "sparse tensors in an attribute",
    ("weight", 13): "a weight stored in another file",
}
"""What has a name for people among the fields that no graph of a bundle has."""


def read_graph(model: bytes) -> Graph:
    """Everything that a graph holds. Raises BundleError when it is not an ONNX graph as ``export`` writes one."""
    if model[4:8] == ORT_FORMAT:
        raise BundleError("is in ONNX Runtime's own format; an ONNX model is needed")
    try:
        return _Reader().read(memoryview(model))
    except (IndexError, ValueError) as error:
        raise BundleError(f"is not an ONNX model ({error})") from None


class _Reader:
    def __init__(self) -> None:
        self._left = MAX_FIELDS
        self._graph = Graph()

    def read(self, model: memoryview) -> Graph:
        graphs = 0
        for number, value in self._fields(model, _MODEL):
            if number == 7:
                graphs += 1
                self._read_graph(_view(value))
            elif number == 8:
                for inner, domain in self._fields(_view(value), _OPSET):
                    if inner == 1:
                        _check_domain(domain)
        if graphs != 1:
            raise BundleError(f"holds {graphs} graphs, not one")
        return self._graph

    def _read_graph(self, graph: memoryview) -> None:
        for number, value in self._fields(graph, _GRAPH):
            if number == 1:
                self._read_node(_view(value))
            elif number == 5:
                self._read_weight(_view(value))

    def _read_node(self, node: memoryview) -> None:
        for number, value in self._fields(node, _NODE):
            if number == 4 and (operator := _name(value)) not in OPERATORS:
                raise BundleError(f"uses operator {operator!r}, which a bundle's graph may not use")
            if number == 7:
                _check_domain(value)
            elif number == 2:
                self._graph.tensors.append(_name(value))
            elif number == 5:
                for _ in self._fields(_view(value), _ATTRIBUTE):
                    pass

    def _read_weight(self, tensor: memoryview) -> None:
        name, data_type, shape, raw = "", 0, [], memoryview(b"")
        for number, value in self._fields(tensor, _TENSOR):
            if number == 1:
                shape += [value] if isinstance(value, int) else list(_varints(value))
            elif number == 2 and isinstance(value, int):
                data_type = value
            elif number == 8:
                name = _name(value)
            elif number == 9:
                raw = _view(value)
            elif number == 14 and value != 0:
                raise BundleError(f"stores weight {name!r} in another file")
        dtype = DTYPES.get(data_type)
        if dtype is None:
            raise BundleError(f"has weight {name!r} of data type {data_type}; only float32 and int64 are used")
        if len(shape) > MAX_DIMENSIONS or math.prod(shape) * dtype.itemsize != len(raw):
            raise BundleError(f"has weight {name!r} of shape {shape[:MAX_DIMENSIONS]} in {len(raw)} bytes")
        if dtype.kind == "f":
            self._graph.weights.append(Weight(name, np.frombuffer(raw, dtype)))

    def _fields(self, message: memoryview, kind: _Kind) -> Iterator[tuple[int, int | memoryview]]:
        """(field number, value) of a protobuf message: ints, or views of length-delimited content."""
        at = 0
        while at < len(message):
            self._left -= 1
            if self._left < 0:
                raise BundleError(f"has more than {MAX_FIELDS} entries")
            key, at = _varint(message, at)
            number, wire = key >> 3, key & 7
            if number not in kind.fields:
                told = _REFUSED.get((kind.name, number), f"field {number} in a {kind.name}")
                raise BundleError(f"holds {told}, which a bundle's graph may not do")
            value: int | memoryview
            if wire == VARINT:
                value, at = _varint(message, at)
            elif wire in (FIXED32, FIXED64):
                width = 4 if wire == FIXED32 else 8
                value, at = int.from_bytes(_slice(message, at, width), "little"), at + width
            elif wire == LENGTH:
                length, at = _varint(message, at)
                value, at = _slice(message, at, length), at + length
            else:
                raise ValueError(f"unknown protobuf wire type {wire}")
            yield number, value


def with_outputs(model: bytes, names: list[str]) -> bytes:
    """The same graph with these tensors as further outputs, of any type and shape.

    Protobuf joins the parts of a message that is given twice, so a second piece of graph is appended.
    """
    outputs = b"".join(_delimited(12, _delimited(1, name.encode())) for name in names)
    return model + _delimited(7, outputs)


def _delimited(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | LENGTH) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _check_domain(value: int | memoryview) -> None:
    domain = bytes(_view(value)[:MAX_NAME_BYTES])
    if domain not in OPERATOR_DOMAINS:
        raise BundleError(f"uses operators of {domain.decode(errors='replace')!r}, which a bundle's graph may not do")


def _name(value: int | memoryview) -> str:
    view = _view(value)
    if len(view) > MAX_NAME_BYTES:
        raise ValueError(f"a name of {len(view)} bytes")
    return bytes(view).decode()


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where protobuf has a message or text")
    return value


def _slice(message: memoryview, at: int, length: int) -> memoryview:
    if at + length > len(message):
        raise ValueError("protobuf field extends beyond its message")
    return message[at : at + length]


def _varints(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(MAX_VARINT_BYTES):
        byte = message[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, at + index + 1
    raise ValueError("protobuf varint is too long")
