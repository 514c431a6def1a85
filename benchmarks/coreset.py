"""How long the bank of a whole published class takes: 266 frames x 3136 patches x 1152, a tenth of them kept.

    python -m benchmarks.coreset                 # on the sparse random projection, as published (lsfa 7.1)
    python -m benchmarks.coreset --whole         # on the features themselves, this project's default

Rows are real ones made many: `lite` point features of virtual frames, mixed pair by pair with a little noise, and
brought to 1152 channels by a fixed random layer. Their variance lies in few directions, as that of real ones.
One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import torch

from benchmarks.machine import machine
from calibration.geometry import fit_geometry
from calibration.memory_bank import coreset, projected
from calibration.networks.torch_networks import build
from calibration.profiles import network_for, profile
from calibration.tune import cache_patches
from runtime.cameras.virtual import VirtualCamera
from runtime.frame import FloatArray
from runtime.preprocess import prepare

FRAMES, PATCHES, WIDTH, SHARE = 266, 3136, 1152, 0.1
RENDERED = 32
NOISE = 0.05
BLOCK = 1 << 14


def real_rows() -> FloatArray:
    """(n, 384) point features of the filled patches of some virtual frames."""
    camera = VirtualCamera("roll", 0)
    frames = [camera.frame(index).frame for index in range(RENDERED)]
    geometry, lite = fit_geometry(frames), profile("lite")
    network = network_for(lite, geometry, "none")
    patches = cache_patches([prepare(frame, geometry, network) for frame in frames], network, build(lite))
    return patches.points[patches.nonempty.reshape(len(patches), -1)]


def many_rows(real: FloatArray, count: int, width: int) -> FloatArray:
    """(count, width): see the module's text."""
    rng = np.random.default_rng(0)
    real = (real - real.mean(0)) / real.std()
    layer = rng.normal(size=(real.shape[1], width)).astype(np.float32) / np.float32(np.sqrt(real.shape[1]))
    rows = np.empty((count, width), np.float32)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        first = rng.integers(len(real) - 8, size=size)
        share = rng.random((size, 1), dtype=np.float32)
        mixed = share * real[first] + (1 - share) * real[first + rng.integers(8, size=size)]
        mixed += NOISE * rng.standard_normal(mixed.shape, dtype=np.float32)
        rows[start : start + size] = np.tanh(mixed @ layer)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="choose on the features, not on their projection")
    parser.add_argument("--frames", type=int, default=FRAMES)
    given = parser.parse_args()
    rows = many_rows(real_rows(), given.frames * PATCHES, WIDTH)
    begin = time.monotonic()
    compared = rows if given.whole else projected(rows, 0)
    projected_s = time.monotonic() - begin
    wanted = int(SHARE * len(rows))
    chosen = coreset(compared, wanted)
    whole_s = time.monotonic() - begin
    found = {
        "rows": len(rows), "width": WIDTH, "compared_width": compared.shape[1], "kept": len(chosen),
        "projection_s": round(projected_s, 1), "whole_s": round(whole_s, 1),
        "picks_per_s": round(len(chosen) / (whole_s - projected_s)), "threads": torch.get_num_threads(),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2), "machine": machine(),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
