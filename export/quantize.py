"""An INT8 graph by explicit Q/DQ: products with weights take int8 in, everything else stays as in the FP16 graph.

QInt8, symmetric, zero point 0: activations one scale per tensor, weights one per output channel, no quantised bias. The
ranges of activations come from the bundle's own normal frames (``export.graph_inputs``), run in float32 on the CPU.
Attention's inner products have no weights and stay half, so that they can be fused. Never the default: int8 is served
where it passes the bundle's gate and is faster (docs/engines.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from onnx import NodeProto, helper

from asperity.export.graphs import Array, constants, load, products, save, set_constants
from asperity.export.half import AS_HALF, MIN_INNER, half_graph
from asperity.export.observe import Inputs, observe
from asperity.runtime.errors import EngineError

OPSET = 19
"""The first in which Q/DQ take half; TensorRT 10.3's parser takes opsets 9 to 20."""
KEPT_SHARE = 0.9999
"""Of its values on a frame, an activation's range covers this share: single outliers would coarsen all others."""
LEVELS = 127
QUANTISED, SCALE, ZERO, BACK = "__int8", "__scale", "__zero", "__dequantised"


def int8_graph(
    model: bytes, name: str, ranges: Mapping[str, float], softmax: Literal["half", "fp32"] = "half"
) -> bytes:
    """The INT8 form of a float32 graph: its FP16 form with Q/DQ around each product's activation and weights.

    ``ranges``: largest |value| to represent, by the float32 graph's tensor names (``activation_ranges``). Raises
    EngineError when one is missing or no positive number, or as ``export.half``.
    """
    made = load(half_graph(model, name, softmax), name)
    weights = constants(made)
    nodes: list[NodeProto] = list(made.graph.node)
    there: set[str] = set()
    before: dict[int, list[NodeProto]] = {}
    for product in products(made):
        if product.inner < MIN_INNER or weights[product.weight].dtype != np.float16:
            continue
        added = before.setdefault(product.index, [])
        node = nodes[product.index]
        activation = product.activation
        if activation not in there:
            there.add(activation)
            scale = _scale(ranges, activation.removesuffix(AS_HALF), name)
            weights[activation + SCALE] = scale
            weights[activation + ZERO] = np.zeros((), np.int8)
            names = [activation + SCALE, activation + ZERO]
            added.append(helper.make_node("QuantizeLinear", [activation, *names], [activation + QUANTISED]))
            added.append(helper.make_node("DequantizeLinear", [activation + QUANTISED, *names], [activation + BACK]))
        if product.weight not in there:
            there.add(product.weight)
            values, scales = quantised_weights(weights[product.weight], product.axis)
            weights[product.weight + QUANTISED] = values
            weights[product.weight + SCALE] = scales
            weights[product.weight + ZERO] = np.zeros(scales.shape, np.int8)
            inputs = [product.weight + QUANTISED, product.weight + SCALE, product.weight + ZERO]
            added.append(helper.make_node("DequantizeLinear", inputs, [product.weight + BACK], axis=product.axis))
        node.input[0], node.input[1] = activation + BACK, product.weight + BACK
    ordered = [one for index, node in enumerate(nodes) for one in (*before.get(index, ()), node)]
    del made.graph.node[:]
    made.graph.node.extend(ordered)
    made.opset_import[0].version = OPSET
    set_constants(made, weights)
    return save(made, name)


def quantised_weights(weights: Array, axis: int) -> tuple[Array, Array]:
    """int8 values and the half scale of each channel along ``axis``; a channel of zeros has scale 1."""
    values = np.moveaxis(np.asarray(weights, np.float32), axis, 0)
    flat = values.reshape(len(values), -1)
    scales = _half_scale(np.abs(flat).max(axis=1))
    shaped = scales.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    rounded = np.clip(np.rint(values / shaped), -LEVELS, LEVELS).astype(np.int8)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, axis)), scales


def _half_scale(largest: Array) -> Array:
    """largest / 127 in half, never rounded to zero; where all values are zero any scale is right, 1 is taken."""
    scales = (np.asarray(largest, np.float32) / LEVELS).astype(np.float16)
    scales = np.maximum(scales, np.finfo(np.float16).smallest_subnormal)
    return np.where(np.asarray(largest) == 0, np.float16(1), scales).astype(np.float16)


def _scale(ranges: Mapping[str, float], activation: str, name: str) -> Array:
    largest = ranges.get(activation, float("nan"))
    if not (np.isfinite(largest) and largest >= 0):
        raise EngineError(
            f"{name}.onnx: the range of {activation} on the calibration frames is {largest}; use precision fp16"
        )
    return _half_scale(np.asarray(largest)).reshape(())


def activation_ranges(model: bytes, name: str, frames: Sequence[Inputs], threads: int = 1) -> dict[str, float]:
    """Largest |value| worth representing of every product's activation, over frames, by the float32 graph's names.

    Of each frame the ``KEPT_SHARE`` quantile counts, of the frames the largest. Raises EngineError without frames.
    """
    if not frames:
        raise EngineError(f"{name}.onnx: int8 needs calibration frames and the bundle gives none")
    made = load(model, name)
    wanted = sorted({product.activation for product in products(made) if product.inner >= MIN_INNER})
    ranges = dict.fromkeys(wanted, 0.0)
    for observed in observe(made, wanted, frames, threads):
        for activation, values in observed.items():
            ranges[activation] = max(ranges[activation], _largest(values))
    return ranges


def _largest(values: Array) -> float:
    flat = np.abs(values).ravel()
    place = min(int(np.ceil(KEPT_SHARE * flat.size)), flat.size) - 1
    return float(np.partition(flat, place)[place])
