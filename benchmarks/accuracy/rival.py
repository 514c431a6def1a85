"""Judges a method that is not ours as ours is judged: same frames, window, part mask, split, and figures.

    python -m asperity.benchmarks.accuracy.rival hard-61 baseline:ColourAndFpfh
    python -m asperity.benchmarks.accuracy.rival hard-61 controls:HeightResidual
    python -m asperity.benchmarks.accuracy.rival hard-61 /elsewhere/shims.py:PatchCore       # not in this repository

The result is a row of the ablation (``gains SET lite/before rivals/NAME``), with processor seconds a frame and peak
memory. docs/rivals.md describes the shims that were used.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import resource
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.benchmarks.accuracy import ablation
from asperity.benchmarks.accuracy.evaluate import Report, Run, summary
from asperity.benchmarks.accuracy.material import foreground_of, products_of, truth_of
from asperity.benchmarks.accuracy.metrics import (
    auroc_standard_error,
    average_precision,
    detection_rate,
    pixel_figures,
)
from asperity.benchmarks.accuracy.pooled import FrameCurves, write_curves
from asperity.benchmarks.accuracy.trial import DefectFigures, Detection, Figures
from asperity.benchmarks.results_tools.machine import machine
from asperity.benchmarks.results_tools.reports import write_result
from asperity.calibration.auroc import auroc
from asperity.calibration.frames.datasets import open_dataset
from asperity.calibration.frames.prepare_normals import prepare_normals
from asperity.calibration.frames.split import split_frames
from asperity.calibration.options import CalibrateOptions, Removal
from asperity.calibration.outcome.threshold import choose_rate, threshold
from asperity.calibration.profiles import network_for, profile
from asperity.runtime.cameras.files.folders import GOOD
from asperity.runtime.frame import BoolArray, FloatArray, Frame, Prepared, Unit
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.maps import source_map
from asperity.runtime.vision.missing_points import as_declared
from asperity.runtime.vision.preprocess import Foreground, find_part, prepare

ALPHA = 0.05
LITE = CalibrateOptions(profile="lite")


@dataclass
class Seen:
    """A frame with our window and part mask."""

    frame: Frame
    geometry: Geometry
    network: Network

    @cached_property
    def prepared(self) -> Prepared:
        """Image of the window, background black, and its cloud."""
        return prepare(self.frame, self.geometry, self.network)

    @cached_property
    def part(self) -> Foreground:
        """The part at the camera's resolution."""
        return find_part(as_declared(self.frame, self.geometry), self.geometry)

    @cached_property
    def points(self) -> FloatArray:
        """The part's points inside of the window, mm: (N, 3)."""
        return self.part.points[self._pixels]

    @cached_property
    def cell_of(self) -> NDArray[np.int64]:
        """The patch of each of these points."""
        window, grid = self.prepared.window, self.network.grid
        rows, columns = (axis - start for axis, start in zip(self._pixels, (window.y_px, window.x_px), strict=True))
        return np.asarray(rows * grid // window.side_px * grid + columns * grid // window.side_px)

    @cached_property
    def cells(self) -> BoolArray:
        """Patches with a point: grid x grid."""
        grid = self.network.grid
        return np.bincount(self.cell_of, minlength=grid * grid).reshape(grid, grid) > 0

    @cached_property
    def _pixels(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        window = self.prepared.window
        rows, columns = np.nonzero(self.part.part)
        inside = (rows >= window.y_px) & (rows < window.y_px + window.side_px)
        inside &= (columns >= window.x_px) & (columns < window.x_px + window.side_px)
        return rows[inside], columns[inside]


class Rival(Protocol):
    """What a method must offer; it is made with (network, mm_per_px, seed)."""

    def fit(self, frames: Sequence[Seen], unseen: Sequence[Seen]) -> None:
        """Learn from normal frames; ``unseen`` are normal ones for what must be standardised."""

    def judge(self, frame: Seen) -> tuple[float, FloatArray]:
        """Score, higher is stranger, and its map of the window, P x P."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A rival on one product."""

    figures: Figures
    curves: FrameCurves
    names: list[str]
    processor_s: float
    """Of a test frame, our window and part mask included."""


def judge_product(source: Path, make: Any, seed: int, options: CalibrateOptions = LITE) -> Trial:
    """Learn from the frames that ours would be fitted on, and judge every test frame. Raises as ``calibrate``."""
    begin, chosen = time.monotonic(), profile(options.profile)
    normals = prepare_normals(source, options, chosen, lambda *_: None)
    network, geometry = network_for(chosen, normals.geometry, "none"), normals.geometry
    # Parts and names as in ``trial``: the same frames are fitted on.
    parts = [item.part_id for item in normals.items]
    split = split_frames(parts if all(parts) else [item.name for item in normals.items], seed=seed)
    seen = [Seen(item.frame(seq=0), geometry, network) for item in normals.items]
    rival: Rival = make(network, geometry.mm_per_px, seed)
    rival.fit([seen[i] for i in split.fit], [seen[i] for i in split.tune])
    calm = [rival.judge(seen[i])[0] for i in split.calibrate]
    shape_px = (geometry.height_px, geometry.width_px)
    items = [item for item in open_dataset(source, unit=options.unit).test()]
    scores, maps, foregrounds, spent = [], [], [], 0.0
    for item in items:
        frame = Seen(item.frame(seq=0), geometry, network)
        before = time.process_time()
        score, pixels = rival.judge(frame)
        spent += time.process_time() - before
        scores.append(score)
        maps.append(source_map(pixels, frame.prepared.window, *shape_px, outside=float(pixels.min())))
        foregrounds.append(foreground_of(frame.prepared, shape_px))
    truths, defects = [truth_of(item, shape_px) for item in items], np.array([item.defect for item in items])
    figures = _figures(np.array(scores), defects, calm, (maps, truths, foregrounds), seed)
    figures = msgspec.structs.replace(figures, fit_frames=len(split.fit), seconds=round(time.monotonic() - begin, 1))
    names = [item.name for item in items]
    return Trial(figures, FrameCurves.of(maps, truths, foregrounds), names, spent / len(items))


def _figures(
    scores: NDArray[np.float64], defects: NDArray[np.str_], calm: list[float],
    pictures: tuple[list[FloatArray], list[BoolArray], list[BoolArray]], seed: int,
) -> Figures:  # fmt: skip
    maps, truths, foregrounds = pictures
    good = defects == GOOD
    rate = choose_rate(len(calm), max(ALPHA, 1 / (len(calm) + 1)), parts=len(calm))
    limit = threshold(calm, rate, range(len(calm)))
    whole, inside = pixel_figures(maps, truths), pixel_figures(maps, truths, foregrounds)
    peaks = np.array([float(one.max()) for one in maps])
    shuffled = np.random.default_rng(seed).permutation(good)
    whole_score = auroc(scores[good], scores[~good])
    return Figures(
        i_auroc=auroc(peaks[good], peaks[~good]), i_auroc_fg=whole_score,
        p_auroc=whole.p_auroc, p_auroc_fg=inside.p_auroc, aupro30=whole.aupro30, aupro30_fg=inside.aupro30,
        aupro05=whole.aupro05, aupro05_fg=inside.aupro05, ap=average_precision(scores[good], scores[~good]),
        i_auroc_rgb=whole_score,  # it has one score
        detected_at_5=detection_rate(scores[good], scores[~good], 0.05),
        detection=Detection(rate.alpha, float((scores[good] > limit).mean()), float((scores[~good] > limit).mean())),
        shuffled=auroc(scores[shuffled], scores[~shuffled]),
        shuffled_se=auroc_standard_error(int(good.sum()), int((~good).sum())),
        per_defect={
            str(kind): DefectFigures(
                int((defects == kind).sum()), auroc(scores[good], scores[defects == kind]),
                float((scores[defects == kind] > limit).mean()),
            )
            for kind in sorted(set(defects.tolist()) - {GOOD})
        },
        fit_frames=0, held_out_frames=len(calm), good=int(good.sum()), defective=int((~good).sum()), refused=0,
        regions=whole.regions, regions_fg=inside.regions, seconds=0.0, scores=scores.tolist(),
    )  # fmt: skip


def _load(rival: str) -> Any:
    """A class, as ``module:Class`` next to this file or ``FILE.py:Class``."""
    where, _, name = rival.rpartition(":")
    if not where.endswith(".py"):
        return getattr(importlib.import_module(f"asperity.benchmarks.accuracy.{where}"), name)
    spec = importlib.util.spec_from_file_location("outside", where)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a drawing of the ablation, as hard-61, or a folder as evaluate takes it")
    parser.add_argument("rival", help="module:Class next to this file, or FILE.py:Class")
    parser.add_argument("--unit", choices=get_args(Unit))
    parser.add_argument("--geometry", choices=get_args(Removal), default="auto")
    given = parser.parse_args()
    source, title = Path(given.data), given.rival.rpartition(":")[2]
    if not source.is_dir():
        ablation.make_data(given.data)
        source = ablation.DATA / given.data
    out = ablation.result(source.name, title, "rivals")
    run, curves, frames, costs = Run(0, {}), {}, {}, {}
    for folder in products_of(source):
        product = folder.resolve().name
        options = msgspec.structs.replace(LITE, unit=given.unit, geometry=given.geometry)
        trial = judge_product(folder, _load(given.rival), 0, options)
        run.products[product] = figures = trial.figures
        curves[product], frames[product], costs[product] = trial.curves, trial.names, round(trial.processor_s, 3)
        print(source.name, product, f"{figures.i_auroc_fg:.4f} AUPRO {figures.aupro30_fg:.4f}", flush=True)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report = Report(
            method=title, profile="rivals", weights=[], machine=machine(), frames=frames, runs=[run],
            command=shlex.join(["python", "-m", "asperity.benchmarks.accuracy.rival", *sys.argv[1:]]),
            settings={"source": source.name, "processor_s_per_frame": costs, "peak_mb": round(peak_mb)},
            mean={figure: round(mean, 5) for figure, mean, _ in summary([run])},
        )  # fmt: skip
        write_result(out, ablation.kept(report))
        write_curves(ablation.curves_of(out), curves)
    print(msgspec.json.encode(report.settings).decode())


if __name__ == "__main__":
    main()
