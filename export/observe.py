"""Values of tensors inside a graph while ONNX Runtime runs it on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, helper

from asperity.export.graphs import Array

MAX_FETCHED_BYTES = 512 * 2**20

Inputs = Mapping[str, Array]
"""A graph's inputs by name."""


def observe(
    model: ModelProto, names: Sequence[str], frames: Sequence[Inputs], threads: int = 1
) -> Iterator[dict[str, Array]]:
    """Values of the named tensors (float32, of the graph or its inputs) on each frame, some names at a time.

    All frames for the first names, then all for the next ones: ``MAX_FETCHED_BYTES`` are held at once.
    """
    given = [name for name in names if any(value.name == name for value in model.graph.input)]
    for frame in frames:
        if given:
            yield {name: frame[name] for name in given}
    for chunk in chunks(model, [name for name in names if name not in given]):
        session = session_of(model, chunk, threads)
        for frame in frames:
            yield dict(zip(chunk, session.run(chunk, dict(frame)), strict=True))


def chunks(model: ModelProto, names: Sequence[str]) -> Iterator[list[str]]:
    """Names in groups whose tensors take no more than ``MAX_FETCHED_BYTES`` together."""
    inferred = onnx.shape_inference.infer_shapes(model)
    sizes = {
        value.name: 4 * int(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim]))
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    chunk: list[str] = []
    nbytes = 0
    for name in names:
        if chunk and nbytes + sizes[name] > MAX_FETCHED_BYTES:
            yield chunk
            chunk, nbytes = [], 0
        chunk.append(name)
        nbytes += sizes[name]
    if chunk:
        yield chunk


def session_of(model: ModelProto, names: Sequence[str], threads: int) -> Any:
    """A session that can also be asked for the named tensors."""
    shown = ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in shown.graph.output}
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    return onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
