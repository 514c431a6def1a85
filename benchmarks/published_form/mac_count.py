"""Multiply-accumulates of a frame, counted rather than taken from a table: our ONNX graphs and the published form.

Matrix products and convolutions are counted, since they dominate (lsfa 10.1). Sampling, grouping, interpolation
and pooling (under 0.5 GMAC as published) are left out on both sides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import shape_inference
from threadpoolctl import ThreadpoolController
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def graph_macs(model: bytes) -> int:
    """Multiply-accumulates of one run of an ONNX graph with static shapes.

    Raises ValueError where a product's shape is not known.
    """
    graph = shape_inference.infer_shapes(onnx.load_from_string(model), strict_mode=True).graph
    shapes: dict[str, tuple[int, ...]] = {one.name: tuple(one.dims) for one in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(one.dim_value for one in dims)
    total = 0
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        result, left, right = (shapes.get(name, ()) for name in (node.output[0], node.input[0], node.input[1]))
        if not (result and left and right and all(result)):
            raise ValueError(f"the shape of {node.op_type} {node.output[0]} is not known")
        if node.op_type == "Conv":
            depth = math.prod(right[1:])  # input channels of a group x kernel
        elif node.op_type == "Gemm" and any(one.name == "transA" and one.i for one in node.attribute):
            depth = left[0]
        else:
            depth = left[-1]
        total += math.prod(result) * depth
    return total


def torch_macs(run: Callable[[], Any]) -> int:
    """Multiply-accumulates of the matrix products, convolutions and attentions that ``run`` calls."""
    counter = FlopCounterMode(display=False)
    # The counter does not know the CPU's fused attention; written out it is two products.
    with counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return int(counter.get_total_flops()) // 2


def search_macs(queries: int, rows: int, channels: int) -> int:
    """Multiply-accumulates of a nearest-neighbour search as a matrix product."""
    return queries * rows * channels


def giga(counts: Mapping[str, int]) -> dict[str, float]:
    """The counts in GMAC, with their sum as ``total``."""
    return {name: round(count / 1e9, 3) for name, count in counts.items()} | {
        "total": round(sum(counts.values()) / 1e9, 3)
    }


def matmul_gflops(threads: int, size: int = 1024, repeats: int = 8) -> dict[str, int]:
    """Float32 rates of a square matrix product on this many threads, GFLOP/s: what this machine reaches at best."""
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    tensor = torch.from_numpy(a)
    rates = {}
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        for name, product in (("numpy", lambda: a @ a), ("torch", lambda: torch.mm(tensor, tensor))):
            best_s = math.inf
            for _ in range(repeats):
                since_s = time.perf_counter()
                product()
                best_s = min(best_s, time.perf_counter() - since_s)
            rates[name] = round(2 * size**3 / best_s / 1e9)
    return rates
