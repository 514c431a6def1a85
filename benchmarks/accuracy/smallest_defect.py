"""Whether the smallest defect that a calibration states is the one that rendered defects show.

    python -m asperity.benchmarks.accuracy.smallest_defect [PRODUCT...]

Per product: 100 normal frames of the virtual camera, calibrated with frozen features; what the calibration states from
pseudo-defects on its held-out frames; and the same question asked with the camera's own defects, rendered in falling
sizes of the same proportions on parts that took no part. Nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.results_tools.reports import write_result
from asperity.calibration.calibrate import learn
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.outcome.result import Outcome
from asperity.calibration.outcome.resumable import working
from asperity.calibration.tuning.frame_defects import Kind
from asperity.calibration.tuning.smallest_defect import (
    KINDS,
    OFTEN,
    bisected,
    quantile,
    sizes_tried_mm,
)
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.cameras.virtual.dataset import Counts, write_dataset
from asperity.runtime.errors import FrameRefused

SEED = 91
NORMALS = 100
PLACES = 32
FIRST = 500_000
"""Number of the first part that is given defects: none of them is among the normal frames."""
RESAMPLES = 2000
RESULT = Path(__file__).resolve().parents[1] / "results" / "accuracy" / "smallest-defect.json"


def station(product: str, folder: Path, profile: str) -> Outcome:
    """A calibrated station that has measured its smallest defect."""
    write_dataset(VirtualCamera(product, SEED), folder / product, Counts(NORMALS, 0, 0), ())
    options = CalibrateOptions(profile=profile, method="frozen", strangest=0, smallest_defect=True)
    with working(folder / "calibration", False) as work:
        outcome = learn(folder / product, options, work)
        (work.draft / "calibration.json").touch()
    return outcome


def rejects(camera: VirtualCamera, outcome: Outcome, index: int, kind: Kind | None, size_mm: float | None) -> bool:
    """Whether the station does not pass a rendered frame."""
    try:
        return outcome.rejects(camera.frame(index, kind, size_mm=size_mm).frame)
    except FrameRefused:
        return True


def rendered(product: str, outcome: Outcome, places: int) -> dict[Kind, list[float]]:
    """The size from which each place's rendered defect is found, on frames that pass without it, as in calibration."""
    camera, tried_mm = VirtualCamera(product, SEED), sizes_tried_mm(outcome.normals.geometry)
    sizes: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    index = FIRST
    while len(sizes["bump"]) < places:
        index += 1
        if rejects(camera, outcome, index, None, None):
            continue
        for kind in KINDS:
            sizes[kind].append(bisected(partial(rejects, camera, outcome, index, kind), *tried_mm))
    return sizes


def spread(sizes: Sequence[float], share: float) -> list[float | None]:
    """95 % interval of a quantile, places resampled."""
    rng, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        size = quantile(list(rng.choice(sizes, len(sizes))), share)
        found.append(math.inf if size is None else size)
    low, high = np.sort(found)[[int(0.025 * RESAMPLES), int(0.975 * RESAMPLES) - 1]]
    return [round(float(end), 2) if math.isfinite(end) else None for end in (low, high)]


def compare(product: str, profile: str, places: int) -> list[dict[str, Any]]:
    """A row per kind."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        outcome = station(product, Path(folder), profile)
    seconds = outcome.stage_s["smallest defect"]
    print(product, f"{seconds} s", flush=True)
    begin = time.process_time()
    seen_mm = rendered(product, outcome, places)
    cpu_s = round(time.process_time() - begin, 1)
    for stated in outcome.smallest_defects:
        kind: Kind = next(each for each in KINDS if each == stated.kind)
        sizes = seen_mm[kind]
        row: dict[str, Any] = {"product": product, "kind": kind}
        told = [*stated.sizes_mm, *[math.inf] * (stated.places - len(stated.sizes_mm))]
        for name, share, own in (("half", 0.5, stated.half_mm), ("often", OFTEN, stated.often_mm)):
            seen = quantile(sizes, share)
            row |= {
                f"{name}_stated_mm": own and round(own, 2), f"{name}_stated_95": spread(told, share),
                f"{name}_rendered_mm": seen and round(seen, 2), f"{name}_rendered_95": spread(sizes, share),
                f"{name}_ratio": round(own / seen, 2) if own and seen else None,
            }  # fmt: skip
        row |= {"places": places, "rendered_cpu_s": cpu_s}
        row |= {"calibration_s": seconds, "alpha": round(outcome.decision.alpha_total, 3)}
        row |= {"stated_mm": stated.sizes_mm, "rendered_mm": [round(s, 2) for s in sorted(sizes) if math.isfinite(s)]}
        print(msgspec.json.encode(row).decode(), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product", nargs="*", default=["bracket", "nameplate", "roll"])
    parser.add_argument("--profile", default="lite")
    parser.add_argument("--places", type=int, default=PLACES)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    rows = [row for product in given.product for row in compare(product, given.profile, given.places)]
    chosen = f"{' '.join(given.product)} --profile {given.profile} --places {given.places}"
    command = f"python -m asperity.benchmarks.accuracy.smallest_defect {chosen}"
    write_result(given.result, {"command": command, "profile": given.profile, "rows": rows})


if __name__ == "__main__":
    main()
