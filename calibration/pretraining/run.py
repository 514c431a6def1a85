"""From a seed to ``points_lite.safetensors`` and its record: train, check against what needs no training, write.

    python -m asperity.calibration.pretraining.run --seed 0 --steps 2600 -o DIR    # the weights that ship

Equal weights follow from an equal seed, number of steps and threads, and version of torch (``points_lite.json``).
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import safetensors.torch
import torch
import typer
from rich.console import Console
from rich.progress import Progress as Bars
from torch import Tensor

from asperity import runtime
from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.pretraining.defects import KINDS
from asperity.calibration.pretraining.descriptors import fpfh_features
from asperity.calibration.pretraining.probe import SCORINGS, ProbeConfig, encoder_features, make_probe, run_probe
from asperity.calibration.pretraining.stations import make_station
from asperity.calibration.pretraining.train import PretrainConfig, Progress, train_at_stations
from asperity.runtime.errors import DataError

MODULE = "asperity.calibration.pretraining.run"
WEIGHTS_FILE = "points_lite.safetensors"
RECORD_FILE = "points_lite.json"
_STATISTICS_STATIONS = 16
HOLES_BELOW = 0.01
"""See ``check_figures``."""


def pretrain(
    directory: Path, config: PretrainConfig, probe: ProbeConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """Train, measure and write both files into ``directory``; returns the record.

    The figures are of the weights as stored (float16; statistics float32), beside those of the same network
    untrained and of FPFH. Raises DataError when the files cannot be written, CameraError where open3d does not load.
    """
    _make_folder(directory)
    control = untrained(config.seed)
    encoder, curve = train_at_stations(copy.deepcopy(control), config, progress)
    return ship(directory, encoder, control, curve, config, probe)


def ship(
    directory: Path, encoder: PointsLite, control: PointsLite, curve: list[dict[str, float]],
    config: PretrainConfig, probe: ProbeConfig,
) -> dict[str, Any]:  # fmt: skip
    """Measure a trained encoder and write it with its record. Raises as ``pretrain``."""
    stored = stored_form(encoder)
    encoder.load_state_dict({**encoder.state_dict(), **{key: value.float() for key, value in stored.items()}})
    frames = make_probe(probe)
    sides = {"trained": encoder_features(encoder), "untrained": encoder_features(control), "fpfh": fpfh_features}
    data = safetensors.torch.save(stored)
    record = {
        "program": "calibration/pretraining/train.py",
        "command": f"python -m {MODULE} --seed {config.seed} --steps {config.steps} -o DIR",
        "asperity": runtime.__version__,
        "torch": str(torch.__version__),
        "licence": "Apache-2.0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "config": asdict(config),
        "probe": {
            "config": asdict(probe),
            **{
                name: {scoring: asdict(figures) for scoring, figures in run_probe(features, frames).items()}
                for name, features in sides.items()
            },
        },
        "curve": curve,
    }
    _make_folder(directory)
    try:
        (directory / WEIGHTS_FILE).write_bytes(data)
        (directory / RECORD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    except OSError as error:
        raise DataError(f"the weights cannot be written into {directory}: {error.strerror}") from error
    return record


def _make_folder(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the weights cannot be written into {directory}: {error.strerror}") from error


def untrained(seed: int) -> PointsLite:
    """Where training starts, and the control: random weights, statistics fitted so that it is not blind."""
    torch.manual_seed(seed)
    encoder = PointsLite()
    rng = np.random.default_rng(seed)
    frames = [frame for _ in range(_STATISTICS_STATIONS) for frame in make_station(rng, 1, 1)]
    encoder.fit_statistics([(torch.from_numpy(frame.groups), torch.from_numpy(frame.centres)) for frame in frames])
    return encoder.eval()


def stored_form(encoder: PointsLite) -> dict[str, Tensor]:
    """The tensors to ship: float16, but for the measures' statistics."""
    return {key: value.float() if "running_" in key else value.half() for key, value in encoder.state_dict().items()}


def check_figures(record: dict[str, Any]) -> list[str]:
    """What of the record would forbid shipping the weights.

    Every kind of defect, patches and frames, in both scorings, must be seen better than by the untrained encoder and
    than by FPFH; patches of holes, of which FPFH misses one in a hundred, may lie below it by ``HOLES_BELOW``.
    """
    probe = record["probe"]
    return [
        f"{level} AUROC of {kind}, {scoring} distances: {own} is not above {control}'s {other}"
        for scoring in SCORINGS
        for level in ("patch", "image")
        for kind in KINDS
        for control in ("untrained", "fpfh")
        if not (own := probe["trained"][scoring][level][kind])
        > (other := probe[control][scoring][level][kind])
        - (HOLES_BELOW if (level, kind, control) == ("patch", "hole", "fpfh") else 0.0)
    ]


def main(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the weights and their record")],
    seed: Annotated[int, typer.Option(min=0, help="of stations, weights and order")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="training steps; the default made what ships")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; results are equal only for equal numbers")] = 1,
) -> None:
    """Train `points_lite` at made-up stations and check it against an untrained encoder and FPFH."""
    torch.set_num_threads(threads)
    config = PretrainConfig(seed=seed)
    config = replace(config, steps=steps or config.steps)
    with Bars(console=Console(markup=False, stderr=True), transient=True) as bars:
        bar = bars.add_task("stations", total=config.steps)
        record = pretrain(
            output, config, ProbeConfig(),
            lambda what, done, total: bars.update(bar, description=what, completed=done, total=total),
        )  # fmt: skip
    sides = ("trained", "untrained", "fpfh")
    typer.echo(f"{'AUROC':26}" + "".join(f"{side:>11}" for side in sides))
    for scoring in SCORINGS:
        for level in ("patch", "image"):
            for kind in record["probe"]["trained"][scoring][level]:
                row = "".join(f"{record['probe'][side][scoring][level][kind]:>11.4f}" for side in sides)
                typer.echo(f"{f'{scoring} {level} {kind}':26}{row}")
    typer.echo(f"written to {output}, sha256 {record['sha256']}")
    if faults := check_figures(record):
        raise SystemExit(f"these weights are not worth shipping: {'; '.join(faults)}. Train longer")


if __name__ == "__main__":
    typer.run(main)
