"""The ablation table: every row of the method against frozen features, on written-out sets of the virtual camera.

    python -m asperity.benchmarks.accuracy.ablation data SET             # render the sets into build/ablation
    python -m asperity.benchmarks.accuracy.ablation run SET [ROW...]     # evaluate; resumes where it stopped
    python -m asperity.benchmarks.accuracy.ablation table SET            # markdown, as in docs/accuracy.md
    python -m asperity.benchmarks.accuracy.ablation run SET ROW --redrawn            # other frames for each of 3 seeds
    python -m asperity.benchmarks.accuracy.ablation gains SET lite/before lite/ROW   # pooled over them
    ... --seed-of COMMIT                # in place of --redrawn: seeds out of a commit's hash, for a confirmation

Each row is what ``asperity evaluate`` does with the same options; three seeds set the split and everything random in
the adaptation. Per product: 100 normal frames, 216 good and 216 defective test frames, 36 of each surface defect.
Severities of the harder sets were chosen on frozen features and frames of PILOT_SEED, so that image AUROC lies between
.75 and .92; nothing of a method was ever chosen on a test frame.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.accuracy.compare import cell, difference, read_report
from asperity.benchmarks.accuracy.evaluate import EvaluateOptions, Report, evaluate
from asperity.benchmarks.accuracy.material import Material
from asperity.benchmarks.accuracy.pooled import (
    FIGURES,
    FrameCurves,
    Judgement,
    gains,
    read_curves,
    write_curves,
)
from asperity.benchmarks.accuracy.trial import Figures, Judged
from asperity.benchmarks.results_tools.reports import write_result
from asperity.calibration.options import AUTO
from asperity.runtime.cameras.files.folders import GOOD
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
    "other": {"wheel": 0.7, "cap": 0.35, "gasket": 0.3},
}
"""Set -> product -> strength of its defects, as a multiple of the usual."""
FIRST_SEED = {"other": 71}
"""The camera's seed of a set's first drawing, where it is not ``SEED``."""


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


def row_of(name: str) -> Row:
    """A row by its name; one with a plus is frozen features by these modalities (``rgb+points+geometry``), ``auto`` by
    those that pseudo-defects choose. Raises UsageError."""
    if name in ROWS:
        return ROWS[name]
    if "+" in name or (name,) == AUTO:
        return Row("frozen", {"modalities": tuple(name.split("+"))})
    raise UsageError(f"{name}: no such row; choose from {', '.join(ROWS)}, auto, or join modalities by a plus")


def drawings(name: str, seed_of: str | None = None) -> list[str]:
    """Names of a set's drawings, ``SET-SEED``; with ``seed_of`` their seeds are parts of that commit's hash, so nobody
    can have looked at their frames before it. Raises UsageError for an unknown commit."""
    if seed_of is None:
        return [f"{name}-{FIRST_SEED.get(name, SEED) + index}" for index in range(SEEDS)]
    asked = ["git", "rev-parse", "--verify", "--end-of-options", f"{seed_of}^{{commit}}"]
    found = subprocess.run(asked, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    if found.returncode:
        raise UsageError(f"--seed-of {seed_of}: no such commit; commit first")
    return [f"{name}-{int(found.stdout[7 * index : 7 * index + 7], 16)}" for index in range(SEEDS)]


def make_data(name: str) -> None:
    """Render the missing frames of a set, or of one drawing of it."""
    whole, _, seed = (name, "", "") if name in SETS else name.rpartition("-")
    for product, severity in SETS[whole].items():
        folder = DATA / name / product
        if folder.exists():
            continue
        camera = VirtualCamera(product, int(seed or FIRST_SEED.get(whole, SEED)), severity=severity)
        write_dataset(camera, folder, COUNTS, DEFECTS)
        print(f"{name}: {product} rendered", flush=True)


def run(name: str, rows: Sequence[str], profile: str, seeds: int, said_as: str | None = None) -> None:
    """Evaluate the rows one after the other. Of a drawing the frames' shares of the curves are kept too."""
    for row in rows:
        options = options_of(name, row_of(row), profile, seeds)
        path = result(name, said_as or row, profile)
        command = shlex.join(["python", "-m", "asperity.benchmarks.accuracy.ablation", *sys.argv[1:]])
        curves = read_curves(curves_of(path))

        def show(material: Material, seed: int, judged: Judged, path: Path = path, curves: Any = curves) -> None:
            if name not in SETS and judged.maps:
                test = material.test
                curves[material.name] = FrameCurves.of(judged.maps, list(test.truth), list(test.foreground))
                write_curves(curves_of(path), curves)

        report = evaluate(options, path, command, lambda what, done, total: None, show)
        write_result(path, kept(report))
        print(f"{name} {row}: {report.mean['i_auroc_fg']:.4f} ± {report.spread['i_auroc_fg']:.4f}", flush=True)


