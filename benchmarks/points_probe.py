"""The point encoder against what needs no training: one table, same frames, same banks, same scoring.

    python -m benchmarks.points_probe            # writes benchmarks/results/points_probe/lite.json and prints the table

Rows that the file holds already for these weights are kept. On the procedural parts the trained and untrained encoders
and FPFH were measured when the weights were made: those figures are taken from the weights' record.

Two kinds of parts: the held-out procedural ones of ``calibration.point_probe`` and the three products of the virtual
camera, whose shapes, defects and sensor no training saw. The seed of the virtual frames is not that of ``first_look``,
so choices made here leave its test frames untouched. Points alone; patches under the rule of filled patches.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.first_look import truth_patches
from calibration.geometry import fit_geometry
from calibration.networks.weights import POINTS_LITE, points_lite_record, sha256_of
from calibration.point_descriptors import fpfh_features, height_features
from calibration.point_probe import (
    NORMAL,
    Features,
    Figures,
    ProbeConfig,
    ProbeFrame,
    ProbeProduct,
    encoder_features,
    make_probe,
    product_figures,
    run_probe,
)
from calibration.pretrain_run import load_encoder, untrained
from calibration.procedural_defects import KINDS
from calibration.profiles import network_for, profile
from runtime.cameras.virtual import VirtualCamera
from runtime.frame import Frame
from runtime.points import group
from runtime.preprocess import prepare

SEED = 77
PRODUCTS = ("bracket", "nameplate", "roll")
BANK, GOOD, SPOILED = 40, 30, 48
"""Frames of each virtual product; the spoiled ones take the kinds in turn."""
RESULTS = Path(__file__).parent / "results" / "points_probe"

Table = dict[str, dict[str, dict[str, dict[str, float]]]]
"""Parts -> features -> patch or image -> kind of defect -> AUROC."""


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


def measure(table: Table, products: tuple[str, ...], names: list[str], keep: Callable[[Table], None]) -> None:
    """Add the rows that ``table`` lacks, procedural parts last; ``keep`` is called after each."""

    def add(parts: str, figures: Callable[[Features], Figures]) -> None:
        for name in names:
            if name not in table.setdefault(parts, {}):
                table[parts][name] = _rounded(figures(contestants()[name]()))
                print(f"{parts} {name}: {table[parts][name]}", flush=True)
                keep(table)

    def missing(parts: str) -> bool:
        return not set(names) <= set(table.get(parts, {}))

    for product in filter(missing, products):
        bank, tests = virtual_product(product)
        add(product, partial(product_figures, bank_frames=bank, tests=tests))
    if missing("procedural"):
        add("procedural", partial(run_probe, probe=make_probe(ProbeConfig())))


def known(path: Path) -> Table:
    """What is measured already: the weights' own record, and the file at ``path`` if it is of these weights."""
    probe = points_lite_record()["probe"]
    if not isinstance(probe, dict) or probe["config"] != msgspec.json.decode(msgspec.json.encode(ProbeConfig())):
        raise SystemExit("the weights' record is of another probe; train again or measure with its settings")
    table: Table = {"procedural": {name: probe[name] for name in ("trained", "untrained", "fpfh")}}
    if path.exists():
        stored = msgspec.json.decode(path.read_bytes())
        if stored["weights_sha256"] == sha256_of(POINTS_LITE):
            for parts, rows in stored["auroc"].items():
                table.setdefault(parts, {}).update(rows)
    return table


def markdown(table: Table) -> str:
    """The table of docs/point-encoder.md."""
    kinds = (*KINDS, "all")
    lines = ["| parts | features | " + " | ".join(f"{kind} patch / image" for kind in kinds) + " |"]
    lines.append("|---" * (2 + len(kinds)) + "|")
    for parts, rows in table.items():
        for name, figures in rows.items():
            cells = [f"{figures['patch'][kind]:.3f} / {figures['image'][kind]:.3f}" for kind in kinds]
            lines.append(f"| {parts} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rounded(figures: Figures) -> dict[str, dict[str, float]]:
    return {level: {kind: round(value, 4) for kind, value in row.items()} for level, row in asdict(figures).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "lite.json")
    parser.add_argument("--features", nargs="*", default=list(contestants()), choices=list(contestants()))
    given = parser.parse_args()
    torch.set_num_threads(1)

    def keep(table: Table) -> None:
        record = {
            "program": "python -m benchmarks.points_probe",
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "weights_sha256": sha256_of(POINTS_LITE),
            "probe": asdict(ProbeConfig()),
            "virtual": {"seed": SEED, "bank": BANK, "good": GOOD, "spoiled": SPOILED},
            "auroc": table,
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")

    table = known(given.output)
    measure(table, PRODUCTS, given.features, keep)
    print(markdown(table))


if __name__ == "__main__":
    main()
