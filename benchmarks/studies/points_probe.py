"""The point encoder against what needs no training: one table, same frames, same banks, same scoring.

    python -m asperity.benchmarks.studies.points_probe    # writes results/points_probe/lite.json, prints the tables

Two kinds of parts: the held-out procedural ones of ``pretraining.probe`` and the three products of the virtual
camera, whose shapes, defects and sensor no training saw. The seed of the virtual frames is not that of ``first_look``,
so choices made here leave its test frames untouched. Points alone; patches under the rule of filled patches.

Intervals are of a bootstrap over frames and, where there are several, products: what other frames of such parts with
the same banks would give. All features see the same draws, so their differences have intervals of their own. Parts that
the file holds already for these weights are kept.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from asperity.benchmarks.results_tools.statistics import bootstrap, interval
from asperity.benchmarks.studies.first_look import truth_patches
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.networks.weights import POINTS_LITE, sha256_of
from asperity.calibration.pretraining.defects import KINDS
from asperity.calibration.pretraining.descriptors import fpfh_features, height_features
from asperity.calibration.pretraining.probe import (
    NORMAL,
    SCORINGS,
    Comparison,
    Features,
    ProbeConfig,
    ProbeFrame,
    ProbeProduct,
    compare,
    encoder_features,
    make_probe,
)
from asperity.calibration.pretraining.run import load_encoder, untrained
from asperity.calibration.profiles import network_for, profile
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.frame import Frame
from asperity.runtime.vision.points import group
from asperity.runtime.vision.preprocess import prepare

SEED = 77
PROCEDURAL = "procedural"
PARTS = (PROCEDURAL, "bracket", "nameplate", "roll")
BANK, GOOD, SPOILED = 40, 30, 48
"""Frames of each virtual product; the spoiled ones take the kinds in turn."""
RESULTS = Path(__file__).resolve().parents[1] / "results" / "points_probe"

DRAWS = 1000
"""Of the bootstrap."""
LEVELS = ("patch", "image")

Figure = list[float]
"""Value, 2.5 % and 97.5 % of the draws."""
Row = dict[str, dict[str, dict[str, Figure]]]
"""Scoring -> patch or image -> kind of defect -> figure."""
Table = dict[str, dict[str, dict[str, Row]]]
"""Parts -> ``auroc`` or ``trained_less`` -> features -> row; the second is the trained encoder's lead over them."""


def virtual_product(name: str, seed: int = SEED, counts: tuple[int, int, int] = (BANK, GOOD, SPOILED)) -> ProbeProduct:
    """Frames of the virtual camera in the probe's form; ``counts`` of bank, good and spoiled frames."""
    bank, good, spoiled = counts
    camera = VirtualCamera(name, seed)
    fit = [camera.frame(index).frame for index in range(bank)]
    geometry = fit_geometry(fit)
    network = network_for(profile("lite"), geometry, "none")

    def ready(frame: Frame, kind: str, mask: Any = None) -> ProbeFrame:
        prepared = prepare(frame, geometry, network)
        label = np.zeros((network.grid, network.grid), dtype=np.int8)
        if mask is not None:
            label = np.where(truth_patches(mask, prepared, network.grid), 1, -1).astype(np.int8)
        # A quarter of a group's unit is a cell (``network_for``).
        cells = (prepared.cloud / (network.group_scale_mm / 4.0)).astype(np.float32)
        return ProbeFrame(cells, group(prepared.cloud, network), label, kind)

    tests = [ready(camera.frame(bank + index).frame, NORMAL) for index in range(good)]
    for index in range(spoiled):
        shot = camera.frame(bank + good + index, KINDS[index % len(KINDS)])
        tests.append(ready(shot.frame, shot.kind, shot.mask))
    return [ready(frame, NORMAL) for frame in fit], tests


def contestants() -> dict[str, Callable[[], Features]]:
    """Features by name."""
    return {
        "trained": lambda: encoder_features(load_encoder(POINTS_LITE)),
        "untrained": lambda: encoder_features(untrained(0)),
        "fpfh": lambda: fpfh_features,
        "heights": lambda: height_features,
    }


def measure(table: Table, parts: tuple[str, ...], keep: Callable[[Table], None]) -> None:
    """Add the parts that ``table`` lacks; ``keep`` is called after each."""
    for name in parts:
        if name in table:
            continue
        probe = make_probe(ProbeConfig()) if name == PROCEDURAL else [virtual_product(name)]
        made = {who: make() for who, make in contestants().items()}
        found = {who: [compare(features, *product) for product in probe] for who, features in made.items()}
        table[name] = figures(found)
        keep(table)


