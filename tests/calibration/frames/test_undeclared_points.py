"""Folders whose camera writes missing points as numbers: refused with value, share and remedy, or read as declared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from asperity.calibration.calibrate import calibrate
from asperity.calibration.frames.prepare_normals import Normals, prepare_normals
from asperity.calibration.frames.silhouette import learn_shape, refuse_implausible
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import PROFILES, Profile
from asperity.runtime.cameras.replay import ReplayCamera
from asperity.runtime.cli import command_line
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import FloatArray, MissingPoint, Silhouette
from tests.calibration.frames.test_silhouette import STATION, draw
from tests.calibration.tiny_station import no_report, tiny_profile, write_source

__all__ = ["no_report", "tiny_profile"]

FRAMES = 24
OPTIONS = CalibrateOptions(profile="lite", unit="m")
Spoil = Callable[[FloatArray, np.random.Generator], object]


def all_minus_one(points: FloatArray, random: np.random.Generator) -> None:
    points[:] = -1


def far_z(points: FloatArray, random: np.random.Generator) -> None:
    points[:, 2] = -32.768


def zero_z(points: FloatArray, random: np.random.Generator) -> None:
    points[:, 2] = 0


def anywhere(points: FloatArray, random: np.random.Generator) -> None:
    points[:, 2] = random.uniform(-30, 30, len(points))


def nothing(points: FloatArray, random: np.random.Generator) -> None:
    points[:] = np.nan


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "part", FRAMES)


@pytest.fixture
def spoiled(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the source with points spoiled: in ``only`` the first frames, or in all; the same points each time."""

    def make(spoil: Spoil, share: float, only: int = FRAMES) -> Path:
        folder = tmp_path / spoil.__name__
        shutil.copytree(source, folder)
        for index, path in enumerate(sorted(folder.rglob("xyz/*.tiff"))[:only]):
            points = tifffile.imread(path)
            where = np.random.default_rng(index).random(points.shape[:2]) < share
            chosen = points[where]
            spoil(chosen, np.random.default_rng(index))
            points[where] = chosen
            tifffile.imwrite(path, points, photometric="rgb")
        return folder

    return make


def prepared(folder: Path, **changes: object) -> Normals:
    options = msgspec.structs.replace(OPTIONS, **changes)
    return prepare_normals(folder, options, PROFILES["lite"], lambda *_: None)


@pytest.mark.parametrize(
    ("spoil", "value", "option"),
    [
        (all_minus_one, (-1.0, -1.0, -1.0), "-1,-1,-1"),
        (far_z, (None, None, -32.768), "-32.768"),
        (zero_z, (None, None, 0.0), "0"),
    ],
)
@pytest.mark.parametrize("share", [0.005, 0.1])
def test_undeclared_values_are_refused_with_the_remedy_and_declared_ones_are_missing(
    spoiled: Callable[..., Path], spoil: Spoil, value: MissingPoint, option: str, share: float
) -> None:
    folder = spoiled(spoil, share)
    with pytest.raises(CalibrationError) as info:
        prepared(folder)
    words = str(info.value)
    assert f"add --invalid {option};" in words and f"in {FRAMES} of {FRAMES} frames (train/good/000" in words
    assert f"z = {option.rpartition(',')[2]}" in words and "% of the points" in words
    found, expected = prepared(folder, invalid=(value,)), prepared(spoiled(nothing, share))
    assert found.geometry == msgspec.structs.replace(expected.geometry, invalid=(value,))
    for one, other in zip(found.prepared, expected.prepared, strict=True):
        assert one.silhouette == other.silhouette and one.window == other.window
        np.testing.assert_array_equal(one.cloud, other.cloud)
        np.testing.assert_array_equal(one.image, other.image)
    shapes = [one.silhouette for one in found.prepared]
    height = next(r for r in learn_shape(shapes[:16], shapes[16:], found.geometry).ranges if r.figure == "height_mm")
    assert 5 < height.low < height.high < 15


def test_a_single_frame_is_enough(spoiled: Callable[..., Path]) -> None:
    with pytest.raises(CalibrationError, match=rf"in 1 of {FRAMES} frames \(train/good/000\)"):
        prepared(spoiled(far_z, 0.01, only=1))