def options_of(name: str, row: Row, profile: str, seeds: int) -> EvaluateOptions:
    """What ``asperity evaluate`` would be asked."""
    return EvaluateOptions(
        DATA / name, profile, row.method, seeds, control=False, cache=DATA / "cache", **row.options
    )  # fmt: skip


def curves_of(path: Path) -> Path:
    """Where the curves of a result are."""
    return path.with_name(path.stem + ".curves.npz")


def judgements(names: Sequence[str], row: str) -> dict[tuple[int, str], Judgement]:
    """A row, as PROFILE/ROW, of every drawing. Raises DataError, UsageError."""
    profile, _, one = row.partition("/")
    found = {}
    for name in names:
        report, curves = read_report(path := result(name, one, profile)), read_curves(curves_of(path))
        for product, figures in report.runs[0].products.items():
            good = np.array([f"/{GOOD}/" in f"/{frame}" for frame in report.frames[product]])
            found[int(name.rpartition("-")[2]), product] = Judgement(figures, good, curves.get(product))
    return found


def gains_table(names: Sequence[str], rows: Sequence[str], command: str, out: Path) -> str:
    """Markdown and ``out``: every row against the first, pooled over the drawings."""
    base, written = judgements(names, rows[0]), {}
    lines = ["| against " + rows[0] + " | " + " | ".join(FIGURES) + " | product with the lowest bound of i_auroc_fg |"]
    lines.append("|" + "---|" * (len(FIGURES) + 2))
    for row in rows[1:]:
        found = gains(base, judgements(names, row))
        written[row] = _rounded({figure: asdict(gain) for figure, gain in found.items()})
        cells = [f"{g.mean:+.4f} [{g.low:+.4f}, {g.high:+.4f}]" if (g := found.get(f)) else "-" for f in FIGURES]
        worst, (mean, low, high) = min(found["i_auroc_fg"].products.items(), key=lambda entry: entry[1][1])
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {worst} {mean:+.4f} [{low:+.4f}, {high:+.4f}] |")
    write_result(out, {"command": command, "drawings": list(names), "against": rows[0], "gains": written})
    return "\n".join(lines)


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
    parser.add_argument("action", choices=("data", "run", "table", "gains"))
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument(
        "row", nargs="*", help=f"of {', '.join(ROWS)}; default all. For gains: PROFILE/ROW, two or more"
    )
    parser.add_argument("--profile", default="lite")
    parser.add_argument("--redrawn", action="store_true", help="other frames for each seed")
    parser.add_argument("--seed-of", metavar="COMMIT", help="redrawn, with seeds out of this commit's hash")
    parser.add_argument("--only", type=int, choices=range(SEEDS), help="this one of the drawings")
    parser.add_argument("--as", dest="said_as", metavar="NAME", help="run: name of the row's file")
    given = parser.parse_args()
    for row in given.row if given.action == "run" else ():
        row_of(row)
    redrawn = given.redrawn or given.seed_of is not None or given.action == "gains"
    names = drawings(given.set, given.seed_of) if redrawn else [given.set]
    names = names if given.only is None else [names[given.only]]
    if given.action == "table":
        print(table(given.set, given.profile))
    elif given.action == "gains":
        if len(given.row) < 2:
            raise SystemExit("gains: give the row to measure against and at least one other, as PROFILE/ROW")
        command = shlex.join(["python", "-m", "asperity.benchmarks.accuracy.ablation", *sys.argv[1:]])
        kind = f"-{given.seed_of[:7]}" if given.seed_of else "" if given.only is None else f"-{names[0]}"
        print(gains_table(names, given.row, command, RESULTS / f"gains-{given.set}{kind}.json"))
    for name in names if given.action in ("data", "run") else ():
        make_data(name)
        if given.action == "run":
            run(name, given.row or tuple(ROWS), given.profile, 1 if redrawn else SEEDS, given.said_as)


if __name__ == "__main__":
    main()
