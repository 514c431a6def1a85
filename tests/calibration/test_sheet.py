"""A sheet that fills the view, from its frames to verdicts: its defects are found, and so is its absence."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.calibration.calibrate import calibrate
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import Profile
from asperity.calibration.record import CalibrationFolder
from asperity.runtime.frame import Frame, Scores, Verdict
from asperity.runtime.manifest import LEVEL_FIGURE
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.distances import measure
from asperity.runtime.vision.features import adapted_patches, frozen_patches
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.scoring import Judgement, decide
from tests.calibration.tiny_station import DEPTH_MM, SIZE_PX, TINY, build_tiny, tiny_profile, write_source

__all__ = ["tiny_profile"]

THICKNESS_MM = 2.0


def exposure(seed: int, defect: str = "") -> tuple[np.ndarray, np.ndarray]:
    """(rgb, xyz in metres) of a sheet on a belt of the same colour; a pixel is 1 mm."""
    rng = np.random.default_rng([11, seed])
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float64)
    row0, column0 = SIZE_PX / 2 + rng.uniform(-15, 15, 2)
    near = np.hypot(rows - row0, columns - column0)
    rise = np.full(near.shape, THICKNESS_MM)
    if defect == "empty":
        rise[:] = 0.0
    elif defect == "hole":
        rise[near < 6] = 0.0
    elif defect == "dent":
        rise -= 1.5 * np.exp(-(near**2) / 18)
    z = DEPTH_MM - rise + rng.normal(scale=0.03, size=rise.shape)
    grain = 12 * np.sin(columns / 2.5) + rng.normal(scale=5, size=rise.shape)
    rgb = np.repeat(130 + grain[..., None], 3, axis=2)
    if defect == "stain":
        rgb[near < 6] *= 0.4
    xyz = np.stack([columns - SIZE_PX / 2, rows - SIZE_PX / 2, z], axis=2) / 1000
    return np.clip(rgb, 0, 255).astype(np.uint8), xyz.astype(np.float32)


@pytest.fixture(scope="module")
def folder(tiny_profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> CalibrationFolder:
    root = tmp_path_factory.mktemp("sheet")
    source = write_source(root / "sheet", 40, spoil={seed: lambda seed=seed: exposure(seed) for seed in range(40)})
    return calibrate(source, root / "out", CalibrateOptions(profile="tiny", method="frozen", unit="m"))


def judged(folder: CalibrationFolder, seed: int, defect: str = "") -> Judgement:
    """From the folder's files alone, by the runtime's functions."""
    rgb, xyz = exposure(seed, defect)
    record, banks, networks = folder.record, folder.banks(), build_tiny(TINY)
    networks.load(folder.networks_path)
    prepared = prepare(Frame("c", "s", 0, rgb, xyz=xyz, unit="m"), record.geometry, record.network)
    patches = adapted_patches(frozen_patches(prepared, record.network, networks), record.network, networks)
    modalities, scored = measure(patches, prepared.inspect, banks)
    seen = Scores(modalities, scored, prepared.window, prepared.silhouette)
    return decide(seen, record.decision, record.silhouette, record.geometry)


def test_good_sheets_pass(folder: CalibrationFolder) -> None:
    assert folder.record.geometry.method == "none"
    assert sum(judged(folder, 500 + seed).verdict is Verdict.OK for seed in range(10)) >= 7


@pytest.mark.parametrize("defect", ["hole", "dent", "stain"])
def test_defects_are_found(folder: CalibrationFolder, defect: str) -> None:
    assert sum(judged(folder, 600 + seed, defect).verdict is Verdict.NG for seed in range(10)) >= 9


def test_the_belt_alone_is_no_sheet_though_it_looks_like_one(folder: CalibrationFolder) -> None:
    """By its score it would pass: the belt is as flat and has the sheet's colours."""
    found = [judged(folder, 700 + seed, "empty") for seed in range(10)]
    assert all(one.verdict is Verdict.NG for one in found)
    assert any(one.reason is Reason.SHAPE_OUT_OF_RANGE and LEVEL_FIGURE in one.detail for one in found)