def test_scattered_points_are_refused_with_their_share(spoiled: Callable[..., Path]) -> None:
    folder = spoiled(anywhere, 0.05, only=3)
    with pytest.raises(CalibrationError, match=rf"up to [45]\.\d\d% of the points lie scattered.* in 3 of {FRAMES}"):
        prepared(folder)
    rest = prepared(folder, exclude=("train/good/000", "train/good/001", "train/good/002"))
    assert len(rest.prepared) == FRAMES - 3


def test_a_calibration_may_be_told_that_every_point_is_measured(spoiled: Callable[..., Path]) -> None:
    found = prepared(spoiled(far_z, 0.005), invalid=())
    assert found.geometry.invalid == () and len(found.prepared) == FRAMES


def test_good_frames_are_never_refused(source: Path) -> None:
    assert prepared(source).geometry.invalid is None


def test_frames_that_cannot_be_used_are_left_to_preparation(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    path = sorted(folder.rglob("xyz/*.tiff"))[0]
    tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)), photometric="rgb")
    assert [one.reason for one in prepared(folder).refused] == ["TOO_FEW_POINTS"]


def test_the_value_is_kept_in_the_record(
    spoiled: Callable[..., Path], tiny_profile: Profile, no_report: None, tmp_path: Path
) -> None:
    """So that the bundle treats the camera's frames alike."""
    options = msgspec.structs.replace(OPTIONS, profile="tiny", method="frozen", invalid=((None, None, -32.768),))
    folder = spoiled(far_z, 0.02)
    record = calibrate(folder, tmp_path / "out", options).record
    assert record.geometry.invalid == record.options.invalid == ((None, None, -32.768),)


def test_replayed_frames_have_no_such_points(spoiled: Callable[..., Path]) -> None:
    folder = spoiled(far_z, 0.02)
    shot = next(iter(ReplayCamera(folder, invalid=((None, None, -32.768),))))
    assert shot.frame.xyz is not None
    assert (shot.frame.xyz[..., 2] >= 0).all() and (shot.frame.xyz == 0).all(axis=2).any()


@pytest.mark.parametrize(
    "command",
    [
        ("calibrate", "SOURCE", "-o", "OUT"),
        ("tune", "SOURCE"),
        ("evaluate", "SOURCE", "--json", "OUT"),
        ("score", "OUT", "SOURCE"),
        ("camera", "replay", "SOURCE"),
    ],
)
def test_every_command_that_reads_folders_takes_the_option(
    command: tuple[str, ...], source: Path, tmp_path: Path
) -> None:
    """A wrong value is named before anything else is done."""
    places = {"SOURCE": str(source), "OUT": str(tmp_path / "out")}
    result = CliRunner().invoke(command_line(), [*(places.get(word, word) for word in command), "--invalid", "-1,2"])
    assert isinstance(result.exception, Exception)
    assert "--invalid '-1,2' has 2 numbers" in str(result.exception)


@pytest.mark.parametrize(("figure", "value"), [("height_mm", 400.0), ("length_mm", 9670.0), ("width_mm", 1e9)])
def test_a_figure_that_no_part_has_is_refused_by_name(figure: str, value: float) -> None:
    shapes = draw(np.random.default_rng(0), 30)
    names = [f"train/good/{index:03}" for index in range(30)]
    refuse_implausible(names, shapes, STATION)
    odd = [*shapes[:7], replace(shapes[7], **{figure: value}), *shapes[8:]]
    with pytest.raises(CalibrationError, match=f"{figure} of 1 of 30 normal frames .train/good/007: "):
        refuse_implausible(names, odd, STATION)
    every = [replace(one, **{figure: value + at}) for at, one in enumerate(shapes)]
    with pytest.raises(CalibrationError, match=f"{figure} of 30 of 30"):
        refuse_implausible(names, every, STATION)
    refuse_implausible(names, odd, msgspec.structs.replace(STATION, invalid=()))


def test_parts_of_different_size_are_plausible() -> None:
    """Sweets, sheets and parts that stand as high as the view is wide."""
    random = np.random.default_rng(1)
    for usual in (0.05, 1.0, 30.0, 120.0):
        shapes = [
            Silhouette(100.0, usual * random.uniform(0.4, 1.2), usual * random.uniform(0.2, 1), usual, 0.0)
            for _ in range(40)
        ]
        refuse_implausible([""] * 40, shapes, STATION)
