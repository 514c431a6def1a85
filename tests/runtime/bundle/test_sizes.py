"""Sizes of a recipe: what calibration, a bundle and a station accept, a frame's message and files can have."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from asperity.runtime.bundle.checks import check_manifest
from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.bundle.sizes import MIN_SIDE_PX, largest_window_px, recipe_frame_fault
from asperity.runtime.errors import BundleError, ConfigError, DataError, WireError
from asperity.runtime.frame import MAX_PIXELS, MAX_SIDE_PX, frame_size_fault
from asperity.runtime.settings.cross_checks import check, check_recipe
from asperity.runtime.settings.station_toml import Sockets, StationConfig
from asperity.runtime.vision.picture_files import decode_tiff, open_png
from asperity.runtime.vision.ransac_dbscan import BORDER_PX
from asperity.runtime.wire.frame import Stream, _check_stream
from tests.bundle_factory import ToyBundle, toy_manifest
from tests.runtime.bundle.refusals import refused
from tests.runtime.vision.written_pictures import SIGNATURE, chunk, png, tiff

TOY = toy_manifest("lsfa")
SIDES = st.one_of(
    st.integers(1, 60),
    st.sampled_from([1, 19, 20, 1024, 4096, 4097, 16_383, 16_384, 16_385, 65_536]),
    st.integers(1, 2**31 - 1),
)


def said(error: type[Exception], door: Callable[[], object]) -> str:
    """What a door says, empty where it lets in."""
    try:
        door()
    except error as refusal:
        return str(refusal)
    return ""


def opened_png(height: int, width: int) -> None:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with open_png(SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT") + chunk(b"IEND")):
        pass


def opened_tiff(height: int, width: int) -> None:
    decode_tiff(tiff(np.zeros((1, 70_000, 3), np.float32), tags={257: height, 256: width}))


def sent(height: int, width: int) -> None:
    nbytes = 3 * height * width
    _check_stream(Stream("rgb", "u1", (height, width, 3), 0, nbytes), nbytes)


@given(SIDES, SIDES)
@example(4096, 4096)
@example(4096, 4097)
@example(1024, 16_384)
@example(20, 16_385)
@example(19, 20)
def test_every_door_knows_the_same_sizes(height: int, width: int) -> None:
    """Files, messages, bundles and stations: what one of them refuses for its size, so do all behind it."""
    limit = "a frame has 1 to 16384 per side and at most 16777216 in total"
    possible = min(height, width) >= 1 and max(height, width) <= MAX_SIDE_PX and height * width <= MAX_PIXELS
    assert possible == (frame_size_fault(height, width) == "")
    doors = [said(WireError, lambda: sent(height, width)), said(DataError, lambda: opened_png(height, width))]
    if max(height, width) < 2**16:
        doors.append(said(DataError, lambda: opened_tiff(height, width)))
    for words in doors:
        assert possible == (limit not in words), words
        assert possible or f"{height} x {width} pixels" in words

    fits = possible and min(height, width) >= MIN_SIDE_PX
    assert fits == (recipe_frame_fault(height, width) == "")
    geometry = replace(TOY.geometry, height_px=height, width_px=width, side_px=20)
    bundle = said(BundleError, lambda: check_manifest(replace(TOY, geometry=geometry)))
    assert fits == (f"{height} x {width} pixels (height x width)" not in bundle), bundle
    if fits:
        check_recipe("toy", geometry, StationConfig())


def test_the_border_of_the_smallest_frame_is_counted_once() -> None:
    assert MIN_SIDE_PX == 2 * BORDER_PX


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height_px": 1, "width_px": 64}, ("1 x 64 pixels", "at least 20 per side")),
        ({"height_px": 1, "width_px": 20_000}, ("1 x 20000 pixels", "1 to 16384 per side")),
        ({"height_px": 5000, "width_px": 5000}, ("5000 x 5000 pixels", "16777216 in total")),
        ({"side_px": 3}, ("geometry.side_px 3", "never be judged")),
        ({"side_px": 101}, ("geometry.side_px 101", "above 100")),
        ({"side_px": 2**31}, ("geometry.side_px 2147483648", "above 100")),
        ({"height_px": 1024, "width_px": 16384, "side_px": 4507}, ("geometry.side_px 4507", "above 4506")),
        ({"min_points": 721}, ("geometry.min_points 721", "24 x 30")),
        ({"cluster_gap_px": 31}, ("geometry.cluster_gap_px 31",)),
        ({"cluster_gap_px": -1}, ("geometry.cluster_gap_px -1",)),
    ],
)
def test_a_size_that_no_recipe_can_have_is_refused_though_signed(
    toy: ToyBundle, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    toy.edit(lambda m: m["geometry"].update(change))
    refused(toy, *words)


@given(st.integers(20, 400), st.integers(20, 400))
def test_the_largest_windows_are_those_of_calibration(height: int, width: int) -> None:
    longest = max(height, width)
    assert largest_window_px(height, width) >= longest
    assert largest_window_px(height, width) <= max(1.1 * longest + 1, longest + 99)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_golden_picture_of_16_bits_is_not_cut_to_8(toy: ToyBundle, bits: int) -> None:
    path = toy.path / "golden" / "rgb" / "near.png"
    pixels = np.full((24, 30, 3), 2**bits - 1, np.uint16)
    path.write_bytes(png(pixels, 2, bits))
    toy.reseal()
    if bits == 16:
        refused(toy, "golden/rgb/near.png has 16 bits per channel")
    else:
        assert len(list(open_bundle(toy.path, toy.trust).golden_frames())) == 5


def station(**sockets: int) -> StationConfig:
    made = StationConfig(sockets=Sockets(**sockets))  # type: ignore[arg-type]
    check(made, "station.toml")
    return made


def test_a_station_whose_limits_let_no_frame_of_the_recipe_in_does_not_open_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Frames of 480 x 640 pixels: colour 921 600 bytes, with depth 1 536 000, xyz 3 686 400, with colour 4 608 000."""
    geometry = replace(TOY.geometry, height_px=480, width_px=640)
    for key, value, words in (
        ("frames_max_nbytes", 921_599, r"at least 921600, so every one would be refused; set it to 3686400 or more"),
        ("frames_message_nbytes", 1_535_999, r"at least 1536000, so every one would be refused; set it to 4640768"),
    ):
        with pytest.raises(ConfigError, match=rf"\[sockets\] {key} is {value}, and frames of recipe toy \(480 x 640"):
            check_recipe("toy", geometry, station(**{key: value}))
        with pytest.raises(ConfigError, match=words):
            check_recipe("toy", geometry, station(**{key: value}))
    assert not caplog.records
    check_recipe("toy", geometry, station(frames_max_nbytes=3_686_399))
    assert "frames of recipe toy (480 x 640 pixels) have 3686400 as xyz: only frames with depth" in caplog.text
    caplog.clear()
    check_recipe("toy", geometry, station(frames_max_nbytes=3_686_400, frames_message_nbytes=4_640_768))
    assert not caplog.records
