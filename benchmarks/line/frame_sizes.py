"""What frames of 0.3 to 5 megapixels cost: on the wire, in preprocessing, and on the way through shared memory.

Each size is sent at a rate that its bytes allow (``BYTES_PER_S``), so that a frame never waits for the one before it:
what is measured is the transport of one frame.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asperity.benchmarks.line import sealed_memory
from asperity.benchmarks.line.wire import Form, Transport, WireBenchmark, measure_case
from asperity.benchmarks.results_tools import conditions, statistics
from asperity.calibration.profiles import network_for, profile
from asperity.runtime.cameras.pictures.pixels import colour
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.manifest import Geometry, Plane
from asperity.runtime.vision.overlay import heat_overlay
from asperity.runtime.vision.preprocess import prepare

ASPECT = 4 / 3
BYTES_PER_S = 400e6
MOST_HZ = 30.0
WARM_UP = 3
DISTANCE_MM, BOX_MM = 500.0, 20.0
NOISE_MM = 0.05


@dataclass(frozen=True, slots=True)
class SizeBenchmark:
    """What to measure."""

    megapixels: tuple[float, ...] = (0.3, 2.0, 5.0)
    frames: int = 20
    repeats: int = 7
    forms: tuple[Form, ...] = ("xyz", "depth")
    transports: tuple[Transport, ...] = ("tcp", "ipc")
    seed: int = 1


def run_sizes(options: SizeBenchmark) -> dict[str, Any]:
    """Measure every size. Raises StationError when a camera's process stops sending."""
    before = conditions.begin()
    cases: list[dict[str, Any]] = []
    for megapixels in options.megapixels:
        rows, columns = size_of(megapixels)
        for form in options.forms:
            nbytes = rows * columns * (15 if form == "xyz" else 5)
            wire = WireBenchmark(
                frames=options.frames, warm_up=WARM_UP, rate_hz=min(MOST_HZ, BYTES_PER_S / nbytes), rows=rows,
                columns=columns, seed=options.seed,
            )  # fmt: skip
            for transport in options.transports:
                found = measure_case(wire, form, transport)
                cases.append(_case(f"{form} over {transport}", wire, found["latencies_us"], found["message_bytes"]))
            for name in ("sealed memory", "shared block") if form == "xyz" else ():
                with tempfile.TemporaryDirectory() as folder:
                    ring = name == "shared block"
                    latencies_us, sent = sealed_memory.measure(wire, form, ring=ring, folder=Path(folder))
                cases.append(_case(f"{form} over {name}", wire, latencies_us, sent))
        cases += _work(options, rows, columns)
    return {
        "benchmark": "frame-sizes",
        "measured": "over: from just before a frame is encoded in the camera's process to a decoded Frame in another; "
        "else: one call in one process",
        **conditions.end(before),
        "megapixels": list(options.megapixels),
        "seed": options.seed,
        "cases": cases,
    }


def size_of(megapixels: float) -> tuple[int, int]:
    """(rows, columns), of 4:3, each a multiple of 4; 0.3 is 480 x 640."""
    if megapixels == 0.3:
        return 480, 640
    rows = round(math.sqrt(megapixels * 1e6 / ASPECT) / 4) * 4
    return rows, round(rows * ASPECT / 4) * 4


def _case(name: str, wire: WireBenchmark, latencies_us: list[int], nbytes: int) -> dict[str, Any]:
    found = _row(name, wire.rows, wire.columns, latencies_us)
    found["mb"] = round(nbytes / 1e6, 1)
    found["mb_per_s"] = round(nbytes / max(1.0, float(np.median(latencies_us))))
    found["not_sent"] = wire.frames - len(latencies_us)
    return found


def _row(name: str, rows: int, columns: int, latencies_us: list[int]) -> dict[str, Any]:
    return {
        "name": f"{name}, {columns} x {rows}", "what": name, "rows": rows, "columns": columns,
        "latency": statistics.summary(latencies_us), "latencies_us": latencies_us,
    }  # fmt: skip


def _work(options: SizeBenchmark, rows: int, columns: int) -> list[dict[str, Any]]:
    """Preprocessing of both forms, what a source does to the colour, and the overlay of a map."""
    rng = np.random.default_rng(options.seed)
    frame, geometry = scene(rows, columns, rng)
    network = network_for(profile("edge"), geometry, "none")
    depth = replace(frame, xyz=None, depth=np.round(frame.xyz[..., 2] * 10).astype(np.uint16), scale=0.1)  # type: ignore[index]
    grey = rng.integers(0, 4096, (rows, columns)).astype(np.uint16)
    wide = rng.integers(0, 4096, (rows, columns, 3)).astype(np.uint16)
    bayer = grey.astype(np.uint8)
    heat = rng.random((rows, columns), dtype=np.float32)
    calls: dict[str, Callable[[], object]] = {
        "prepare xyz": lambda: prepare(frame, geometry, network),
        "prepare depth": lambda: prepare(depth, geometry, network),
        "colour of Mono16": lambda: colour(grey, "Mono16", rows, columns, white_level=4095),
        "colour of RGB16": lambda: colour(wide, "RGB16", rows, columns, white_level=4095),
        "colour of BayerRG8": lambda: colour(bayer, "BayerRG8", rows, columns),
        "overlay": lambda: heat_overlay(frame.rgb, heat, 0.0, 1.0),
    }
    return [_row(name, rows, columns, _timed(call, options.repeats)) for name, call in calls.items()]


def _timed(call: Callable[[], object], repeats: int) -> list[int]:
    call()
    found = []
    for _ in range(repeats):
        began_ns = time.monotonic_ns()
        call()
        found.append((time.monotonic_ns() - began_ns) // 1000)
    return found


def scene(rows: int, columns: int, rng: np.random.Generator) -> tuple[Frame, Geometry]:
    """A box of two fifths of the view on a mat, and the geometry that a calibration would find."""
    lens = Intrinsics(columns * 1.2, columns * 1.2, (columns - 1) / 2, (rows - 1) / 2)
    z = np.full((rows, columns), DISTANCE_MM, dtype=np.float32)
    top, left = round(0.3 * rows), round(0.3 * columns)
    box = (slice(top, rows - top), slice(left, columns - left))
    z[box] -= BOX_MM
    z += NOISE_MM * rng.standard_normal((rows, columns), dtype=np.float32)
    xyz = np.empty((rows, columns, 3), dtype=np.float32)
    xyz[..., 0] = (np.arange(columns) - lens.cx) / lens.fx * z
    xyz[..., 1] = ((np.arange(rows) - lens.cy) / lens.fy)[:, None] * z
    xyz[..., 2] = z
    rgb = rng.integers(30, 60, (rows, columns, 3), np.uint8)
    rgb[box] += 100
    frame = Frame("bench", "", 1, rgb, xyz=xyz, intrinsics=lens, unit="mm")
    mm_per_px = (DISTANCE_MM - BOX_MM) / lens.fx
    geometry = Geometry(
        method="plane", why="made", unit="mm", height_px=rows, width_px=columns,
        plane=Plane((0.0, 0.0, -1.0), DISTANCE_MM), plane_cut_mm=2.0, point_spacing_mm=mm_per_px,
        plane_noise_mm=NOISE_MM, cluster_gap_px=max(2, round(0.02 * columns)), side_px=round(0.5 * columns),
        mm_per_px=mm_per_px, min_points=64, moved_share=0.5, moved_mm=2.0,
    )  # fmt: skip
    return frame, geometry
