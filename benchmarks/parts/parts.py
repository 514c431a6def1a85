"""Single parts of the frame path: nearest neighbour, the point branch.

What is timed is checked: nearest neighbours against float64, groups against the pipeline's own. Inputs change from
call to call, so that none is still in the processor's cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from asperity.benchmarks.line.camera_process import pictures
from asperity.benchmarks.line.rig import CAMERA
from asperity.benchmarks.results_tools import conditions, statistics
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.errors import DataError
from asperity.runtime.frame import FloatArray
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.features import merged_tokens
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.points import farthest_points, group, valid_points
from asperity.runtime.vision.preprocess import Masks, prepare

WARM_UP = 3
CHECKED_QUERIES = 64
NOISE = 0.3
"""Of the standardised features: queries lie about as far from the rows as a normal part's do."""
INPUTS = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """M queries against N rows of D channels."""

    queries: int
    rows: int
    channels: int

    @property
    def flop(self) -> int:
        """Times of the matrix product alone."""
        return 2 * self.queries * self.rows * self.channels


def run_knn(
    bundle: Path | None, shapes: tuple[Shape, ...], repeats: int, threads: int, seed: int = 1
) -> dict[str, Any]:
    """The banks of a bundle, or random ones. Raises DataError when an index is not float64's."""
    before = conditions.begin()
    rng = np.random.default_rng(seed)
    banks: list[tuple[str, MemoryBank, int]] = []
    if bundle is not None:
        opened = open_bundle(bundle, TrustStore(None))
        grid = opened.manifest.network.grid
        found = opened.banks()
        banks = [(name, bank.memory, grid**2) for name, bank in found.items()]
    for shape in shapes:
        rows = rng.standard_normal((shape.rows, shape.channels), dtype=np.float32)
        banks.append((f"{shape.queries} x {shape.rows} x {shape.channels}", MemoryBank(rows), shape.queries))
    if not banks:
        raise DataError("nothing to measure: give a bundle or --shape QUERIESxROWSxCHANNELS")
    cases = []
    with ThreadPoolExecutor(1, "beside") as beside:
        for name, bank, queries in banks:
            cases += _knn_cases(name, bank, queries, repeats, threads, rng, beside)
    measured = "one search of all queries, with its exact second look; and the matrix product that it rests on"
    wire_id = opened.wire_id if bundle is not None else None
    return _report("knn", measured, before, cases, bundle=wire_id, engine_threads=threads)


def _knn_cases(
    name: str, bank: MemoryBank, queries: int, repeats: int, threads: int, rng: np.random.Generator,
    beside: ThreadPoolExecutor,
) -> list[dict[str, Any]]:  # fmt: skip
    shape = Shape(queries, len(bank), bank.dimension)
    inputs = [
        bank.rows[rng.integers(0, len(bank), queries)]
        + NOISE * rng.standard_normal((queries, bank.dimension), dtype=np.float32)
        for _ in range(INPUTS)
    ]
    _check_nearest(bank, inputs[0][:CHECKED_QUERIES])
    helper = beside if threads > 1 else None
    transposed = np.ascontiguousarray(bank.rows.T)
    with threadpool_limits(limits=1 if helper else threads, user_api="blas"):
        search_us = _timed(lambda at: bank.nearest(inputs[at % INPUTS], helper), repeats)
    with threadpool_limits(limits=threads, user_api="blas"):
        product_us = _timed(lambda at: inputs[at % INPUTS] @ transposed, repeats)
    ratio, low, high = statistics.ratio_interval(search_us, product_us, statistics.percentile_of(50))
    size = {"queries": shape.queries, "rows": shape.rows, "channels": shape.channels}
    return [
        _case(f"{name}: search", search_us, **size, gflop_per_s=_rate(shape, search_us),
              share_of_product=round(ratio, 3), share_low=round(low, 3), share_high=round(high, 3)),
        _case(f"{name}: matrix product alone", product_us, **size, gflop_per_s=_rate(shape, product_us)),
    ]  # fmt: skip


