"""Frames added to a calibration: what is used again, what is refused, and what is said of the promise."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from asperity.calibration import refit as refit_module
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.calibrate import calibrate
from asperity.calibration.features import embedding
from asperity.calibration.frames.split import split_further
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import Profile
from asperity.calibration.record import CalibrationFolder, load_folder
from asperity.calibration.refit import refit
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import CalibrationError, DataError, UsageError
from asperity.runtime.vision.scoring import conformal_threshold
from tests.calibration.test_calibrate import golden_frame, score_again
from tests.calibration.tiny_station import build_tiny, no_report, part, tiny_profile, write_source

__all__ = ["no_report", "tiny_profile"]

FROZEN = CalibrateOptions(profile="tiny", method="frozen", unit="m", strangest=0)
EARLIER, LATER = 24, 16


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch, no_report: None) -> None:
    def restore(profile: Profile, path: Path, *_: object, **__: object) -> object:
        networks = build_tiny(profile)
        networks.load(path)
        return networks

    monkeypatch.setattr(refit_module, "restore", restore)
    monkeypatch.setattr(refit_module, "write_report", lambda outcome, record, folder: None)


@pytest.fixture(scope="module")
def earlier(tiny_profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> CalibrationFolder:
    source = write_source(tmp_path_factory.mktemp("earlier") / "dome", EARLIER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asperity.calibration.calibrate.write_report", lambda outcome, record, folder: None)
        return calibrate(source, tmp_path_factory.mktemp("out"), FROZEN)


def bare(folder: Path, seeds: range | list[int], change=lambda rgb, xyz: (rgb, xyz)) -> Path:
    for seed in seeds:
        write_frame(folder, f"{seed:03d}", *change(*part(seed)))
    return folder


@pytest.fixture
def later(tmp_path: Path) -> Path:
    return bare(tmp_path / "week 2", range(100, 100 + LATER))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_later_frames_are_added_and_the_earlier_ones_used_again(
    earlier: CalibrationFolder, later: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before, computed = digests(earlier.path), []
    frozen_patches = embedding.frozen_patches
    monkeypatch.setattr(embedding, "frozen_patches", lambda *given: computed.append(1) or frozen_patches(*given))
    folder = refit(earlier.path, later, tmp_path / "out", unselected=True, exclude=["107"])
    assert digests(earlier.path) == before
    record, old = folder.record, earlier.record
    assert record.refit is not None
    assert (record.refit.kept, record.refit.added, record.refit.patches_reused) == (EARLIER, LATER - 1, EARLIER)
    assert len(computed) == LATER - 1
    assert record.normal_frames == {"fit": 25, "tune": 4, "calibrate": 10, "refused": 0, "excluded": 1}
    assert record.options.exclude == ("week 2/107",)
    assert (record.geometry, record.network, record.recipe) == (old.geometry, old.network, old.recipe)
    assert record.refit.earlier == old.false_rejects
    assert record.refit.judged_earlier == LATER - 1
    assert old.false_rejects.alpha_total == pytest.approx(1 / 7)
    assert record.false_rejects.alpha_total == pytest.approx(1 / 11)
    assert "excluded by a person" in record.false_rejects.statement
    roles = {one.name: one.split for one in record.frames}
    assert {one.name: roles.get(one.name, "fit") for one in old.frames} == {one.name: one.split for one in old.frames}
    assert any(name.startswith("week 2/") and role == "calibrate" for name, role in roles.items())
    assert sorted(one.kind for one in record.golden).count("normal") >= 2
    for golden in record.golden:
        assert score_again(folder, golden_frame(folder, golden.name)) == pytest.approx(golden.score, rel=1e-6)

    # And once more, from what this one kept.
    third = refit(
        folder.path, bare(tmp_path / "week 3", range(200, 210)), tmp_path / "again", unselected=True,
        exclude_earlier=["101"],
    )  # fmt: skip
    assert sum(third.record.normal_frames[name] for name in ("fit", "tune", "calibrate")) == EARLIER + LATER - 2 + 10
    assert third.record.options.exclude == ("week 2/107", "week 2/101")


def test_without_the_kept_patches_the_numbers_are_the_same(earlier: CalibrationFolder, later: Path, tmp_path: Path):
    whole = refit(earlier.path, later, tmp_path / "a", unselected=True)
    for path in (whole.path / "kept").glob("*.f32"):
        path.unlink()
    more = bare(tmp_path / "more", range(300, 304))
    without = refit(whole.path, more, tmp_path / "b", unselected=True).record
    assert without.refit is not None
    assert without.refit.patches_reused == 0
    again = refit(earlier.path, later, tmp_path / "c", unselected=True)
    kept = refit(again.path, more, tmp_path / "d", unselected=True).record
    assert kept.refit is not None
    assert kept.refit.patches_reused == EARLIER + LATER
    assert kept.decision == without.decision


def test_nobody_may_have_chosen_the_later_frames(earlier: CalibrationFolder, later: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="not only those that were accepted"):
        refit(earlier.path, later, tmp_path / "out", unselected=False)
    with pytest.raises(UsageError, match="stays as it is"):
        refit(earlier.path, later, earlier.path.parent, unselected=True, force=True)


def moved(rgb: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rgb, xyz + np.float32([0, 0, 0.05])


def smaller(rgb: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rgb[:60], xyz[:60]


def in_mm(rgb: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rgb, xyz * np.float32(1000)


def with_sentinels(rgb: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    xyz = xyz.copy()
    xyz[:12, :12] = -1
    return rgb, xyz


@pytest.mark.parametrize(
    ("change", "seeds", "words"),
    [
        (with_sentinels, range(100, 104), "calibrate again, from all frames and with --invalid -1,-1,-1"),
        (moved, range(100, 110), "CAMERA_MOVED"),
        (smaller, range(100, 110), "64 x 60 pixels and the earlier frames are 64 x 64"),
        (in_mm, range(100, 110), "another unit"),
        (lambda rgb, xyz: (rgb, xyz), range(10), "repeat another one to the last bit"),
    ],
)
def test_frames_of_another_station_and_the_same_ones_again_are_refused(
    earlier: CalibrationFolder, tmp_path: Path, change, seeds: range, words: str
):
    with pytest.raises(CalibrationError, match=words):
        refit(earlier.path, bare(tmp_path / "other", seeds, change), tmp_path / "out", unselected=True)
    assert not (tmp_path / "out" / "calibration").exists()


def test_what_was_kept_must_belong_to_the_calibration(earlier: CalibrationFolder, later: Path, tmp_path: Path):
    whole = refit(earlier.path, later, tmp_path / "out", unselected=True)
    more = bare(tmp_path / "more", range(300, 304))
    record = whole.path / "calibration.json"
    told = msgspec.json.decode(record.read_bytes())
    told["geometry"]["plane_cut_mm"] += 1
    record.write_bytes(msgspec.json.encode(told))
    with pytest.raises(DataError, match="other networks, options or geometry"):
        refit(whole.path, more, tmp_path / "b", unselected=True)
    for path in (whole.path / "kept").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="keeps no frames"):
        refit(whole.path, more, tmp_path / "b", unselected=True)


def test_patches_of_other_networks_are_not_used(
    earlier: CalibrationFolder, later: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    frozen_patches = refit_module.frozen_patches

    def other(*given):
        found = frozen_patches(*given)
        return type(found)({**found.features, "rgb": found.features["rgb"] * 1.01}, found.nonempty)

    monkeypatch.setattr(refit_module, "frozen_patches", other)
    with pytest.raises(CalibrationError, match="cannot be made again"):
        refit(earlier.path, later, tmp_path / "out", unselected=True)


def test_excluding_a_calibration_frame_changes_what_is_promised(
    earlier: CalibrationFolder, later: Path, tmp_path: Path
):
    calibrated = next(one.name for one in earlier.record.frames if one.split == "calibrate")
    record = refit(earlier.path, later, tmp_path / "out", unselected=True, exclude_earlier=[calibrated]).record
    assert record.refit is not None
    rejects = record.false_rejects
    assert rejects.excluded_calibrate == record.refit.excluded_calibrate == (calibrated,)
    assert calibrated not in {one.name for one in record.frames}
    assert rejects.alpha_if_good == pytest.approx(2 / (rejects.frames + 2))
    assert f"{calibrated} had served to calibrate" in rejects.statement
    with pytest.raises(DataError, match="names no one frame"):
        refit(earlier.path, later, tmp_path / "b", unselected=True, exclude_earlier=["999"])
    assert load_folder(earlier.path).record.false_rejects.excluded == 0


def test_roles_stay_and_shares_come_out_again():
    roles = ["fit"] * 13 + ["tune"] * 3 + ["calibrate"] * 5
    ids = [str(i) for i in range(21)]
    found = split_further([*ids, *(f"n{i}" for i in range(60)), "3", "20"], [*roles, *[None] * 62])
    assert list(found[:21]) == roles
    assert found[-2:] == ("fit", "calibrate")
    assert [found.count(name) for name in ("fit", "tune", "calibrate")] == [52 + 1, 8, 21 + 1]


@pytest.mark.parametrize(("accepted_only", "holds"), [(False, True), (True, False)])
def test_frames_chosen_by_their_verdict_break_the_promise(accepted_only: bool, holds: bool):
    """The reason for ``unselected``, on plain numbers; the second row is the control that must fail."""
    rng = np.random.default_rng(5)
    rates = []
    for _ in range(800):
        scores = list(rng.normal(size=19))
        for _ in range(3):
            limit = conformal_threshold(scores, 0.05)
            further = rng.normal(size=20)
            scores += list(further[further <= limit] if accepted_only else further)
        rates.append(np.mean(rng.normal(size=2000) > conformal_threshold(scores, 0.05)))
    allowed = np.floor(0.05 * (len(scores) + 1)) / (len(scores) + 1)
    assert (np.mean(rates) < allowed + 0.005) == holds


def test_adaptors_stay_as_they_were_trained(tiny_profile: Profile, later: Path, tmp_path: Path):
    training = AdaptationConfig(epochs=1, queue_rows=64, query_patches=16, start="default")
    options = CalibrateOptions(profile="tiny", unit="m", strangest=0)
    source = write_source(tmp_path / "dome", EARLIER)
    before = calibrate(source, tmp_path / "before", options, adaptation=training)
    after = refit(before.path, later, tmp_path / "after", unselected=True)
    assert after.record.network == before.record.network
    assert after.record.network.adaptor == "lsfa"
    assert after.record.adaptation == before.record.adaptation != {}
    assert after.networks_path.read_bytes() == before.networks_path.read_bytes()
    for golden in after.record.golden:
        assert score_again(after, golden_frame(after, golden.name)) == pytest.approx(golden.score, rel=1e-6)
