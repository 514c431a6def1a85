"""The point encoder against what needs no training: one table, same frames, same banks, same scoring.

    python -m benchmarks.points_probe            # writes benchmarks/results/points_probe/lite.json and prints the table

Two kinds of parts: the held-out procedural ones of ``calibration.point_probe`` and the three products of the virtual
camera, whose shapes, defects and sensor no training saw. The seed of the virtual frames is not that of ``first_look``,
so choices made here leave its test frames untouched. Points alone; patches under the rule of filled patches.
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

from benchmarks.first_look import truth_patches
from calibration.geometry import fit_geometry
from calibration.networks.weights import POINTS_LITE, sha256_of
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


def measure(config: ProbeConfig, products: tuple[str, ...], names: list[str]) -> Table:
    """The table; procedural parts first."""
    chosen = {name: contestants()[name]() for name in names}
    table: Table = {"procedural": {}}
    probe = make_probe(config)
    for name, features in chosen.items():
        table["procedural"][name] = _rounded(run_probe(features, probe))
        print(f"procedural {name}: {table['procedural'][name]}", flush=True)
    for product in products:
        bank, tests = virtual_product(product)
        table[product] = {}
        for name, features in chosen.items():
            table[product][name] = _rounded(product_figures(features, bank, tests))
            print(f"{product} {name}: {table[product][name]}", flush=True)
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
    table = measure(ProbeConfig(), PRODUCTS, given.features)
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
    print(markdown(table))


if __name__ == "__main__":
    main()
