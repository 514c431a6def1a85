"""What 20, 50, 100 and 200 normal frames buy, calibrated at once and added by `asperity refit`.

    python -m asperity.benchmarks.accuracy.frame_counts --out benchmarks/results/accuracy/frame-counts.json

Frames of the virtual camera; AUROC of further good frames against their twins with one surface defect of the strength
of the set ``hard`` (same part, pose, light and noise), seconds of processor time on one thread, without the export.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from asperity.benchmarks.accuracy.ablation import SETS
from asperity.benchmarks.results_tools.reports import write_result
from asperity.calibration.auroc import auroc
from asperity.calibration.calibrate import calibrate
from asperity.calibration.networks.torch_networks import restore
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import profile
from asperity.calibration.record import CalibrationFolder
from asperity.calibration.refit import refit
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.frame import Frame
from asperity.runtime.vision.distances import measure
from asperity.runtime.vision.features import adapted_patches, frozen_patches
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.scoring import fused_score

SEED = 64
COUNTS = (20, 50, 100, 200)
HELD_OUT = 40
KINDS = ("bump", "dent", "scratch", "hole", "stain")
OPTIONS = CalibrateOptions(method="frozen", unit="m")


def scores(folder: CalibrationFolder, frames: Sequence[Frame]) -> list[float]:
    """By the folder's files."""
    record, banks = folder.record, folder.banks()
    networks = restore(profile(record.network.profile), folder.networks_path, record.weights)
    found = []
    for frame in frames:
        prepared = prepare(frame, record.geometry, record.network)
        patches = adapted_patches(frozen_patches(prepared, record.network, networks), record.network, networks)
        found.append(fused_score(measure(patches, prepared.inspect, banks)[0], record.decision))
    return found


def rows(product: str, folder: Path) -> list[dict[str, Any]]:
    """One row per number of frames and way."""
    good, spoiled = VirtualCamera(product, SEED), VirtualCamera(product, SEED, severity=SETS["hard"][product])
    for first, last in zip((0, *COUNTS), COUNTS, strict=False):
        for index in range(first, last):
            frame = good.frame(index).frame
            assert frame.xyz is not None
            write_frame(folder / f"later{last}", f"{index:03d}", frame.rgb, frame.xyz)
    held_out = range(COUNTS[-1], COUNTS[-1] + HELD_OUT)
    normal = [good.frame(index).frame for index in held_out]
    defective = [spoiled.frame(index, KINDS[index % len(KINDS)]).frame for index in held_out]
    found, earlier = [], None
    for count in COUNTS:
        whole = folder / f"all{count}"
        for part in (each for each in COUNTS if each <= count):
            for half in ("rgb", "xyz"):
                (whole / half).mkdir(parents=True, exist_ok=True)
                for path in (folder / f"later{part}" / half).iterdir():
                    (whole / half / path.name).symlink_to(path)
        begin = time.process_time()
        at_once = calibrate(whole, folder / f"once{count}", OPTIONS)
        took = {"at once": (at_once, time.process_time() - begin)}
        if earlier is None:
            earlier = at_once
        else:
            begin = time.process_time()
            earlier = refit(earlier.path, folder / f"later{count}", folder / f"refit{count}", unselected=True)
            took["refit"] = (earlier, time.process_time() - begin)
        for way, (made, seconds) in took.items():
            rejects = made.record.false_rejects
            found.append(
                {
                    "product": product, "frames": count, "way": way, "processor_s": round(seconds, 1),
                    "auroc": round(auroc(scores(made, normal), scores(made, defective)), 4),
                    "rate": round(rejects.alpha_total, 4), "bound_95": round(rejects.bound_95, 4),
                    "witnesses": rejects.witnesses,
                    "folder_mb": round(sum(path.stat().st_size for path in made.path.rglob("*")) / 1e6, 1),
                    "kept_mb": round(sum(path.stat().st_size for path in made.path.glob("kept/*")) / 1e6, 1),
                }
            )  # fmt: skip
            print(found[-1], flush=True)
    return found


def main(arguments: Sequence[str]) -> None:
    """All products, one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--products", default=",".join(SETS["hard"]))
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "asperity.benchmarks.accuracy.frame_counts", *arguments]),
        "seed": SEED, "profile": OPTIONS.profile, "method": OPTIONS.method, "held_out": HELD_OUT, "rows": [],
    }  # fmt: skip
    for product in chosen.products.split(","):
        with tempfile.TemporaryDirectory() as folder:
            report["rows"] += rows(product, Path(folder))
        write_result(chosen.out, report)


if __name__ == "__main__":
    main(sys.argv[1:])
