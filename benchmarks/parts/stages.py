"""Where a frame's time goes in several bundles, on one thread: each frame by all of them in turn, and the work counted.

Stages are measured in processor time, so that another program's work is not counted, though its use of caches is.

    python -m asperity.benchmarks.parts.stages BUNDLE... --frames FOLDER --out FILE
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from asperity.benchmarks.published_form.mac_count import giga, graph_macs, search_macs
from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.calibration.frames.datasets import open_dataset
from asperity.runtime.bundle.checks import FULL_GRAPH
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.frame import Scores
from asperity.runtime.security.signing_keys import TrustStore

STAGES = ("pre", "rgb", "points", "knn")
WARM_UP = 5


def command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of one station.")],
    frames: Annotated[Path, typer.Option(help="Folder of its frames.")],
    out: Annotated[Path, typer.Option(help="Result file.")],
    limit: Annotated[int, typer.Option(help="Frames measured, after five that are not.")] = 60,
    keys: Annotated[Path | None, typer.Option(help="Key folder.")] = None,
) -> None:
    """Measure each stage of a frame in milliseconds, and count its multiply-accumulates."""
    load = os.getloadavg()[0]
    opened = [open_bundle(path, TrustStore(keys)) for path in bundles]
    engines = [CpuEngine.open(bundle, 1) for bundle in opened]
    items = open_dataset(frames, unit=opened[0].manifest.geometry.unit).normal()[: WARM_UP + limit]
    seen: list[list[dict[str, float]]] = [[] for _ in opened]
    last: list[Scores] = []
    for item in items:
        frame = item.frame()
        last = []
        for engine, rows in zip(engines, seen, strict=True):
            row = dict.fromkeys((*STAGES, "all"), 0.0)
            rows.append(row)
            begin, marks = time.perf_counter(), [time.process_time()]

            def lap(stage: str, row: dict[str, float] = row, marks: list[float] = marks) -> None:
                marks.append(time.process_time())
                row[stage] += marks[-1] - marks[-2]

            last.append(engine.score(frame, lap))
            row["all"], row["wall"] = time.process_time() - marks[0], time.perf_counter() - begin
    reports.write_result(
        out,
        {
            "command": "python -m asperity.benchmarks.parts.stages BUNDLE... --frames FOLDER --out FILE",
            "commit": commit(), "machine": machine(), "load_before": load, "frames": len(items) - WARM_UP, "threads": 1,
            "bundles": [
                _figures(bundle, rows[WARM_UP:], one) for bundle, rows, one in zip(opened, seen, last, strict=True)
            ],
        },
    )  # fmt: skip


def _figures(bundle: Bundle, rows: list[dict[str, float]], one: Scores) -> dict[str, Any]:
    def quantile(name: str, share: float) -> float:
        return round(1e3 * float(np.quantile([row[name] for row in rows], share)), 2)

    network = bundle.manifest.network
    # The larger graph of an adaptor runs in place of the other, for frames with more patches than usual.
    macs = {name: graph_macs(bundle.graph(name)) for name in bundle.graph_names() if name != FULL_GRAPH}
    if "geometry" in network.modalities:
        macs["rgb, second pass"] = macs["rgb"]
    for name, bank in bundle.banks().items():
        grid = network.rgb_grid if name in ("rgb", "geometry") else network.grid
        cells = one.scored.reshape(grid, network.grid // grid, grid, network.grid // grid).any(axis=(1, 3))
        macs[f"search, {name}"] = search_macs(int(cells.sum()), *bank.memory.rows.shape)
    return {
        "profile": network.profile, "adaptor": network.adaptor, "modalities": network.modalities,
        "bank_rows": {name: len(bank.memory) for name, bank in bundle.banks().items()}, "gmac": giga(macs),
        "processor_p50_ms": {name: quantile(name, 0.5) for name in (*STAGES, "all")},
        "wall_p10_ms": quantile("wall", 0.1), "wall_p50_ms": quantile("wall", 0.5),
    }  # fmt: skip


if __name__ == "__main__":
    typer.run(command)
