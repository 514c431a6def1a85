"""Sheets of one evaluated product: the frames a person should look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asperity.benchmarks.accuracy.material import Material
from asperity.benchmarks.accuracy.trial import Judged
from asperity.benchmarks.results_tools.sheet import Tile, write_sheet
from asperity.calibration.frames.datasets import open_dataset
from asperity.runtime.cameras.files.folders import GOOD

EACH = 4


def write_sheets(folder: Path, data: Path, material: Material, judged: Judged) -> list[Path]:
    """``NAME-best.png`` (the clearest defects), ``-missed.png`` (defects with the lowest scores), ``-alarms.png`` (good
    frames with the highest) and ``-borderline.png`` (either kind, nearest to where good and bad meet)."""
    source = data if data.resolve().name == material.name else data / material.name
    items = {item.name: item for item in open_dataset(source).test()}
    test, scores = material.test, judged.scores
    good = np.array(test.defects) == GOOD
    order = np.argsort(scores, kind="stable")
    middle = (np.median(scores[good]) + np.median(scores[~good])) / 2
    chosen = {
        "best": [i for i in order[::-1] if not good[i]][:EACH],
        "missed": [i for i in order if not good[i]][:EACH],
        "alarms": [i for i in order[::-1] if good[i]][:EACH],
        "borderline": list(np.argsort(np.abs(scores - middle), kind="stable"))[:EACH],
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, indices in chosen.items():
        tiles = [
            Tile(f"{test.names[i]}: score {scores[i]:.2f}", items[test.names[i]].frame(), test.truth[i], judged.maps[i])
            for i in indices
        ]
        if tiles:
            paths.append(folder / f"{material.name}-{name}.png")
            write_sheet(paths[-1], tiles)
    return paths