def run_points(bundle: Path, folder: Path, repeats: int, threads: int) -> dict[str, Any]:
    """Preprocessing, sampling, grouping, encoder and adaptor of a bundle's point branch, each separately."""
    from asperity.runtime.engines.cpu import OnnxNetworks

    before = conditions.begin()
    opened = open_bundle(bundle, TrustStore(None))
    manifest = opened.manifest
    geometry, network = manifest.geometry, manifest.network
    masks = Masks(opened.inspect_mask(), opened.ignore_mask())
    frames = pictures(folder, CAMERA)
    prepared = [prepare(frame, geometry, network, masks) for frame in frames]
    clouds = [valid_points(each.cloud)[0] for each in prepared]
    grouped = [group(each.cloud, network) for each in prepared]
    if not (grouped[0].centres == group(prepared[0].cloud, network).centres).all():
        raise DataError("grouping gave two different results for the same cloud")
    networks = OnnxNetworks(_graphs(opened), network, threads)
    tokens = [networks.points(each.groups, each.centres) for each in grouped]
    with threadpool_limits(limits=threads, user_api="blas"):
        steps: dict[str, Callable[[int], object]] = {
            "prepare": lambda at: prepare(frames[at % len(frames)], geometry, network, masks),
            "sampling": lambda at: farthest_points(clouds[at % len(clouds)], network.groups),
            "grouping, sampling and patch map within": lambda at: group(prepared[at % len(prepared)].cloud, network),
            "point encoder": lambda at: networks.points(
                grouped[at % len(grouped)].groups, grouped[at % len(grouped)].centres
            ),
        }
        if network.adaptor == "lsfa":
            merged = [_merged(each, own, opened) for each, own in zip(grouped, tokens, strict=True)]
            steps["points adaptor"] = lambda at: networks.adapt_points(*merged[at % len(merged)])
        cases = [_case(name, _timed(step, repeats)) for name, step in steps.items()]
    sizes = [len(cloud) for cloud in clouds]
    return _report("points", "each step by itself, on frames in turn", before, cases, bundle=opened.wire_id,
                   folder=folder.name, engine_threads=threads, points=[min(sizes), max(sizes)],
                   groups=[network.groups, network.group_size])  # fmt: skip


def _report(
    benchmark: str, measured: str, before: conditions.Before, cases: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    threads = more.pop("engine_threads", None)
    return {
        "benchmark": benchmark,
        "measured": measured,
        **conditions.end(before, engine_threads=threads, blas_threads=conditions.blas_threads()),
        **more,
        "cases": cases,
    }


def _case(name: str, latencies_us: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, **more, "latency": statistics.summary(latencies_us), "latencies_us": latencies_us}


def _timed(step: Callable[[int], object], repeats: int) -> list[int]:
    found = []
    for at in range(WARM_UP + repeats):
        began_ns = time.perf_counter_ns()
        step(at)
        found.append((time.perf_counter_ns() - began_ns) // 1000)
    return found[WARM_UP:]


def _rate(shape: Shape, spent_us: list[int]) -> float | None:
    """None: the median is below the resolution of a microsecond."""
    median_us = float(np.median(spent_us))
    return round(shape.flop / median_us / 1000, 2) if median_us else None


def _check_nearest(bank: MemoryBank, queries: FloatArray) -> None:
    _, index = bank.nearest(queries)
    rows = bank.rows.astype(np.float64)
    for query, found in zip(queries.astype(np.float64), index, strict=True):
        squared = ((rows - query) ** 2).sum(axis=1)
        if int(squared.argmin()) != int(found):
            raise DataError(f"row {found} was found where float64 finds {int(squared.argmin())}; its timing is void")


def _merged(grouped: Any, tokens: FloatArray, opened: Bundle) -> tuple[FloatArray, FloatArray]:
    patches = np.asarray(grouped.to_patches @ tokens, dtype=np.float32)
    return merged_tokens(patches, grouped.nonempty, opened.manifest.network)


def _graphs(opened: Bundle) -> dict[str, bytes]:
    return {name: opened.graph(name) for name in opened.graph_names()}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
