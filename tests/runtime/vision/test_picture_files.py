"""Every form of PNG and TIFF: read with its exact values or refused with a sentence, never cut, filled up or turned."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asperity.runtime.cameras.files.pictures import read_mask, read_rgb, read_xyz
from asperity.runtime.cameras.mvtec_files import read_frame, write_frame
from asperity.runtime.errors import DataError
from asperity.runtime.frame import Frame
from asperity.runtime.vision import picture_files
from asperity.runtime.vision.digest import frame_digest
from asperity.runtime.vision.picture_files import decode_tiff, open_png
from asperity.runtime.wire import decode_frame, encode_frame
from tests.runtime.vision.written_pictures import (
    GREY,
    GREY8,
    NOISE,
    PNG_ROWS,
    RGB,
    RGB8,
    SIGNATURE,
    TIFF_ROWS,
    chunk,
    png,
    stored,
)


@pytest.mark.parametrize(("name", "data", "expected"), PNG_ROWS, ids=[row[0] for row in PNG_ROWS])
def test_a_picture_has_exactly_these_values_or_is_refused(
    tmp_path: Path, name: str, data: bytes, expected: np.ndarray | str
) -> None:
    path = tmp_path / "0.png"
    path.write_bytes(data)
    if isinstance(expected, str):
        for read in (read_rgb, read_mask):
            with pytest.raises(DataError, match=re.escape(expected)) as refused:
                read(path)
            assert str(path) in str(refused.value) and "PNG" in str(refused.value)
        return
    found = read_rgb(path)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_mask(path), expected.any(axis=2))


def test_a_depth_picture_keeps_its_16_bits_and_no_other_depth_is_taken_for_it() -> None:
    deep = stored(GREY, 16)
    with open_png(png(deep, GREY, 16), bits=(16,)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), deep[..., 0])
    with (
        pytest.raises(DataError, match="has 8 bits per channel; 16 bits are read here"),
        open_png(png(GREY8, GREY, 8), bits=(16,)),
    ):
        pass


@pytest.mark.parametrize(("name", "data", "expected"), TIFF_ROWS, ids=[row[0] for row in TIFF_ROWS])
def test_a_cloud_has_exactly_these_values_or_is_refused(
    tmp_path: Path, name: str, data: bytes, expected: np.ndarray | str
) -> None:
    path = tmp_path / "0.tiff"
    path.write_bytes(data)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_xyz(path)
        return
    found = read_xyz(path)
    assert found.dtype.isnative and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [row[0] for row in PNG_ROWS if not isinstance(row[2], str)])
def test_a_frame_is_the_same_from_a_folder_and_from_the_wire(tmp_path: Path, name: str) -> None:
    """What is calibrated on and scored from files is bit for bit what a camera's message of these values gives."""
    data, colours = next((data, expected) for row, data, expected in PNG_ROWS if row == name)
    assert isinstance(colours, np.ndarray)
    xyz = NOISE.normal(size=colours.shape).astype(np.float32)
    write_frame(tmp_path, "0", np.ascontiguousarray(colours), xyz)
    (tmp_path / "made.png").write_bytes(data)
    recorded = read_frame(tmp_path / "made.png", tmp_path / "xyz/0.tiff", unit="m")
    written = read_frame(tmp_path / "rgb/0.png", tmp_path / "xyz/0.tiff", unit="m")
    session = "00000000-0000-4000-8000-000000000000"
    sent = Frame(camera="c", camera_session=session, seq=1, rgb=np.ascontiguousarray(colours), xyz=xyz, unit="m")
    received = decode_frame(encode_frame(sent))
    for frame in (recorded, written):
        np.testing.assert_array_equal(frame.rgb, received.rgb)
        np.testing.assert_array_equal(frame.xyz, received.xyz)
        assert frame_digest(frame) == frame_digest(received)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (1, 17_000, 3)])
def test_a_frame_that_could_not_be_read_is_not_written(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match=f"frame 0 is {shape[0]} x {shape[1]} pixels"):
        write_frame(tmp_path, "0", np.zeros(shape, np.uint8), np.zeros(shape, np.float32))
    assert not list(tmp_path.iterdir())


