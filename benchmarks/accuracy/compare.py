"""Two evaluations of the same frames: the difference of their image AUROC, with an interval.

    python -m asperity.benchmarks.accuracy.compare BASE.json OTHER.json...     # a table, differences against BASE

The interval is a paired bootstrap over seeds and, within each product, over good and defective test frames: the same
draw for both methods, so that frames that are easy or hard for both cancel out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from asperity.benchmarks.accuracy.evaluate import Report
from asperity.benchmarks.results_tools.reports import read_result
from asperity.benchmarks.results_tools.statistics import bootstrap, interval, times_drawn
from asperity.calibration.auroc import Array, weighted_auroc, wins
from asperity.runtime.cameras.files.folders import GOOD
from asperity.runtime.errors import DataError, UsageError

REPLICATES = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """Other minus base, mean over seeds and products."""

    mean: float
    low: float
    high: float
    """95 % interval."""
    products: dict[str, float]


def read_report(path: Path) -> Report:
    """Read an evaluation. Raises DataError."""
    try:
        return msgspec.convert(read_result(path), Report)
    except (DataError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is not an evaluation ({error}); make one with `asperity evaluate`") from error


def difference(base: Report, other: Report, replicates: int = REPLICATES, seed: int = 0) -> Difference:
    """Of ``i_auroc_fg``. Raises UsageError where the two do not share seeds, products and test frames."""
    pairs = _pairs(base, other)
    names = sorted({name for _, name in pairs})
    seeds = sorted({run for run, _ in pairs})

    def gain(run: int, name: str, good: Array, bad: Array) -> float:
        by_base, by_other = pairs[run, name]
        return weighted_auroc(by_other, good, bad) - weighted_auroc(by_base, good, bad)

    def of_all_frames(run: int, name: str) -> float:
        good, bad = pairs[run, name][0].shape
        return gain(run, name, np.ones(good), np.ones(bad))

    def drawn(rng: np.random.Generator) -> float:
        chosen = rng.integers(len(seeds), size=len(seeds))
        gains = []
        for name in names:
            good, bad = (times_drawn(rng, size) for size in pairs[seeds[0], name][0].shape)
            gains += [gain(seeds[int(index)], name, good, bad) for index in chosen]
        return float(np.mean(gains))

    point = {name: float(np.mean([of_all_frames(run, name) for run in seeds])) for name in names}
    low, high = interval(bootstrap(drawn, replicates, seed))
    return Difference(float(np.mean(list(point.values()))), float(low), float(high), point)


Pair = tuple[Array, Array]
"""By base and by other: in which pairs of a good and a defective frame the defective one scores higher."""


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
            found[run.seed, name] = wins(a[good], a[~good]), wins(b[good], b[~good])
    if not found:
        raise UsageError("the evaluations hold no finished product")
    return found


def table(reports: Sequence[tuple[str, Report]]) -> str:
    """Markdown: one row per report, differences against the first; ``found``: at the calibrated threshold, which
    rejects so many good test frames."""
    base = reports[0][1]
    products = sorted({product for run in base.runs for product in run.products})
    head = ["method", "I-AUROC fg", "- first [95 %]", *products, "AUPRO 30 fg", "AUPRO 5 fg", "AP", "found at 5 %",
            "found", "good rejected", "shuffled"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for index, (name, report) in enumerate(reports):
        against = ""
        if index:
            gap = difference(base, report)
            against = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        every = [figures for run in report.runs for figures in run.products.values()]
        each = [np.mean([run.products[product].i_auroc_fg for run in report.runs]) for product in products]
        means = [np.mean([getattr(one.detection, what) for one in every]) for what in ("detected", "observed")]
        means.append(np.mean([one.shuffled for one in every]))
        shown = [cell(report, figure) for figure in ("aupro30_fg", "aupro05_fg", "ap", "detected_at_5")]
        cells = [name, cell(report, "i_auroc_fg"), against, *(f"{mean:.3f}" for mean in each), *shown]
        lines.append("| " + " | ".join([*cells, *(f"{mean:.3f}" for mean in means)]) + " |")
    return "\n".join(lines)


def cell(report: Report, figure: str) -> str:
    """Mean and spread over the seeds, where there are several."""
    if figure not in report.mean:
        return "-"
    spread = f" ± {report.spread[figure]:.4f}" if len(report.runs) > 1 else ""
    return f"{report.mean[figure]:.4f}{spread}"


def main(arguments: Sequence[str]) -> None:
    """The table on stdout."""
    paths = [Path(argument) for argument in arguments]
    if not paths:
        raise SystemExit(__doc__)
    print(table([(path.stem, read_report(path)) for path in paths]))


if __name__ == "__main__":
    main(sys.argv[1:])
