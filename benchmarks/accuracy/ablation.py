"""The ablation table: every row of the method against frozen features, on written-out sets of the virtual camera.

    python -m asperity.benchmarks.accuracy.ablation data SET             # render the sets into build/ablation
    python -m asperity.benchmarks.accuracy.ablation run SET [ROW...]     # evaluate; resumes where it stopped
    python -m asperity.benchmarks.accuracy.ablation table SET            # markdown, as in docs/accuracy.md

Each row is what ``asperity evaluate`` does with the same options; three seeds set the split and everything random in
the adaptation. Per product: 100 normal frames, 216 good and 216 defective test frames, 36 of each surface defect.
Severities of the harder sets were chosen on frozen features and frames of PILOT_SEED, so that image AUROC lies between
.75 and .92; nothing of a method was ever chosen on a test frame.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.accuracy.compare import cell, difference, read_report
from asperity.benchmarks.accuracy.evaluate import EvaluateOptions, Report, evaluate
from asperity.benchmarks.accuracy.trial import Figures
from asperity.benchmarks.results_tools.reports import write_result
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.cameras.virtual.dataset import Counts, write_dataset
from asperity.runtime.errors import UsageError

PILOT_SEED = 60
SEED = 61
SEEDS = 3
DIGITS = 6
DEFECTS = ("bump", "dent", "scratch", "hole", "stain", "combined")
COUNTS = Counts(train=100, validation=0, test=36, test_good=216)
DATA = Path(__file__).resolve().parents[2] / "build" / "ablation"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "accuracy"


SETS: dict[str, dict[str, float]] = {
    "plain": {"bracket": 1.0, "nameplate": 1.0, "roll": 1.0},
    "hard": {"bracket": 0.2, "nameplate": 0.25, "roll": 0.9},
}
"""Set -> product -> strength of its defects, as a multiple of the usual."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    against: str = "frozen"
    """The row that this row's difference is measured against."""


def _few(shots: int, batch: int, epochs: int) -> dict[str, Row]:
    """Adaptation with as many steps as from all frames, and queues that so few frames can fill."""
    overrides = {"batch": batch, "epochs": epochs, "queue_rows": 1024}
    base = f"frozen-{shots}"
    return {
        base: Row("frozen", {"shots": shots, "pixels": False}, base),
        f"lsfa-{shots}": Row("lsfa", {"shots": shots, "pixels": False, "overrides": overrides}, base),
    }


ROWS: dict[str, Row] = {
    "frozen": Row("frozen"),
    "ifc": Row("ifc"),
    "clc": Row("clc"),
    "lsfa": Row("lsfa"),
    "lsfa-default-start": Row("lsfa-default-start"),
    "lsfa-standardised": Row("lsfa-standardised"),
    "ifc-standardised": Row("ifc-standardised"),
    "lsfa-standardised-long": Row("lsfa-standardised", {"overrides": {"epochs": 16}}),
    "frozen-bank-1": Row("frozen-bank-1"),
    "frozen-bank-10": Row("frozen-bank-10"),
    "lsfa-bank-1": Row("lsfa-bank-1", against="frozen-bank-1"),
    "lsfa-bank-10": Row("lsfa-bank-10", against="frozen-bank-10"),
    "frozen-ocsvm": Row("frozen-ocsvm"),
    "lsfa-ocsvm": Row("lsfa-ocsvm", against="frozen-ocsvm"),
    "frozen-published": Row("frozen-published"),
    "ifc-published": Row("ifc-published", against="frozen-published"),
    "clc-published": Row("clc-published", against="frozen-published"),
    "lsfa-published": Row("lsfa-published", against="frozen-published"),
    "lsfa-standardised-published": Row("lsfa-standardised-published", against="frozen-published"),
    "lsfa-standardised-long-published": Row(
        "lsfa-standardised-published", {"overrides": {"epochs": 16}}, "frozen-published"
    ),
    "random": Row("frozen", {"random_weights": True}),
    "random-lsfa": Row("lsfa", {"random_weights": True}, "random"),
    **_few(5, 4, 32), **_few(10, 8, 32), **_few(50, 8, 6),
}  # fmt: skip


def make_data(name: str) -> None:
    """Render the missing frames of a set."""
    for product, severity in SETS[name].items():
        folder = DATA / name / product
        if folder.exists():
            continue
        camera = VirtualCamera(product, SEED, severity=severity)
        write_dataset(camera, folder, COUNTS, DEFECTS)
        print(f"{name}: {product} rendered", flush=True)


