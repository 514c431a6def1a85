"""Two evaluations of the same frames: the difference of their image AUROC, with an interval.

    python -m asperity.benchmarks.accuracy.compare BASE.json OTHER.json...     # a table, differences against BASE

The interval is a paired bootstrap over seeds and, within each product, over good and defective test frames: the same
draw for both methods, so that what both find easy or hard cancels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.benchmarks.accuracy.evaluate import Report
from asperity.benchmarks.accuracy.metrics import auroc
from asperity.benchmarks.results_tools.reports import read_result
from asperity.runtime.cameras.mvtec_files import GOOD
from asperity.runtime.errors import DataError, UsageError

REPLICATES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """Other minus base, mean over seeds and products."""

    mean: float
    low: float
    high: float
    """95 % interval."""
    products: dict[str, float]


def read_report(path: Path) -> Report:
    """An evaluation. Raises DataError."""
    try:
        return msgspec.convert(read_result(path), Report)
    except (DataError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is not an evaluation ({error}); make one with `asperity evaluate`") from error


def difference(base: Report, other: Report, replicates: int = REPLICATES, seed: int = 0) -> Difference:
    """Of ``i_auroc_fg``. Raises UsageError where the two do not share seeds, products and test frames."""
    pairs = _pairs(base, other)
    names = sorted({name for _, name in pairs})
    seeds = sorted({run for run, _ in pairs})
    point = {name: float(np.mean([_gain(*pairs[run, name]) for run in seeds])) for name in names}
    rng = np.random.default_rng(seed)
    drawn = np.empty(replicates)
    for replicate in range(replicates):
        chosen = rng.integers(len(seeds), size=len(seeds))
        gains = []
        for name in names:
            good, _, bad, _ = pairs[seeds[0], name]
            picks = rng.integers(len(good), size=len(good)), rng.integers(len(bad), size=len(bad))
            for index in chosen:
                a, b, c, d = pairs[seeds[int(index)], name]
                gains.append(_gain(a[picks[0]], b[picks[0]], c[picks[1]], d[picks[1]]))
        drawn[replicate] = np.mean(gains)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(np.mean(list(point.values()))), float(low), float(high), point)


Pair = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Scores of good frames by base and other, of defective ones by base and other."""


def _pairs(base: Report, other: Report) -> dict[tuple[int, str], Pair]:
    runs = {run.seed: run for run in other.runs}
    found: dict[tuple[int, str], Pair] = {}
    for run in base.runs:
        for name, figures in run.products.items():
            match = runs[run.seed].products.get(name) if run.seed in runs else None
            frames = base.frames.get(name, [])
            if match is None or frames != other.frames.get(name, []) or len(frames) != len(figures.scores):
                raise UsageError(
                    f"seed {run.seed}, product {name}: the two evaluations do not hold the same test frames; run both "
                    "on the same data with the same seeds"
                )
            good = np.array([f"/{GOOD}/" in f"/{frame}" for frame in frames])
            a, b = np.array(figures.scores), np.array(match.scores)
            found[run.seed, name] = a[good], b[good], a[~good], b[~good]
    if not found:
        raise UsageError("the evaluations hold no finished product")
    return found


def _gain(good_a: NDArray[np.float64], good_b: NDArray[np.float64], bad_a: NDArray[np.float64],
          bad_b: NDArray[np.float64]) -> float:  # fmt: skip
    return auroc(good_b, bad_b) - auroc(good_a, bad_a)


def table(reports: Sequence[tuple[str, Report]]) -> str:
    """Markdown: a row a report, differences against the first."""
    base = reports[0][1]
    lines = [
        "| method | I-AUROC fg | - first [95 %] | AUPRO 30 fg | AUPRO 5 fg | P-AUROC fg | AP | found at 5 % "
        "| rgb alone | points alone |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for index, (name, report) in enumerate(reports):
        against = ""
        if index:
            gap = difference(base, report)
            against = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"

        def cell(figure: str, report: Report = report) -> str:
            if figure not in report.mean:
                return "-"
            return f"{report.mean[figure]:.4f} ± {report.spread[figure]:.4f}"

        figures = ("aupro30_fg", "aupro05_fg", "p_auroc_fg", "ap", "detected_at_5", "i_auroc_rgb", "i_auroc_points")
        lines.append(f"| {name} | {cell('i_auroc_fg')} | {against} | " + " | ".join(map(cell, figures)) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """The table on stdout."""
    paths = [Path(argument) for argument in arguments]
    if not paths:
        raise SystemExit(__doc__)
    print(table([(path.stem, read_report(path)) for path in paths]))


if __name__ == "__main__":
    main(sys.argv[1:])