def figures(found: dict[str, list[dict[str, Comparison]]], draws: int = DRAWS) -> dict[str, dict[str, Row]]:
    """Features -> products -> scoring -> comparison, into the figures of one kind of parts."""
    first = next(iter(found.values()))
    kinds = (*dict.fromkeys(str(kind) for product in first for kind in product[SCORINGS[0]].kinds), "all")
    cells = [(scoring, level, kind) for scoring in SCORINGS for level in LEVELS for kind in kinds]
    whole = {who: _means(products, cells) for who, products in found.items()}

    def of_a_sample(rng: np.random.Generator) -> list[Any]:
        sample = _draw([product[SCORINGS[0]] for product in first], rng)
        return [_means(products, cells, sample) for products in found.values()]

    drawn = np.array(bootstrap(of_a_sample, draws))
    every = {who: drawn[:, index] for index, who in enumerate(found)}

    def row(values: Any, samples: Any) -> Row:
        low, high = interval(samples, skip_nan=True)
        made: Row = {scoring: {level: {} for level in LEVELS} for scoring in SCORINGS}
        for cell, *figure in zip(cells, values, low, high, strict=True):
            scoring, level, kind = cell
            made[scoring][level][kind] = [round(float(value), 4) for value in figure]
        return made

    others = [who for who in found if who != "trained"] if "trained" in found else []
    return {
        "auroc": {who: row(whole[who], every[who]) for who in found},
        "trained_less": {
            who: row(whole["trained"] - whole[who], every["trained"] - every[who]) for who in others
        },
    }  # fmt: skip


Sample = list[tuple[int, Any, Any]]
"""Products drawn, each with how often its spoiled and its normal frames were."""


def _draw(products: list[Comparison], rng: np.random.Generator) -> Sample:
    """Products with replacement, if there are several; frames of each, kinds apart."""
    count = len(products)
    chosen = rng.integers(count, size=count) if count > 1 else [0]
    sample = []
    for index in chosen:
        kinds, normal = products[index].kinds, products[index].wins.shape[1]
        spoiled = np.zeros(len(kinds))
        for kind in np.unique(kinds):
            own = np.flatnonzero(kinds == kind)
            spoiled[own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)))
        sample.append((int(index), spoiled, rng.multinomial(normal, np.full(normal, 1 / normal)).astype(float)))
    return sample


def _means(
    products: list[dict[str, Comparison]], cells: list[tuple[str, str, str]], sample: Sample | None = None
) -> Any:
    """Mean over the products that have it of each cell's AUROC."""
    drawn = [(index, None, None) for index in range(len(products))] if sample is None else sample
    values = [
        [products[index][scoring].auroc(level, kind, spoiled, normal) for scoring, level, kind in cells]
        for index, spoiled, normal in drawn
    ]
    return np.nanmean(values, axis=0)


def known(path: Path) -> Table:
    """The parts that the file at ``path`` holds, if it is of these weights and this probe."""
    if not path.exists():
        return {}
    stored = msgspec.json.decode(path.read_bytes())
    own = msgspec.json.decode(msgspec.json.encode(ProbeConfig()))
    same = stored.get("weights_sha256") == sha256_of(POINTS_LITE) and stored.get("probe") == own
    return stored["parts"] if same else {}


def markdown(table: Table, scoring: str) -> str:
    """The tables of docs/point-encoder.md: AUROCs, and the trained encoder's lead with its interval."""
    kinds = (*KINDS, "all")
    lines = ["| parts | features | " + " | ".join(f"{kind} patch / image" for kind in kinds) + " |"]
    lines.append("|---" * (2 + len(kinds)) + "|")
    for parts, found in table.items():
        for name, row in found["auroc"].items():
            cells = [" / ".join(f"{row[scoring][level][kind][0]:.3f}" for level in LEVELS) for kind in kinds]
            lines.append(f"| {parts} | {name} | " + " | ".join(cells) + " |")
        for name, row in found["trained_less"].items():
            cells = [
                " / ".join("{:+.3f} ({:+.3f} to {:+.3f})".format(*row[scoring][level][kind]) for level in LEVELS)
                for kind in kinds
            ]
            lines.append(f"| {parts} | trained - {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "lite.json")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    given = parser.parse_args()
    torch.set_num_threads(1)

    def keep(table: Table) -> None:
        record = {
            "program": "python -m asperity.benchmarks.studies.points_probe",
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "weights_sha256": sha256_of(POINTS_LITE),
            "probe": asdict(ProbeConfig()),
            "virtual": {"seed": SEED, "bank": BANK, "good": GOOD, "spoiled": SPOILED},
            "draws": DRAWS,
            "parts": table,
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")

    table = known(given.output)
    measure(table, tuple(given.parts), keep)
    for scoring in SCORINGS:
        print(f"\n{scoring} distances\n\n{markdown(table, scoring)}")


if __name__ == "__main__":
    main()
