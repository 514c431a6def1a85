"""The virtual camera's frames as a data set on disk, in the MVTec 3D-AD layout, with a record of how it was made."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asperity.runtime import __version__
from asperity.runtime.cameras.files.parts import PARTS_FILE
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.cameras.virtual.camera import GOOD, VirtualCamera
from asperity.runtime.cameras.virtual.open3d_scene import load_open3d
from asperity.runtime.errors import DataError, UsageError

ORIGIN_FILE = "virtual.json"
MOST_FRAMES = 100_000


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames of each folder."""

    train: int
    validation: int
    test: int
    """Of each defect's folder, and of ``test/good`` unless ``test_good`` says otherwise."""
    test_good: int | None = None

    @property
    def good(self) -> int:
        """Frames of ``test/good``."""
        return self.test if self.test_good is None else self.test_good


def mixed_kinds(seed: int, defects: Sequence[str], share: float) -> Iterator[str]:
    """An endless mix: a frame is spoiled with probability ``share``; every defect comes once before one comes again."""
    rng = np.random.default_rng(seed)
    waiting: list[str] = []
    while True:
        if defects and rng.random() < share:
            waiting = waiting or [defects[i] for i in rng.permutation(len(defects))]
            yield waiting.pop()
        else:
            yield GOOD


def write_dataset(
    camera: VirtualCamera,
    folder: Path,
    counts: Counts,
    defects: Sequence[str],
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Write ``train/good``, ``validation/good``, ``test/good`` and ``test/<defect>`` with masks, ``parts.csv`` and how
    it was made. Every frame shows a different part. Returns the number of frames.

    Raises UsageError for counts that cannot be, DataError for a folder that is not empty or cannot be written.
    """
    plan = list(_plan(counts, defects))
    if not 0 < len(plan) <= MOST_FRAMES or min(counts.train, counts.validation, counts.test, counts.good) < 0:
        raise UsageError(f"{len(plan)} frames were asked for; give counts from 0 on, 1 to {MOST_FRAMES} frames in all")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not an empty folder; name a new one; nothing is overwritten")
    load_open3d()  # where it is missing no half-made folder is left, which the next try would refuse
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ORIGIN_FILE).write_text(json.dumps(_origin(camera, counts, defects), indent=1) + "\n")
        with (folder / PARTS_FILE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("name", "part_id", "defect", "strength_mm", "size_mm"))
            for index, (place, name, kind) in enumerate(plan):
                shot = camera.frame(index, None if kind == GOOD else kind)
                if shot.frame.xyz is None:
                    raise DataError("a virtual camera without points cannot be written")
                mask = shot.mask if place.startswith("test/") else None
                write_frame(folder / place, name, shot.frame.rgb, shot.frame.xyz, mask)
                figures = (f"{shot.defect.strength_mm:.3f}", f"{shot.defect.size_mm:.3f}") if shot.defect else ("", "")
                table.writerow((f"{place}/{name}", shot.frame.part_id, kind, *figures))
                file.flush()
                progress()
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}; free some space or name another") from error
    return len(plan)


def _plan(counts: Counts, defects: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Folder, name and kind of every frame; the index is the position, so a part is never shown twice."""
    wanted = [(f"train/{GOOD}", GOOD, counts.train), (f"validation/{GOOD}", GOOD, counts.validation)]
    wanted += [(f"test/{GOOD}", GOOD, counts.good), *((f"test/{kind}", kind, counts.test) for kind in defects)]
    for place, kind, number in wanted:
        for position in range(number):
            yield place, f"{position:03d}", kind


def _origin(camera: VirtualCamera, counts: Counts, defects: Sequence[str]) -> dict[str, object]:
    rows, columns = camera.size_px
    command = (
        f"asperity camera virtual --product {camera.product} --seed {camera.seed} --size {columns}x{rows} "
        f"--train {counts.train} --validation {counts.validation} --test {counts.test} --test-good {counts.good} "
        f"--severity {camera.severity:g} "
        f"--defects {shlex.quote(','.join(defects) or 'none')} --write FOLDER"
    )
    return {
        "command": command,
        "asperity": __version__,
        "product": camera.product,
        "seed": camera.seed,
        "unit": camera.unit,
        "note": "rendered, not recorded: parts, defects and masks follow from the command alone",
    }
