"""Nearest-neighbour search of other libraries on the same GPU: PyTorch and CuPy, with the index they find checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import FloatArray

CHUNK_BYTES = 2**31
"""Most of the queries x rows matrix that a rival holds at once."""


@dataclass(frozen=True, slots=True)
class Rival:
    """One implementation: its time, and its agreement with ours."""

    name: str
    median_s: float
    as_ours: float
    """Share of the queries whose row is the one that ours found."""


def torch_rivals(
    tokens: FloatArray, bank: FloatArray, index: NDArray[np.int32], where: str, repeats: int
) -> list[Rival]:
    """``torch.cdist`` + min in float32, and half matrix product + reduction. Raises ImportError without PyTorch."""
    import torch

    q, b = torch.from_numpy(tokens).to(where), torch.from_numpy(bank).to(where)
    step = max(1, CHUNK_BYTES // (4 * len(bank)))

    def cdist() -> Any:
        return torch.cat([torch.cdist(part, b).min(dim=1).indices for part in torch.split(q, step)])

    centre = b.mean(dim=0)
    q_half, b_half = (q - centre).half(), (b - centre).half()
    norms = (b - centre).square().sum(dim=1).mul(0.5)

    def product() -> Any:
        return torch.cat([(norms - (part @ b_half.T).float()).min(dim=1).indices for part in torch.split(q_half, step)])

    def synchronize() -> None:
        if where == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        return [
            _timed(name, call, synchronize, lambda found: found.cpu().numpy(), index, repeats)
            for name, call in (("torch.cdist + min", cdist), ("torch half matmul + min", product))
        ]


def torch_half_seconds(m: int, n: int, d: int, where: str, repeats: int) -> float:
    """Median seconds of PyTorch's half matrix product of these sizes on random data: the GPU's limit at that size."""
    import torch

    left = torch.randn(m, d, device=where, dtype=torch.float16)
    right = torch.randn(n, d, device=where, dtype=torch.float16)
    step = max(1, CHUNK_BYTES // (2 * m))
    parts = torch.split(right, step)
    outs = [torch.empty(m, len(part), device=where, dtype=torch.float16) for part in parts]

    def product() -> None:
        for part, out in zip(parts, outs, strict=True):
            torch.matmul(left, part.T, out=out)

    def synchronize() -> None:
        if where == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        return _median(product, synchronize, repeats)


def cupy_rival(tokens: FloatArray, bank: FloatArray, index: NDArray[np.int32], repeats: int) -> list[Rival]:
    """CuPy: half matrix product + argmin. Raises ImportError without CuPy."""
    import cupy

    q, b = cupy.asarray(tokens), cupy.asarray(bank)
    centre = b.mean(axis=0)
    q_half, b_half = (q - centre).astype(cupy.float16), (b - centre).astype(cupy.float16)
    norms = 0.5 * cupy.square(b - centre).sum(axis=1)
    step = max(1, CHUNK_BYTES // (4 * len(bank)))

    def product() -> Any:
        parts = [q_half[start : start + step] for start in range(0, len(tokens), step)]
        return cupy.concatenate([(norms - (part @ b_half.T).astype(cupy.float32)).argmin(axis=1) for part in parts])

    synchronize = cupy.cuda.get_current_stream().synchronize
    return [_timed("cupy half matmul + argmin", product, synchronize, cupy.asnumpy, index, repeats)]


def _timed(
    name: str,
    call: Callable[[], Any],
    synchronize: Callable[[], None],
    to_host: Callable[[Any], Any],
    index: NDArray[np.int32],
    repeats: int,
) -> Rival:
    found = to_host(call())
    median_s = _median(call, synchronize, repeats)
    return Rival(name, median_s, float((found == index).mean()))


def _median(call: Callable[[], Any], synchronize: Callable[[], None], repeats: int) -> float:
    for _ in range(2):
        call()
    spent = []
    for _ in range(repeats):
        synchronize()
        start_ns = time.perf_counter_ns()
        call()
        synchronize()
        spent.append((time.perf_counter_ns() - start_ns) / 1e9)
    return float(np.median(spent))
