"""Messages and names of ROS 2: what is read of them, and that sizes which lie are refused before anything is made."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("zenoh")
pytest.importorskip("rosbags")

from asperity.runtime.cameras.sources.ros2 import keys
from asperity.runtime.cameras.sources.ros2.keys import IMAGE, INFO, POINTS
from asperity.runtime.cameras.sources.ros2.messages import cloud_of, depth_of, lens_of, read_head
from asperity.runtime.errors import CameraError
from asperity.runtime.frame import Intrinsics
from tests.runtime.cameras.ros2.ros2_driver import FRAME_ID, camera_info, cloud, image, store

STAMP_NS = 1_700_000_000_123_456_789
RNG = np.random.default_rng(3)
XYZ = RNG.normal(size=(4, 6, 3)).astype(np.float32)
XYZ[1, 2] = np.nan
RGB = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


def decoded(data: bytes, kind: str) -> Any:
    assert read_head(data, kind, max_nbytes=10**6) == (STAMP_NS, FRAME_ID)
    return store().deserialize_cdr(data, kind)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_clouds_of_both_byte_orders_and_widths(kind: str, big: bool) -> None:
    got = cloud_of(decoded(cloud(XYZ.astype(kind), STAMP_NS, RGB, big, little=not big), POINTS))
    np.testing.assert_array_equal(got.xyz, XYZ)
    np.testing.assert_array_equal(got.rgb, RGB)
    assert got.xyz.dtype == np.float32 and cloud_of(decoded(cloud(XYZ, STAMP_NS), POINTS)).rgb is None


def test_rows_of_a_cloud_may_be_padded() -> None:
    message = decoded(cloud(XYZ, STAMP_NS, RGB), POINTS)
    rows = np.pad(message.data.reshape(4, -1), ((0, 0), (0, 5)))
    message.row_step, message.data = rows.shape[1], rows.reshape(-1)
    np.testing.assert_array_equal(cloud_of(message).xyz, XYZ)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("encoding", "dtype", "unit"), [("16UC1", "u2", "mm"), ("32FC1", "f4", "m")])
def test_depth_images(encoding: str, dtype: str, unit: str, big: bool) -> None:
    values = RNG.uniform(0, 900, (4, 6)).astype(dtype)
    got = depth_of(decoded(image(values, encoding, STAMP_NS, big, pad=3), IMAGE))
    np.testing.assert_array_equal(got.values, values)
    assert got.unit == unit and got.values.dtype == np.dtype(dtype)
    with pytest.raises(CameraError, match="16UC1"):
        depth_of(decoded(image(values, "mono16", STAMP_NS), IMAGE))


def test_lenses() -> None:
    plain = lens_of(decoded(camera_info((4, 6), STAMP_NS), INFO), rectified=False)
    assert plain == ((4, 6), FRAME_ID, Intrinsics(200, 200, 3, 2))
    bent = {"d": np.array([0.1, 0.2, 0, 0, 0.0])}
    raw = lens_of(decoded(camera_info((4, 6), STAMP_NS, **bent), INFO), rectified=False)
    assert raw.intrinsics == Intrinsics(200, 200, 3, 2, "brown_conrady", (0.1, 0.2, 0, 0, 0))
    assert lens_of(decoded(camera_info((4, 6), STAMP_NS, **bent), INFO), rectified=True) == plain


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"f": 0.0}, "not calibrated"),
        ({"f": float("nan")}, "not calibrated"),
        ({"binning_x": 2}, "binning"),
        ({"distortion_model": "equidistant", "d": np.array([0.1, 0, 0, 0])}, "equidistant"),
        ({"d": np.ones(8)}, "8 coefficients"),
    ],
)
def test_lenses_that_cannot_be_used(changed: dict[str, Any], match: str) -> None:
    with pytest.raises(CameraError, match=match):
        lens_of(decoded(camera_info((4, 6), STAMP_NS, **changed), INFO), rectified=False)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"height": 1, "width": 24}, "not organised"),
        ({"width": 7}, "its driver is faulty"),
        ({"height": 5}, "its driver is faulty"),
        ({"row_step": 1}, "its driver is faulty"),
        ({"point_step": 2}, "its driver is faulty"),
        ({"data": np.zeros(10, np.uint8)}, "its driver is faulty"),
        ({"fields": []}, "no field x"),
    ],
)
def test_clouds_whose_numbers_lie(changed: dict[str, Any], match: str) -> None:
    with pytest.raises(CameraError, match=match):
        cloud_of(store().deserialize_cdr(cloud(XYZ, STAMP_NS, **changed), POINTS))


@pytest.mark.parametrize(
    ("change", "match"),
    [({"offset": 2**32 - 4}, "faulty"), ({"datatype": 2}, "datatype 2"), ({"count": 3}, "x 3"), ({"name": "y"}, "two")],
)
def test_fields_that_lie(change: dict[str, Any], match: str) -> None:
    message = decoded(cloud(XYZ, STAMP_NS), POINTS)
    for key, value in change.items():
        setattr(message.fields[0], key, value)
    with pytest.raises(CameraError, match=match):
        cloud_of(message)


def lying(kind: str, height: int, width: int, count: int) -> bytes:
    """The beginning of a message, and nothing after it."""
    return struct.pack("<4siII4sIII", b"\0\1\0\0", 1, 2, 4, b"cam\0", height, width, count) + bytes(64)


@pytest.mark.parametrize(
    ("kind", "data", "match"),
    [
        (POINTS, lying(POINTS, 4, 6, 2**31), "declares 2147483648 fields"),
        (IMAGE, lying(IMAGE, 2**32 - 1, 2**32 - 1, 5), "4294967295 x 4294967295 pixels"),
        (IMAGE, bytes(2**20), "at most"),
        (IMAGE, b"\0\1\0\0" + struct.pack("<iII", 1, 2, 2**32 - 1) + bytes(50), "frame_id"),
        (IMAGE, b"\0\1\0\0" + struct.pack("<iII", 1, 2, 200) + bytes(50), "not CDR"),
        (IMAGE, b"\0\3\0\0" + bytes(50), "not CDR"),
        (IMAGE, struct.pack("<4siII4s", b"\0\1\0\0", 1, 10**9, 4, b"cam\0") + bytes(50), "not a time"),
        (IMAGE, b"", "not CDR"),
    ],
)
def test_heads_that_lie_cost_no_memory(kind: str, data: bytes, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CameraError, match=match):
            read_head(data, kind, max_nbytes=2**20 - 1)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=120), st.sampled_from([POINTS, IMAGE, INFO]))
def test_any_bytes_are_refused_as_a_message(data: bytes, kind: str) -> None:
    try:
        read_head(b"\0\1\0\0" + data, kind, max_nbytes=1000)
    except CameraError:
        return


TOKEN = ("@ros2_lv/7/a1b2/0/11/MP/%/%robot%arm/camera/%robot%arm%image/sensor_msgs::msg::dds_::Image_/"
         "RIHS01_00/::,10:,:,:,,")  # fmt: skip


def test_names_of_rmw_zenoh() -> None:
    assert keys.publisher(TOKEN) == ("/robot/arm/camera", "/robot/arm/image", IMAGE)
    for other in (
        TOKEN.replace("MP", "MS"), TOKEN.replace("@ros2_lv", "x"), TOKEN.replace("Image_", "Image"),
        TOKEN.replace("%image", "%ima ge"), f"{TOKEN}/x", TOKEN.replace("image", 2000 * "i"), "",
    ):  # fmt: skip
        assert keys.publisher(other) is None
    assert keys.message_key(7, "/robot/image") == "7/robot/image/*/*"
    assert keys.type_of_key(f"7/robot/image/{keys.dds_type(POINTS)}/RIHS01_00") == POINTS
    assert keys.type_of_key("robot/image") == keys.type_of_key("7/a/b/c") == ""


def test_attachments_of_both_forms() -> None:
    numbers = struct.pack("<q", 41), struct.pack("<q", 5), b"\x10" + bytes(range(16))
    plain = b"".join(numbers)
    named = b"".join(bytes([len(name)]) + name + number for name, number in zip(
        (b"sequence_number", b"source_timestamp", b"source_gid"), numbers, strict=True))  # fmt: skip
    assert keys.attachment(plain) == keys.attachment(named) == (41, bytes(range(16)))
    for data in (plain, named):
        for other in (data[:-1], data + b"x", data[1:], b""):
            assert keys.attachment(other) is None
    assert keys.attachment(plain[:16] + b"\x0f" + plain[17:]) is None
