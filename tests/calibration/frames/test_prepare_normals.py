"""Sizes of normal frames: what is prepared gives a recipe that a bundle, a station and a camera's message can have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from asperity.calibration.frames.prepare_normals import Normals, prepare_normals
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import PROFILES, network_for
from asperity.runtime.bundle.sizes import geometry_fault
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import CalibrationError, DataError
from asperity.runtime.frame import Frame
from asperity.runtime.settings.cross_checks import check_recipe
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.wire import decode_frame, encode_frame

LITE = PROFILES["lite"]
SESSION = "00000000-0000-4000-8000-000000000000"
Size = tuple[int, int]


def part(height: int, width: int, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A plate that covers this share of each side, 8 mm above a plane; 1 mm a pixel, in metres."""
    noise = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(float)
    inside = np.maximum(np.abs(rows / height - 0.5), np.abs(columns / width - 0.5)) < share / 2
    z = 400 - 8.0 * inside + noise.normal(scale=0.03, size=(height, width))
    xyz = np.stack([columns - width / 2, rows - height / 2, z], axis=2) / 1000
    return noise.integers(0, 256, (height, width, 3), dtype=np.uint8), xyz.astype(np.float32)


def prepared(folder: Path, sizes: list[Size], share: float = 0.6, **options: object) -> Normals:
    for index, (height, width) in enumerate(sizes):
        write_frame(folder / "train/good", f"{index:03d}", *part(height, width, index, share))
    return prepare_normals(folder, CalibrateOptions(unit="m", **options), LITE, lambda *told: None)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.4, 0.6, 1.0]), st.sampled_from(["auto", "none"]))
@example(1, 64, 1.0, "none")
@example(64, 1, 1.0, "none")
@example(19, 19, 0.6, "auto")
@example(20, 20, 1.0, "none")
@example(33, 47, 0.6, "auto")
def test_what_calibration_takes_every_other_door_takes(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, share: float, method: str
) -> None:
    folder = tmp_path_factory.mktemp("size")
    try:
        normals = prepared(folder, [(height, width)] * 4, share, geometry=method)
    except CalibrationError as error:
        small = min(height, width) < 20
        assert ("at least 20 per side" in str(error) and f"{height} x {width}" in str(error)) == small, error
        return
    geometry = normals.geometry
    network = network_for(LITE, geometry, "none")
    assert geometry_fault(geometry, network) == ""
    check_recipe("made", geometry, StationConfig())
    rgb, xyz = part(height, width, 0, share)
    frame = decode_frame(encode_frame(Frame("c", SESSION, 1, rgb, xyz, unit="m")))
    np.testing.assert_array_equal(prepare(frame, geometry, network).image, normals.prepared[0].image)


@pytest.mark.parametrize("method", ["auto", "plane", "none"])
@pytest.mark.parametrize("odd", [0, 7, 11])
def test_frames_of_two_sizes_are_refused_by_name_wherever_the_other_one_is(
    tmp_path: Path, method: str, odd: int
) -> None:
    sizes = [(64, 64)] * 12
    sizes[odd] = (48, 64)
    with pytest.raises(DataError) as refusal:
        prepared(tmp_path, sizes, geometry=method)
    words = str(refusal.value)
    assert "64 x 48" in words and "64 x 64" in words and "--exclude" in words
    assert f"train/good/{odd or 1:03d} is" in words and "train/good/000 is" in words
    left = prepare_normals(
        tmp_path, CalibrateOptions(unit="m", geometry=method, exclude=(f"train/good/{odd:03d}",)), LITE,
        lambda *told: None,
    )  # type: ignore[arg-type]  # fmt: skip
    assert len(left.items) == 11


@pytest.mark.parametrize("share", [0.18, 0.4, 0.6, 0.9])
def test_every_patch_within_a_part_of_few_pixels_is_judged(tmp_path: Path, share: float) -> None:
    """In a window only just around the part there would be more cells than pixels, and patches with an empty cell."""
    normals = prepared(tmp_path, [(64, 64)] * 12, share, geometry="plane" if share < 0.9 else "auto")
    assert normals.geometry.side_px == LITE.cloud_px
    for one in normals.prepared:
        there = (one.cloud != 0).any(axis=2)
        rows, columns = there.any(axis=1), there.any(axis=0)
        assert there[np.ix_(rows, columns)].all(), "a cell within the part is empty"


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.eye(32, 64, dtype=np.uint8), "--ignore-mask is 64 x 32 pixels and the frames are 64 x 64"),
        (np.full((64, 64), 1, np.uint8), "has no zero pixel"),
        (np.full((64, 64), 300, np.uint16), "has 16 bits per channel"),
        (np.full((64, 64, 4), 100, np.uint8), "transparent"),
    ],
)
def test_a_mask_of_another_size_depth_or_form_is_refused(tmp_path: Path, mask: np.ndarray, words: str) -> None:
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "frames", [(64, 64)] * 12, ignore_mask=str(tmp_path / "mask.png"))


@pytest.mark.parametrize("form", ["1", "255", "RGB", "bits"])
def test_a_mask_of_any_form_means_the_same(tmp_path: Path, form: str) -> None:
    hidden = np.zeros((64, 64), bool)
    hidden[:, 40:] = True
    picture = {
        "1": Image.fromarray(hidden.astype(np.uint8)),
        "255": Image.fromarray(hidden.astype(np.uint8) * 255),
        "RGB": Image.fromarray(hidden[..., None] * np.array([0, 0, 7], np.uint8)),
        "bits": Image.fromarray(hidden),
    }[form]
    picture.save(tmp_path / "mask.png")
    normals = prepared(tmp_path / "frames", [(64, 64)] * 12, ignore_mask=str(tmp_path / "mask.png"))
    assert normals.masks.ignore is not None
    np.testing.assert_array_equal(normals.masks.ignore, hidden)
