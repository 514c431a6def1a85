"""Every set of modalities on frames measured once: rows of the ablation, and what choosing among the sets costs.

    python -m asperity.benchmarks.accuracy.modality_sets run hard-61 [--profile lite] [--random-weights]
    python -m asperity.benchmarks.accuracy.modality_sets table hard-61 other-71

``run`` writes the rows ``ablation run SET ROW --redrawn`` would (``frozen``: the profile's own modalities; the sets of
``PICTURED``; ``auto``), pixels of the part alone, and image AUROC of every other set to ``sets.json``. ``table``
compares ``auto`` with the best set by test frames, with sets that are the same for all products, and with chance.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from asperity.benchmarks.accuracy import ablation
from asperity.benchmarks.accuracy.ablation import Row, curves_of, options_of, result, row_of
from asperity.benchmarks.accuracy.evaluate import Report, profile_of, resumed, write_report
from asperity.benchmarks.accuracy.material import Material, load_material, products_of
from asperity.benchmarks.accuracy.methods import method
from asperity.benchmarks.accuracy.pooled import FrameCurves, read_curves, write_curves
from asperity.benchmarks.accuracy.trial import Judged, Measured, Settings, chosen_by, judge_by, measure_trial
from asperity.benchmarks.results_tools.reports import read_result, write_result
from asperity.calibration.networks.torch_networks import build
from asperity.calibration.options import AUTO, CalibrateOptions
from asperity.runtime.frame import ModalityName

PICTURED = ("rgb+points+geometry", "rgb+points+geometry+descriptor", "rgb+geometry+descriptor")
"""Rows with figures of pixels too."""
SEED = 0


def sets_of(available: Sequence[ModalityName]) -> Iterator[tuple[ModalityName, ...]]:
    """All with colour and a modality of shape."""
    shapes = [name for name in available if name != "rgb"]
    for count in range(1, len(shapes) + 1):
        for some in combinations(shapes, count):
            yield ("rgb", *some)


def run(name: str, profile: str, random_weights: bool) -> None:
    """All products of a drawing; finished ones are kept."""
    random = {"random_weights": True} if random_weights else {}
    options = options_of(name, Row("frozen", {"modalities": AUTO, **random}), profile, 1)
    chosen = profile_of(options)
    networks = build(chosen, seeded=random_weights)
    own = "random" if random_weights else "frozen"
    rows = {own: options_of(name, row_of(own), profile, 1)}
    rows |= {} if random_weights else {row: options_of(name, row_of(row), profile, 1) for row in (*PICTURED, *AUTO)}
    command = shlex.join(["python", "-m", "asperity.benchmarks.accuracy.modality_sets", *sys.argv[1:]])
    reports = {row: resumed(one, result(name, row, profile), command, networks) for row, one in rows.items()}
    table = result(name, "random-sets" if random_weights else "sets", profile)
    found: dict[str, Any] = read_result(table)["products"] if table.exists() else {}
    calibrate = CalibrateOptions(profile=profile, method="frozen", modalities=AUTO)
    for folder in products_of(options.source):
        product = folder.resolve().name
        if product in found:
            continue
        material = load_material(folder, chosen, networks, calibrate, options.cache, lambda *_: None)
        measured = measure_trial(
            material, method("frozen"), None, chosen, SEED, Settings(pixels=False), lambda *_: None
        )  # fmt: skip
        picked = chosen_by(measured)
        for row, one in rows.items():
            names = picked if (row,) == AUTO else profile_of(one).modalities
            judged = judge_by(names, measured, Settings(whole=False))
            _keep(reports[row], result(name, row, profile), material, judged)
            print(f"{name} {product} {row}: {judged.figures.i_auroc_fg:.4f}", flush=True)
        found[product] = _every(measured, picked)
        write_result(table, {"command": command, "products": found})


def _keep(report: Report, path: Path, material: Material, judged: Judged) -> None:
    report.frames[material.name] = list(material.test.names)
    report.runs[0].products[material.name] = judged.figures
    write_report(report, path)
    write_result(path, ablation.kept(report))
    curves = read_curves(curves_of(path))
    curves[material.name] = FrameCurves.of(judged.maps, list(material.test.truth), list(material.test.foreground))
    write_curves(curves_of(path), curves)


def _every(measured: Measured, picked: tuple[ModalityName, ...]) -> dict[str, Any]:
    """Image AUROC of every set on test frames, and which one pseudo-defects choose."""
    tested = {
        "+".join(names): judge_by(names, measured, Settings(pixels=False)).figures
        for names in sets_of(tuple(measured.banks))
    }
    shown = ("i_auroc_fg", "detected_at_5", "held_out_auroc")
    figures = {what: {names: round(getattr(one, what), 4) for names, one in tested.items()} for what in shown}
    rejected = {names: round(one.detection.observed, 4) for names, one in tested.items()}
    return {"chosen": "+".join(picked), **figures, "good_rejected": rejected}


def table(names: Sequence[str], profile: str) -> str:
    """Markdown: how far behind the best set by test frames each way to choose lies."""
    found = {
        (name, product): one
        for name in names
        for product, one in read_result(result(name, "sets", profile))["products"].items()
    }
    every = sorted({one for product in found.values() for one in product["i_auroc_fg"]})
    fixed = [one for one in every if all(one in product["i_auroc_fg"] for product in found.values())]
    lines = ["| way to choose | " + " | ".join(f"{product} ({name})" for name, product in found) + " | mean | worst |"]
    lines.append("|" + "---|" * (len(found) + 3))

    def line(title: str, values: Sequence[float]) -> None:
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {title} | {cells} | {np.mean(values):.4f} | {np.max(values):.3f} |")

    best: list[float] = [max(one["i_auroc_fg"].values()) for one in found.values()]
    regret = [
        {kind: top - value for kind, value in one["i_auroc_fg"].items()}
        for top, one in zip(best, found.values(), strict=True)
    ]
    line("best by test frames: AUROC", best)
    line("`auto`: behind", [r[one["chosen"]] for r, one in zip(regret, found.values(), strict=True)])
    line("by chance (mean of all sets)", [float(np.mean(list(r.values()))) for r in regret])
    for kind in sorted(fixed, key=lambda kind: kind.count("+")):
        line(kind, [r[kind] for r in regret])
    chosen = " | ".join(one["chosen"] for one in found.values())
    best_sets = " | ".join(max(one["i_auroc_fg"], key=one["i_auroc_fg"].__getitem__) for one in found.values())
    return "\n".join([*lines, f"| chosen by `auto` | {chosen} | | |", f"| best by test frames | {best_sets} | | |"])


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("drawing", nargs="+", help="of the ablation, as hard-61")
    parser.add_argument("--profile", default="lite")
    parser.add_argument("--random-weights", action="store_true", help="run: the control")
    given = parser.parse_args()
    if given.action == "table":
        print(table(given.drawing, given.profile))
        return
    for name in given.drawing:
        ablation.make_data(name)
        run(name, given.profile, given.random_weights)


if __name__ == "__main__":
    main()
