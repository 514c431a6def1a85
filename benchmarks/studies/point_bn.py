"""What `point_bn` does to an encoder of Point-MAE's form that is used at another scale than it was trained at.

    python -m asperity.benchmarks.studies.point_bn            # train and measure; a file for each seed
    python -m asperity.benchmarks.studies.point_bn --table    # markdown, as in docs/accuracy.md

The official checkpoint saw objects in the unit sphere; the paper feeds it raw metres, about eighty times smaller
(``METRES``). It is not at hand here, so a small encoder of the same form (mini-PointNet with BatchNorm, position added
before every block of attention) is trained by ``calibration.pretraining.train`` at one scale and used at two. Beside it
the control: the same network untrained. Its ``running`` statistics, too, are of training stations. Frames, banks and
scoring are those of ``benchmarks.studies.points_probe``: held-out procedural parts and the virtual camera's.
"""

from __future__ import annotations

import argparse
import copy
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import torch
from rich.progress import Progress

from asperity.benchmarks.studies.points_probe import PARTS, PROCEDURAL, virtual_product
from asperity.calibration.networks.point_mae import PointBn, PointEncoder
from asperity.calibration.pretraining.probe import (
    SCORINGS,
    Features,
    ProbeConfig,
    ProbeFrame,
    ProbeProduct,
    compare,
    figures,
    make_probe,
)
from asperity.calibration.pretraining.stations import make_station
from asperity.calibration.pretraining.train import PretrainConfig, train_at_stations
from asperity.runtime.errors import UsageError
from asperity.runtime.frame import FloatArray

RESULTS = Path(__file__).resolve().parents[1] / "results" / "accuracy" / "point-bn"
SEEDS = (0, 1, 2)
STEPS = 450
"""Longer, a first attempt unlearned; at this length the encoder beats its control on the validation probe."""
STATISTICS_STATIONS = 16
METRES = 1 / 80
"""Raw metres against the scale trained at. A group's radius: 32 of 1024 points of a unit sphere's surface, about 0.2;
128 points 0.4 mm apart, 0.0025."""
SCALES = {"as trained": 1.0, "metres": METRES}
MODES: tuple[PointBn, ...] = get_args(PointBn)
LEVELS = ("patch", "image")

Table = dict[str, dict[str, dict[str, Any]]]
"""Parts -> scale -> ``trained batch``, ... -> scoring -> ``calibration.pretraining.probe.Figures``."""


def new_encoder(seed: int) -> PointEncoder:
    """Point-MAE's form, 1.4 M parameters, random weights."""
    torch.manual_seed(seed)
    return PointEncoder(first=(64, 128), second=(128, 192), depth=3, heads=3, taps=(0, 1, 2))


def with_running_statistics(encoder: PointEncoder, seed: int) -> PointEncoder:
    """BatchNorm statistics of training stations, at the scale trained at."""
    rng = np.random.default_rng(seed)
    frames = [frame for _ in range(STATISTICS_STATIONS) for frame in make_station(rng, 1, 1)]
    encoder.encoder.fit_statistics([torch.from_numpy(frame.groups) for frame in frames])
    return encoder.eval()


def encoders(seed: int, steps: int, progress: Callable[[str, int, int], None]) -> dict[str, PointEncoder]:
    """The trained one and its control."""
    start = new_encoder(seed)
    trained, _ = train_at_stations(copy.deepcopy(start), PretrainConfig(seed=seed, steps=steps), progress)
    return {"trained": with_running_statistics(trained, seed), "random": with_running_statistics(start, seed)}


def at_station(encoder: PointEncoder, mode: PointBn, scale: float, bank: Sequence[ProbeFrame]) -> Features:
    """Patch features as a station in this mode has them, lengths multiplied by ``scale``."""
    own = copy.deepcopy(encoder)
    own.encoder.point_bn = mode
    if mode == "station":
        own.encoder.fit_statistics([torch.from_numpy(frame.groups.groups * np.float32(scale)) for frame in bank])

    @torch.no_grad()
    def features(frame: ProbeFrame) -> FloatArray:
        lengths = (frame.groups.groups, frame.groups.centres)
        tokens = own(*(torch.from_numpy(one * np.float32(scale))[None] for one in lengths))
        return np.asarray(frame.groups.to_patches @ tokens[0].numpy(), dtype=np.float32)

    return features


def measure(found: dict[str, PointEncoder], probes: dict[str, list[ProbeProduct]]) -> Table:
    """Every encoder in every mode at every scale."""
    table: Table = {}
    for parts, products in probes.items():
        for at, scale in SCALES.items():
            rows = table.setdefault(parts, {}).setdefault(at, {})
            for who, encoder in found.items():
                for mode in MODES:
                    compared = [
                        compare(at_station(encoder, mode, scale, bank), bank, tests) for bank, tests in products
                    ]
                    rows[f"{who} {mode}"] = {
                        scoring: asdict(figures([product[scoring] for product in compared])) for scoring in compared[0]
                    }
    return table


def run(path: Path, seed: int, steps: int) -> None:
    """Train and measure one seed; a file that is there is kept. Raises UsageError when it is of other steps."""
    if path.exists():
        kept = msgspec.json.decode(path.read_bytes())["steps"]
        if kept != steps:
            raise UsageError(f"{path} is of {kept} steps and not of {steps}; name another folder with -o")
        return
    with Progress() as bar:
        task = bar.add_task(f"seed {seed}: training", total=steps)
        found = encoders(seed, steps, lambda what, done, total: bar.update(task, completed=done))
        bar.update(task, description=f"seed {seed}: measuring")
        probes = {name: make_probe(ProbeConfig()) if name == PROCEDURAL else [virtual_product(name)] for name in PARTS}
        record = {
            "program": f"python -m asperity.benchmarks.studies.point_bn --seeds {seed} --steps {steps}",
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "encoder": "first (64, 128), second (128, 192), depth 3, heads 3, taps (0, 1, 2)",
            "seed": seed,
            "steps": steps,
            "scales": SCALES,
            "probe": asdict(ProbeConfig()),
            "parts": measure(found, probes),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def markdown(tables: Sequence[Table], scoring: str) -> str:
    """AUROC of patches and images, all kinds together: mean of the seeds and their standard deviation."""
    parts = list(tables[0])
    lines = ["| scale | encoder, point_bn | " + " | ".join(f"{name} patch / image" for name in parts) + " |"]
    lines.append("|---" * (2 + len(parts)) + "|")
    for at in SCALES:
        for row in tables[0][parts[0]][at]:
            cells = []
            for name in parts:
                values = [[table[name][at][row][scoring][level]["all"] for level in LEVELS] for table in tables]
                means, spreads = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
                cells.append(" / ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(means, spreads, strict=True)))
            lines.append(f"| {at} | {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    paths = [given.output / f"seed-{seed}.json" for seed in given.seeds]
    if not given.table:
        for path, seed in zip(paths, given.seeds, strict=True):
            run(path, seed, given.steps)
        return
    tables = [msgspec.json.decode(path.read_bytes())["parts"] for path in paths]
    for scoring in SCORINGS:
        print(f"\n{scoring} distances\n\n{markdown(tables, scoring)}")


if __name__ == "__main__":
    main()
