"""The whole flow on a tiny station: what it writes, what it refuses, and that its numbers can be had again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from asperity.calibration import calibrate as calibrate_module
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.calibrate import calibrate
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import Profile
from asperity.calibration.record import CalibrationFolder, load_folder
from asperity.calibration.tuning.smallest_defect import smallest_defects
from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.samples import read_sample
from asperity.runtime.cameras.mvtec_files import read_frame
from asperity.runtime.errors import CalibrationError, DataError, UsageError
from asperity.runtime.frame import Frame
from asperity.runtime.vision.distances import measure
from asperity.runtime.vision.features import adapted_patches, frozen_patches
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.scoring import fused_score
from asperity.runtime.vision.tiles import of_window
from tests.calibration.tiny_station import SIZE_PX, TINY, build_tiny, no_report, part, tiny_profile, write_source

__all__ = ["no_report", "tiny_profile"]

FROZEN = CalibrateOptions(profile="tiny", method="frozen", unit="m")


@dataclass
class Calibrated:
    """A calibration, where it was written, and the stages that its progress named."""

    folder: CalibrationFolder
    out: Path
    stages: set[str]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "Dome Part", 40)


@pytest.fixture(scope="module")
def whole(source: Path, tiny_profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    """One calibration with its report, for all who only look."""
    stages: set[str] = set()
    out = tmp_path_factory.mktemp("whole")
    return Calibrated(calibrate(source, out, FROZEN, lambda stage, done, total: stages.add(stage)), out, stages)


def score_again(folder: CalibrationFolder, frame: Frame) -> float:
    """From the folder's files alone, by the runtime's functions."""
    record = folder.record
    networks = build_tiny(TINY)
    networks.load(folder.networks_path)
    prepared = prepare(frame, record.geometry, record.network)
    patches = adapted_patches(frozen_patches(prepared, record.network, networks), record.network, networks)
    banks = folder.banks()
    scored = measure(patches, prepared.inspect, banks)
    return fused_score(scored[0], record.decision)


def golden_frame(folder: CalibrationFolder, name: str) -> Frame:
    return read_frame(*folder.golden_paths(name), unit=folder.record.geometry.unit)


def test_the_folder_is_whole_and_its_numbers_can_be_had_again(whole: Calibrated):
    folder = load_folder(whole.out / "calibration")
    record, decision = folder.record, folder.record.decision
    assert record == whole.folder.record
    assert record.recipe == "dome-part"
    assert record.normal_frames == {"fit": 26, "tune": 4, "calibrate": 10, "refused": 0, "excluded": 0}
    assert decision.threshold == max(decision.calibration_scores)
    assert decision.alpha_total == pytest.approx(1 / 11)
    assert "lowest rate that 10 can give" in record.false_rejects.statement
    assert {"geometry", "prepare", "patches", "rgb bank", "points bank", "scores"} <= whole.stages

    banks = folder.banks()
    assert banks["rgb"].memory.rows.shape == (decision.modalities()["rgb"].bank_rows, TINY.rgb_channels)
    assert banks["points"].memory.rows.shape == (decision.modalities()["points"].bank_rows, TINY.points_channels)
    inputs = folder.calibration_inputs()
    assert inputs["image"].shape == (10, TINY.image_px, TINY.image_px, 3)
    np.testing.assert_allclose(sorted(inputs["scores"]), decision.calibration_scores, rtol=1e-6)

    assert sorted(golden.kind for golden in record.golden).count("normal") >= 2
    for golden in record.golden:
        assert score_again(folder, golden_frame(folder, golden.name)) == pytest.approx(golden.score, rel=1e-9)
    near = next(golden for golden in record.golden if golden.kind == "near")
    others = [abs(golden.score - decision.threshold) for golden in record.golden if golden.kind == "normal"]
    assert 2 * record.golden_tolerance < abs(near.score - decision.threshold) <= min(others)
    assert folder.report_path.is_file()
    assert not [path for path in whole.out.iterdir() if path.name.startswith(".")]


def test_a_bump_scores_above_the_threshold_and_a_further_good_part_does_not(whole: Calibrated):
    folder = whole.folder

    def score(seed: int, bump_mm: float) -> float:
        rgb, xyz = part(seed, bump_mm=bump_mm)
        return score_again(folder, Frame("c", "s", 0, rgb, xyz=xyz, unit="m"))

    good = [score(seed, 0.0) for seed in range(500, 510)]
    bad = [score(seed, 4.0) for seed in range(500, 510)]
    limit = folder.record.decision.threshold
    assert sum(value > limit for value in good) <= 3
    assert sum(value > limit for value in bad) >= 9


@pytest.mark.usefixtures("tiny_profile")
def test_a_window_of_tiles_is_calibrated_and_states_the_smallest_defect(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibrate_module, "smallest_defects", partial(smallest_defects, places=8))
    folder = calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, tiles=2, smallest_defect=True))
    record, window = folder.record, of_window(folder.record.network)
    assert record.network.tiles == 2 and (record.network.grid, window.grid) == (TINY.grid, 15)
    assert record.geometry.side_px >= window.cloud_px
    inputs = folder.calibration_inputs()
    assert inputs["image"].shape[1:] == (window.image_px, window.image_px, 3)
    assert inputs["inspect"].shape[1:] == (15, 15)
    for golden in record.golden:
        assert score_again(folder, golden_frame(folder, golden.name)) == pytest.approx(golden.score, rel=1e-9)
    found = {one.kind: one for one in record.smallest_defects}
    assert set(found) == {"bump", "dent", "scratch", "hole", "stain"}
    half = found["hole"].half_mm
    assert half is not None and 0 < half <= found["hole"].largest_mm
    assert "smallest defect this station sees" in folder.report_path.read_text()


def test_tiles_that_cannot_be_are_refused_before_any_work(source: Path, tmp_path: Path):
    for change, why in (({"tiles": 9}, "1 to 4"), ({"tiles": 2, "method": "lsfa"}, "--method frozen"),
                        ({"tiles": 2, "profile": "paper"}, "published form")):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, **{"profile": "lite", **change}))


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_equal_seeds_give_equal_numbers(source: Path, whole: Calibrated, tmp_path: Path):
    once = whole.folder
    again = calibrate(source, tmp_path / "b", FROZEN)
    assert once.record.decision == again.record.decision
    assert (once.banks()["rgb"].memory.rows == again.banks()["rgb"].memory.rows).all()
    other = calibrate(source, tmp_path / "c", msgspec.structs.replace(FROZEN, seed=1))
    assert other.record.decision != once.record.decision


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_adapted_features_go_the_whole_way(source: Path, tmp_path: Path):
    training = AdaptationConfig(epochs=1, queue_rows=64, query_patches=16, start="default")
    folder = calibrate(source, tmp_path, CalibrateOptions(profile="tiny", unit="m"), adaptation=training)
    record = folder.record
    assert record.network.adaptor == "lsfa"
    assert record.network.points_slots == 64
    assert record.adaptation["steps"] == 3
    assert any(key.startswith("adaptor_points.") for key in load_file(folder.networks_path))
    for golden in record.golden:
        assert score_again(folder, golden_frame(folder, golden.name)) == pytest.approx(golden.score, rel=1e-9)


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_refused_repeated_and_excluded_frames_are_named_and_counted(tmp_path: Path):
    nothing = part(3, height_mm=-1.5)[0], part(3, height_mm=-1.5)[1]
    flat = nothing[1].copy()
    flat[..., 2] = 0.4
    spoil = {5: lambda: (nothing[0], flat), 9: lambda: part(2)}
    source = write_source(tmp_path / "source", 42, spoil=spoil)
    options = msgspec.structs.replace(FROZEN, exclude=("train/good/000",))
    record = calibrate(source, tmp_path / "out", options).record
    told = {refused.name: refused.reason for refused in record.refused}
    assert told == {"train/good/005": "TOO_FEW_POINTS", "train/good/009": "FROZEN_IMAGE"}
    assert record.normal_frames["refused"] == 2
    assert record.normal_frames["excluded"] == 1
    assert sum(record.normal_frames[name] for name in ("fit", "tune", "calibrate")) == 39
    assert not {"train/good/000", *told} & {frame.name for frame in record.frames}


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_masks_are_stored_and_keep_patches_out_of_the_banks(source: Path, whole: Calibrated, tmp_path: Path):
    mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    mask[:, : SIZE_PX // 2] = 255
    Image.fromarray(mask).save(tmp_path / "left.png")
    half = calibrate(source, tmp_path / "half", msgspec.structs.replace(FROZEN, ignore_mask=str(tmp_path / "left.png")))
    assert half.record.geometry.ignore_mask == "masks/ignore.png"
    assert (np.asarray(Image.open(half.mask_paths()["masks/ignore.png"])) == mask).all()
    assert not half.calibration_inputs()["inspect"].all()
    assert whole.folder.calibration_inputs()["inspect"].all()
    assert not (whole.folder.path / "masks").exists()

    Image.fromarray(mask[:10]).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"--ignore-mask is 64 x 10 pixels"):
        calibrate(source, tmp_path / "no", msgspec.structs.replace(FROZEN, ignore_mask=str(tmp_path / "small.png")))


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_leave_one_out_judges_every_frame_without_its_own_rows(source: Path, tmp_path: Path):
    record = calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, held_out="leave_one_out")).record
    assert record.normal_frames["calibrate"] == record.normal_frames["fit"] == 36
    assert len(record.decision.calibration_scores) == 36
    assert min(record.decision.calibration_scores) > -100
    assert "no bound is proven" in record.false_rejects.statement
    fit = [frame for frame in record.frames if frame.split == "fit"]
    assert all(min(frame.image_distances.values()) > 0 for frame in fit)


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_views_of_the_fit_frames_enlarge_the_banks_and_decide_nothing_else(
    source: Path, whole: Calibrated, tmp_path: Path
):
    record = calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, views=2)).record
    assert record.decision.points is not None and whole.folder.record.decision.points is not None
    plain, more = whole.folder.record.decision.points, record.decision.points
    assert more.bank_rows > plain.bank_rows and more.feature_mean != plain.feature_mean
    assert record.normal_frames == whole.folder.record.normal_frames
    assert len(record.decision.calibration_scores) == len(whole.folder.record.decision.calibration_scores)
    assert all(frame.image_distances["points"] > 0 for frame in record.frames if frame.split == "fit")


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_too_little_is_refused_before_anything_is_computed(source: Path, tmp_path: Path):
    stages = set()

    def remember(stage: str, done: int, total: int) -> None:
        stages.add(stage)

    with pytest.raises(CalibrationError, match="99 calibration frames"):
        calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, alpha=0.01), remember)
    with pytest.raises(CalibrationError, match="12 usable normal frames are too few"):
        calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, limit=12), remember)
    assert "patches" not in stages
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tiny_profile", "no_report")
def test_an_earlier_calibration_is_replaced_only_by_force_and_survives_a_failure(source: Path, tmp_path: Path):
    folder = calibrate(source, tmp_path, FROZEN)
    with pytest.raises(UsageError, match="--force"):
        calibrate(source, tmp_path, FROZEN)
    with pytest.raises(CalibrationError):
        calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, alpha=0.001), force=True)
    assert load_folder(folder.path).record == folder.record
    replaced = calibrate(source, tmp_path, msgspec.structs.replace(FROZEN, seed=5), force=True)
    assert load_folder(folder.path).record == replaced.record != folder.record
    (tmp_path / "x" / "calibration").mkdir(parents=True)
    with pytest.raises(UsageError, match="is not a calibration"):
        calibrate(source, tmp_path / "x", FROZEN, force=True)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"profile": "huge"}, "--profile"), ({"alpha": 1.5}, "--alpha 1.5"), ({"limit": 0}, "--limit 0"),
        ({"strangest": -1}, "--strangest"), ({"views": 9}, "--views 9"), ({"device": "abacus"}, "--device abacus"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_right_are_usage_errors(change: dict[str, object], names: str, tmp_path: Path):
    with pytest.raises(UsageError, match=names):
        calibrate(tmp_path, tmp_path / "out", msgspec.structs.replace(CalibrateOptions(), **change))


def test_a_source_that_is_none_and_an_unfinished_folder_are_data_errors(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere"):
        calibrate(tmp_path / "nowhere", tmp_path / "out", CalibrateOptions())
    with pytest.raises(DataError, match="calibrate into"):
        load_folder(tmp_path)
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(DataError, match="not a calibration record"):
        load_folder(tmp_path)


@pytest.mark.usefixtures("no_report")
def test_depth_pictures_are_calibrated_as_depth_and_kept_as_points(
    source: Path, tiny_profile: Profile, tmp_path: Path
) -> None:
    """Golden frames are points in the geometry's unit, and score as the depth picture that they were."""
    frames = tmp_path / "frames"
    for kind in ("rgb", "depth"):
        (frames / kind).mkdir(parents=True)
    lens = {"fx": 400.0, "fy": 400.0, "cx": 32.0, "cy": 32.0, "width": 64, "height": 64}
    said = lens | {"unit": "mm", "scale": 0.01, "invalid": 65535}
    (frames / "intrinsics.json").write_text(json.dumps(said))
    for sample in list_samples(source):
        depth = np.round(read_sample(sample).xyz[..., 2] * 1e5).astype(np.uint16)  # type: ignore[index]
        depth[0, :3] = 65535
        Image.fromarray(depth).save(frames / "depth" / f"{Path(sample.name).name}.png")
        shutil.copy(sample.rgb, frames / "rgb" / f"{Path(sample.name).name}.png")
    folder = calibrate(frames, tmp_path, msgspec.structs.replace(FROZEN, unit=None))
    assert folder.record.geometry.unit == "mm" and folder.record.normal_frames["refused"] == 0
    by_name = {sample.name: sample for sample in list_samples(frames)}
    for golden in folder.record.golden:
        kept, measured = golden_frame(folder, golden.name), read_sample(by_name[golden.source_name])
        assert kept.xyz is not None and measured.depth is not None and not kept.xyz[0, :3].any()
        assert score_again(folder, kept) == pytest.approx(golden.score, abs=1e-3)
        assert score_again(folder, measured) == pytest.approx(golden.score, rel=1e-9)
