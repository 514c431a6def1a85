"""Read the weights out of ONNX bytes without the onnx package: just enough of the protobuf wire format for that.

Field numbers are those of ``onnx.proto3`` (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_ATTRIBUTE, ATTRIBUTE_TENSOR = 5, 5
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW, TENSOR_DOUBLES = 1, 2, 4, 8, 9, 10
TENSOR_EXTERNAL_DATA, TENSOR_LOCATION = 13, 14
FLOAT_DTYPES = {1: "<f4", 10: "<f2", 11: "<f8"}
MAX_VARINT_BYTES = 10


@dataclass(frozen=True, slots=True)
class Weight:
    """A float tensor stored in a graph, flattened."""

    name: str
    values: NDArray[np.floating]


def float_weights(model: bytes) -> Iterator[Weight]:
    """All float initialisers and tensor constants of the main graph.

    Raises BundleError when the bytes are no ONNX model or a tensor lives in another file.
    """
    view = memoryview(model)
    try:
        for graph in _messages(view, MODEL_GRAPH):
            for tensor in _messages(graph, GRAPH_INITIALIZER):
                yield from _weight(tensor)
            for node in _messages(graph, GRAPH_NODE):
                for attribute in _messages(node, NODE_ATTRIBUTE):
                    for tensor in _messages(attribute, ATTRIBUTE_TENSOR):
                        yield from _weight(tensor)
    except (IndexError, ValueError) as error:
        raise BundleError(f"is no ONNX model ({error})") from None


def _weight(tensor: memoryview) -> Iterator[Weight]:
    dtype, name, raw, typed = "", "", None, []
    for number, value in _fields(tensor):
        if number == TENSOR_TYPE and isinstance(value, int):
            dtype = FLOAT_DTYPES.get(value, "")
        elif number == TENSOR_NAME and isinstance(value, memoryview):
            name = bytes(value).decode(errors="replace")
        elif number == TENSOR_RAW and isinstance(value, memoryview):
            raw = value
        elif number == TENSOR_FLOATS:
            typed.append(np.frombuffer(_packed(value, 4), "<f4"))
        elif number == TENSOR_DOUBLES:
            typed.append(np.frombuffer(_packed(value, 8), "<f8"))
        elif number == TENSOR_EXTERNAL_DATA or (number == TENSOR_LOCATION and value == 1):
            raise BundleError(f"keeps weight {name!r} in another file")
    if not dtype:
        return
    if raw is not None:
        yield Weight(name, np.frombuffer(raw, dtype))
    elif typed:
        yield Weight(name, np.concatenate(typed))


def _packed(value: int | memoryview, width: int) -> bytes:
    """A repeated fixed-width field is one packed block, or single values (which arrive as ints)."""
    return bytes(value) if isinstance(value, memoryview) else value.to_bytes(width, "little")


def _messages(message: memoryview, number: int) -> Iterator[memoryview]:
    for found, value in _fields(message):
        if found == number and isinstance(value, memoryview):
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a protobuf message: ints, or views of length-delimited content."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        value: int | memoryview
        if kind == VARINT:
            value, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            width = 4 if kind == FIXED32 else 8
            value, at = int.from_bytes(_slice(message, at, width), "little"), at + width
        elif kind == LENGTH:
            length, at = _varint(message, at)
            value, at = _slice(message, at, length), at + length
        else:
            raise ValueError(f"unknown protobuf wire type {kind}")
        yield key >> 3, value


def _slice(message: memoryview, at: int, length: int) -> memoryview:
    if at + length > len(message):
        raise ValueError("protobuf field reaches beyond its message")
    return message[at : at + length]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(MAX_VARINT_BYTES):
        byte = message[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, at + index + 1
    raise ValueError("protobuf varint is too long")
