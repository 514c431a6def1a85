"""How long the bank of a whole published class takes: 266 frames x 3136 patches x 1152, a tenth of them kept.

    run="python -m asperity.benchmarks.parts.coreset"
    $run                     # on the sparse random projection, as published (lsfa 7.1)
    $run --occupancy 0.4     # 40 % of each frame's patches hold points and are banked
    $run --whole             # on the features themselves, this project's default
    $run -o FILE             # keep the figures

Rows are real ones made many: `lite` point features of virtual frames, mixed pair by pair with a little noise, and
brought to 1152 channels by a fixed random layer. Their variance lies in few directions, as that of real ones.

For comparison, a few choices of the plain greedy loop, the fastest one that visits every row for each choice: one
matrix-vector product over all rows, a minimum, an argmax. Each choice costs the same, so its total time is
extrapolated. Times are processor times: other work on the machine slows both alike.
One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch

from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.calibration.banks.coreset import POOL, coreset, projected
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.networks.torch_networks import build
from asperity.calibration.profiles import network_for, profile
from asperity.calibration.tuning.tune import cache_patches
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.preprocess import prepare

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
    return patches.features["points"][patches.nonempty.reshape(len(patches), -1)]


def many_rows(real: FloatArray, count: int, width: int) -> FloatArray:
    """(count, width): see the module docstring."""
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


def plain_choices(rows: FloatArray, count: int) -> tuple[list[int], float]:
    """The first choices of the plain loop and the processor time of one of them, seconds."""
    data = torch.from_numpy(rows) - torch.from_numpy(rows).mean(0).round()
    norms = data.square().sum(1)
    chosen = [0]
    nearest = torch.full((len(data),), math.inf)
    begin = time.process_time()
    while len(chosen) <= count:
        last = data[chosen[-1]]
        distances = torch.addmv(norms, data, last, alpha=-2.0).add_(norms[chosen[-1]]).clamp_min_(0.0)
        torch.minimum(nearest, distances, out=nearest)
        nearest[chosen[-1]] = -1.0
        chosen.append(int(nearest.argmax()))
    return chosen[:count], (time.process_time() - begin) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="choose on the features, not on their projection")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--occupancy", type=float, default=1.0, help="share of a frame's patches that is banked")
    parser.add_argument("--plain", type=int, default=20, help="choices of the plain loop")
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows = many_rows(real_rows(), int(given.occupancy * given.frames * PATCHES), WIDTH)
    begin = time.process_time()
    compared = rows if given.whole else projected(rows, 0)
    projected_s = time.process_time() - begin
    width = rows.shape[1]
    if not given.whole:
        del rows  # a bank keeps the rows that are chosen; the choice itself needs them no more
    wanted = int(SHARE * given.frames * PATCHES)
    plain, plain_s = plain_choices(compared, given.plain)
    begin, begin_wall = time.process_time(), time.monotonic()
    chosen = coreset(compared, wanted, progress=lambda done, total: say(done, total, begin))
    chosen_s = time.process_time() - begin
    found = {
        "command": shlex.join(["python", "-m", "asperity.benchmarks.parts.coreset", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(), "rows": len(compared), "width": width, "compared_width": compared.shape[1],
        "kept": len(chosen), "threads": torch.get_num_threads(), "projection_cpu_s": round(projected_s, 1),
        "choice_cpu_s": round(chosen_s, 1), "choice_wall_s": round(time.monotonic() - begin_wall, 1),
        "choices_per_cpu_s": round(len(chosen) / chosen_s, 1),
        "plain_choices": given.plain, "plain_cpu_s_a_choice": round(plain_s, 5),
        "plain_cpu_s_counted": round(plain_s * len(chosen)),
        "faster_than_plain": round(plain_s * len(chosen) / chosen_s, 2),
        "first_choices_agree": plain == chosen[: given.plain].tolist(),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "load_1min_before": round(load, 2), "machine": machine(),
    }  # fmt: skip
    print(json.dumps(found))
    if given.output is not None:
        reports.write_result(given.output, found)


def say(done: int, total: int, begin_s: float) -> None:
    """Print a line on stderr about every thousand choices."""
    if done * 80 // total != (done - POOL) * 80 // total:
        print(f"{done} of {total}, {time.process_time() - begin_s:.0f} s processor time", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