def test_a_picture_of_very_many_chunks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "MAX_CHUNKS", 100)
    with (
        pytest.raises(DataError, match="has more than 100 chunks"),
        open_png(png(RGB8, RGB, 8, *[chunk(b"tEXt")] * 100)),
    ):
        pass


def test_a_picture_that_inflates_beyond_its_size_is_refused() -> None:
    bomb = png(RGB8, RGB, 8, pixels=bytes(2**26))
    with pytest.raises(DataError, match="its pixels have more than 110 bytes"), open_png(bomb):
        pass


def pixels_of(data: bytes) -> np.ndarray:
    with open_png(data) as picture:
        return np.asarray(picture.convert("RGBA"))[..., :3]


def damaged(draw: Callable[[st.SearchStrategy[Any]], Any], whole: bytes) -> bytes:
    """A few bytes changed, a piece removed or put in, or the end cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        piece = draw(st.binary(min_size=1, max_size=6))
        kind = draw(st.sampled_from(["change", "insert", "remove", "cut"]))
        data[at : at + {"change": len(piece), "insert": 0, "remove": 6, "cut": len(data)}[kind]] = (
            piece if kind in ("change", "insert") else b""
        )
    return bytes(data)


WHOLE_PNGS = [data for _, data, expected in PNG_ROWS if not isinstance(expected, str)]
WHOLE_TIFFS = [data for _, data, expected in TIFF_ROWS if not isinstance(expected, str)]


@given(st.data())
def test_a_damaged_picture_is_refused_or_whole(data: st.DataObject) -> None:
    """Each byte of it is under a checksum, so what is read is what was written."""
    whole = data.draw(st.sampled_from(WHOLE_PNGS))
    try:
        found = pixels_of(damaged(data.draw, whole))
    except DataError:
        return
    np.testing.assert_array_equal(found, pixels_of(whole))


@given(st.data())
def test_chunks_made_to_harm_are_read_at_their_declared_size_or_refused(data: st.DataObject) -> None:
    """Checksums are no secret: whatever the chunks hold, what is read has the size that they declare."""
    width, height = (data.draw(st.integers(0, 40)) for _ in range(2))
    head = struct.pack(
        ">IIBBBBB", width, height, data.draw(st.sampled_from([1, 2, 4, 8, 16, 3])), data.draw(st.integers(0, 7)),
        *(data.draw(st.sampled_from([0, 0, 0, 1])) for _ in range(3)),
    )  # fmt: skip
    names = st.sampled_from([b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"sBIT", b"gAMA", b"pHYs", b"fdAT"])
    extra = data.draw(st.lists(st.tuples(names, st.binary(max_size=60)), max_size=4))
    raw = data.draw(st.one_of(st.binary(max_size=300), st.just(bytes(height * (1 + width * 4)))))
    body = b"".join(chunk(*each) for each in extra) + chunk(b"IDAT", zlib.compress(raw))
    try:
        found = pixels_of(SIGNATURE + chunk(b"IHDR", head) + body + chunk(b"IEND"))
    except DataError:
        return
    assert found.shape == (height, width, 3)


@given(st.data())
def test_a_damaged_cloud_is_refused_or_read_within_a_frames_size(data: st.DataObject) -> None:
    """A TIFF has no checksum: values may be others, but nothing but DataError is raised, and nothing grows."""
    whole = data.draw(st.sampled_from(WHOLE_TIFFS))
    try:
        found = decode_tiff(damaged(data.draw, whole))
    except DataError:
        return
    assert found.nbytes < 2**20


def test_pillow_reads_what_the_hand_wrote() -> None:
    """The pictures above are pictures: another decoder sees the same in them."""
    for _, data, expected in PNG_ROWS:
        if not isinstance(expected, str):
            with Image.open(BytesIO(data)) as picture:
                np.testing.assert_array_equal(np.asarray(picture.convert("RGBA"))[..., :3], expected)
