"""From a seed to ``points_lite.safetensors`` and its record: train, check against an untrained encoder, write."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

import runtime
from calibration.networks.point_mae import PointEncoder, points_lite
from calibration.point_probe import ProbeConfig, make_probe, run_probe
from calibration.pretrain_points import PretrainConfig, Progress, held_out, make_samples, train, untrained
from runtime.errors import DataError

WEIGHTS_FILE = "points_lite.safetensors"
RECORD_FILE = "points_lite.json"
_HELD_OUT_SEED = 2_000_003
HELD_OUT_CLOUDS = 64


def pretrain(
    directory: Path, config: PretrainConfig, probe: ProbeConfig, progress: Progress | None = None,
    held_out_clouds: int = HELD_OUT_CLOUDS,
) -> dict[str, Any]:  # fmt: skip
    """Train, measure and write both files into ``directory``; returns the record.

    The figures are of the weights as stored (float16; BatchNorm statistics float32), beside those of the same network
    untrained: errors on held-out clouds, and the probe's AUROC. Raises DataError when the files cannot be written.
    """
    samples = make_samples(config.clouds, np.random.default_rng(config.seed), progress)
    model, curve = train(config, samples, progress)
    stored = stored_form(model.encoder)
    model.encoder.load_state_dict({**model.encoder.state_dict(), **{k: v.float() for k, v in stored.items()}})

    fresh = make_samples(held_out_clouds, np.random.default_rng(_HELD_OUT_SEED))
    control = untrained(samples, config.seed)
    frames = make_probe(probe)
    data = safetensors.torch.save(stored)
    options = f"--seed {config.seed} --steps {config.steps} --clouds {config.clouds}"
    record = {
        "program": "calibration/pretrain_points.py",
        "command": f"asperity pretrain-points {options} -o DIR",
        "asperity": runtime.__version__,
        "torch": str(torch.__version__),
        "licence": "Apache-2.0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": sum(p.numel() for p in model.encoder.parameters()),
        "config": asdict(config),
        "held_out": {"trained": held_out(model, fresh, config), "untrained": held_out(control, fresh, config)},
        "probe": {
            "config": asdict(probe),
            "auroc_trained": run_probe(model.encoder, frames),
            "auroc_untrained": run_probe(control.encoder, frames),
        },
        "curve": curve,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / WEIGHTS_FILE).write_bytes(data)
        (directory / RECORD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    except OSError as error:
        raise DataError(f"the weights cannot be written into {directory}: {error.strerror}") from error
    return record


def stored_form(encoder: PointEncoder) -> dict[str, Tensor]:
    """The tensors to ship: float16, but for BatchNorm statistics, whose small variances float16 would flush."""
    return {
        key: value.float() if "running_" in key else value.half()
        for key, value in encoder.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def check_figures(record: dict[str, Any]) -> list[str]:
    """What of the record would forbid shipping the weights; empty when the trained encoder beats the untrained one."""
    errors, probe = record["held_out"], record["probe"]
    trained, control = probe["auroc_trained"], probe["auroc_untrained"]
    faults = [
        f"held-out {name} error {errors['trained'][name]} is not below the untrained {errors['untrained'][name]}"
        for name in ("surface", "metric", "chamfer")
        if not errors["trained"][name] < errors["untrained"][name]
    ]
    return faults + [
        f"probe AUROC of {kind} {trained[kind]} is not above the untrained {control[kind]}"
        for kind in ("bump", "dent", "both")
        if not trained[kind] > control[kind]
    ]


def load_encoder(path: Path) -> PointEncoder:
    """A stored encoder in eval mode. Raises OSError, safetensors' error or RuntimeError when the file is not one."""
    encoder = points_lite("running")
    state = {key: value.float() for key, value in safetensors.torch.load_file(path).items()}
    encoder.load_state_dict(state, strict=False)
    return encoder.eval()