def run(name: str, rows: Sequence[str], profile: str) -> None:
    """Evaluate the rows one after the other."""
    for row in rows:
        options = EvaluateOptions(
            DATA / name, profile, ROWS[row].method, SEEDS, control=False, cache=DATA / "cache", **ROWS[row].options
        )
        command = shlex.join(["python", "-m", "asperity.benchmarks.accuracy.ablation", *sys.argv[1:]])
        report = evaluate(options, result(name, row, profile), command, lambda what, done, total: None)
        write_result(result(name, row, profile), kept(report))
        print(f"{name} {row}: {report.mean['i_auroc_fg']:.4f} ± {report.spread['i_auroc_fg']:.4f}", flush=True)


def kept(report: Report) -> dict[str, Any]:
    """A row as this repository keeps it: six digits, and ranks in place of scores, all that paired intervals need."""
    found: dict[str, Any] = _rounded(msgspec.to_builtins(report))
    for run in found["runs"]:
        for figures in run["products"].values():
            figures["scores"] = np.unique(figures["scores"], return_inverse=True)[1].tolist()
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def result(name: str, row: str, profile: str) -> Path:
    """Path of a row's result."""
    return RESULTS / f"{name}-{profile}" / f"{row}.json"


def table(name: str, profile: str) -> str:
    """Markdown of the finished rows."""
    there = {row: read_report(path) for row in ROWS if (path := result(name, row, profile)).exists()}
    whole = set(SETS[name])
    found = {row: report for row, report in there.items() if all(set(run.products) == whole for run in report.runs)}
    if not found:
        raise UsageError(f"no results of {name}, {profile}; run the ablation first")
    products = sorted({product for report in found.values() for run in report.runs for product in run.products})
    head = ["row", "I-AUROC fg", "against", "difference [95 %]", *products, "AUPRO 30 fg", "AUPRO 5 fg", "AP",
            "found at 5 %", "rgb alone", "points alone"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, report in found.items():
        against = ROWS[row].against
        gap = ""
        if against != row and against in found:
            told = difference(found[against], report)
            gap = f"{told.mean:+.4f} [{told.low:+.4f}, {told.high:+.4f}]"
        by_product = [f"{np.mean([one.products[p].i_auroc_fg for one in report.runs]):.4f}" for p in products]
        others = [cell(report, figure) for figure in ("aupro30_fg", "aupro05_fg", "ap", "detected_at_5",
                                                       "i_auroc_rgb", "i_auroc_points")]  # fmt: skip
        cells = [row, cell(report, "i_auroc_fg"), against if against != row else "", gap, *by_product, *others]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _defects(found), "", _shuffled(found)])


def _defects(found: Mapping[str, Report]) -> str:
    """Image AUROC of each defect, mean of products and seeds; rows of the table that differ in features."""
    kinds = sorted({kind for one in _all(found) for kind in one.per_defect})
    lines = ["| row | " + " | ".join(kinds) + " |", "|" + "---|" * (1 + len(kinds))]
    for row, report in found.items():
        means = [np.mean([one.per_defect[kind].i_auroc_fg for one in _all({row: report})]) for kind in kinds]
        lines.append(f"| {row} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")
    return "\n".join(lines)


def _shuffled(found: Mapping[str, Report]) -> str:
    """The control that must fail: shuffled labels."""
    off = np.array([(one.shuffled - 0.5) / one.shuffled_se for one in _all(found)])
    return (
        f"Shuffled labels: {np.mean(np.abs(off) <= 2):.0%} of {len(off)} trials within two standard errors of .5, mean "
        f"{np.mean([one.shuffled for one in _all(found)]):.4f}, farthest {np.abs(off).max():.1f} standard errors."
    )


def _all(found: Mapping[str, Report]) -> list[Figures]:
    return [one for report in found.values() for run in report.runs for one in run.products.values()]


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("data", "run", "table"))
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument("row", nargs="*", help=f"of {', '.join(ROWS)}; default all")
    parser.add_argument("--profile", default="lite")
    given = parser.parse_args()
    unknown = set(given.row) - set(ROWS)
    if unknown:
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such row; choose from {', '.join(ROWS)}")
    if given.action == "data":
        make_data(given.set)
    elif given.action == "run":
        make_data(given.set)
        run(given.set, given.row or tuple(ROWS), given.profile)
    else:
        print(table(given.set, given.profile))


if __name__ == "__main__":
    main()
