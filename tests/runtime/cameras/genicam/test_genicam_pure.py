"""The pure parts of the source genicam: components of a buffer, node settings, the count and the time."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.runtime.cameras.pictures.coordinates import Axes
from asperity.runtime.cameras.sources.genicam import nodes as nodes_of
from asperity.runtime.cameras.sources.genicam.count import BLOCK_IDS, ExposureCount, TriggerTimes, time_us, unwrapped
from asperity.runtime.cameras.sources.genicam.nodes import Scan3d
from asperity.runtime.cameras.sources.genicam.payload import Damaged, Delivery, Part, Picture, picture_of
from asperity.runtime.cameras.sources.genicam.sdk import Seen, choose, producers
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError
from tests.runtime.cameras.genicam.genicam_stand_in import COLUMNS, MM, ROWS, StandInNodes, part, picture, points


def made(*parts: Part, scan3d: Scan3d = MM, white_level: int = 0) -> Picture:
    return picture_of(Delivery(parts, scan3d=scan3d), white_level)


COLOUR = part("RGB8", picture())
XYZ = part("Coord3D_ABC32f", points())


def test_components_of_one_buffer_become_a_frame_whatever_their_order() -> None:
    for parts in ((COLOUR, XYZ), (XYZ, COLOUR), (part("Confidence8", picture()[..., 0]), XYZ, COLOUR)):
        found = made(*parts)
        assert found.xyz is not None and found.unit == "mm"
        assert np.array_equal(found.rgb, picture()) and np.array_equal(found.xyz, points())


@pytest.mark.parametrize("order", ["ABC", "CAB"])
def test_three_planes_become_points(order: str) -> None:
    planes = [part(f"Coord3D_{letter}32f", points()[..., "ABC".index(letter)]) for letter in order]
    xyz = made(*planes, COLOUR).xyz
    assert xyz is not None and np.array_equal(xyz, points())


@pytest.mark.parametrize("padding", [0, 4])
def test_scale_offset_and_missing_points_are_each_axis_own(padding: int) -> None:
    stored = np.random.default_rng(1).integers(1, 60_000, (ROWS, COLUMNS, 3), dtype=np.uint16)
    stored[0, 0] = 0
    stored[1, 1, 2] = 65_535
    stored[2, 2, 0] = 65_535  # of A, for which nothing was declared
    axes = Axes((0.1, 0.2, 0.5), (-100, 50, 300), (None, None, 65_535.0))
    xyz = made(part("Coord3D_ABC16", stored, padding), COLOUR, scan3d=MM._replace(axes=axes)).xyz
    assert xyz is not None
    wanted = stored.astype(np.float64) * axes.scale + axes.offset
    wanted[1, 1] = 0
    assert np.allclose(xyz, wanted, atol=1e-3)
    nothing_declared = axes._replace(invalid=(None, None, None))
    xyz = made(part("Coord3D_ABC16", stored), COLOUR, scan3d=MM._replace(axes=nothing_declared)).xyz
    assert xyz is not None and not xyz[0, 0].any() and xyz[1, 1].all(), "0, 0, 0 is missing, not a point at the offset"


def test_heights_of_a_rectified_picture_become_points() -> None:
    heights = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)
    axes = Axes((0.5, 0.25, 0.1), (-2, -1, 100), (None, None, None))
    found = made(part("Coord3D_C16", heights), COLOUR, scan3d=MM._replace(mode="RectifiedC", axes=axes))
    assert found.xyz is not None and not found.xyz[0, 0].any(), "a stored 0 is missing"
    assert np.allclose(found.xyz[2, 3], (3 * 0.5 - 2, 2 * 0.25 - 1, (2 * COLUMNS + 3) * 0.1 + 100))


def test_depth_with_a_focal_length_stays_depth() -> None:
    depth = np.full((ROWS, COLUMNS), 700, np.uint16)
    lens = Scan3d("Millimeter", "CalibratedC", focal_px=450.0, principal_px=(4.0, 3.0), axes=Axes((1, 1, 0.25)))
    found = made(part("Coord3D_C16", depth), COLOUR, scan3d=lens)
    assert found.xyz is None and found.depth is not None and found.depth.dtype == np.uint16
    assert found.intrinsics is not None and found.scale == 0.25
    assert (found.intrinsics.fx, found.intrinsics.fy, found.intrinsics.cx, found.intrinsics.cy) == (450, 450, 4, 3)


def test_colour_of_twice_the_size_is_resampled_and_grey_of_16_bits_needs_a_white_level() -> None:
    large = np.repeat(np.repeat(picture(), 2, axis=0), 2, axis=1)
    found = made(part("RGB8", large), XYZ)
    assert np.array_equal(found.rgb, picture()) and found.colour_px == (2 * ROWS, 2 * COLUMNS)
    grey = part("Mono16", np.full((ROWS, COLUMNS), 2000, np.uint16))
    with pytest.raises(CameraError, match="white level"):
        made(grey, XYZ)
    assert (made(grey, XYZ, white_level=4000).rgb == 128).all()


def test_units() -> None:
    inches = made(COLOUR, XYZ, scan3d=MM._replace(unit="Inch"))
    assert inches.xyz is not None and np.allclose(inches.xyz, points() * 25.4) and inches.unit == "mm"
    assert picture_of(Delivery((COLOUR, XYZ)), unit="um").unit == "um"
    assert picture_of(Delivery((COLOUR, XYZ))).unit is None
    with pytest.raises(CameraError, match="Pixel"):
        made(COLOUR, XYZ, scan3d=MM._replace(unit="Pixel"))
    with pytest.raises(CameraError, match="remove unit"):
        picture_of(Delivery((COLOUR, XYZ), scan3d=MM), unit="m")


@pytest.mark.parametrize(
    "parts",
    [(), (COLOUR,), (XYZ,), (COLOUR, part("Coord3D_A32f", points()[..., 0]), part("Coord3D_B32f", points()[..., 1])),
     (COLOUR, XYZ._replace(data=XYZ.data[:-1])), (COLOUR._replace(data=COLOUR.data[:-1]), XYZ)],
)  # fmt: skip
def test_an_exposure_that_lacks_something_is_lost_and_never_filled(parts: tuple[Part, ...]) -> None:
    with pytest.raises(Damaged):
        made(*parts)


@pytest.mark.parametrize(
    ("parts", "scan3d", "words"),
    [((COLOUR, XYZ, XYZ), MM, "more than one 3D component"), ((COLOUR, COLOUR, XYZ), MM, "more than one picture"),
     ((part("Mono12p", picture()), XYZ), MM, "Mono12p"), ((COLOUR, XYZ), MM._replace(system="Spherical"), "Cartesian"),
     ((COLOUR, part("Coord3D_C16", points()[..., 0].astype(np.uint16))), MM, "CalibratedABC_Grid"),
     ((COLOUR, part("Coord3D_C16", points()[..., 0].astype(np.uint16))), MM._replace(mode="DisparityC"), "DisparityC"),
     ((COLOUR, XYZ._replace(width_px=10**6)), MM, "16384")],
)  # fmt: skip
def test_a_camera_that_is_set_wrongly_is_refused_by_name(parts: tuple[Part, ...], scan3d: Scan3d, words: str) -> None:
    with pytest.raises(CameraError, match=words):
        made(*parts, scan3d=scan3d)


def test_settings_are_written_in_order_and_read_back() -> None:
    nodes = StandInNodes({"ExposureTime": 10.0, "Gain": 0, "LineInverter": False, "TestSelector": "A", "Test[A]": 1,
                          "Test[B]": 2})  # fmt: skip
    lines = ["UserSetLoad = execute", "ExposureTime=8000", "Gain=0x10", "LineInverter=true", "TestSelector=A", "Test=5",
             "TestSelector=B", "Test=7"]  # fmt: skip
    nodes_of.apply(nodes, nodes_of.parse_settings(lines))
    assert nodes.values == {"ExposureTime": 8000.0, "Gain": 16, "LineInverter": True, "TestSelector": "B", "Test[A]": 5,
                            "Test[B]": 7}  # fmt: skip


@pytest.mark.parametrize("undone", ["at once", "by a later setting"])
def test_a_value_that_reads_back_differently_is_named(undone: str) -> None:
    class Stubborn(StandInNodes):
        def write(self, name: str, text: str) -> None:
            super().write(name, text)
            if (name == "ExposureTime") == (undone == "at once"):
                self.values["ExposureTime"] = 9000.0

    with pytest.raises(CameraError, match=r"ExposureTime was set to 8000 and reads 9000"):
        nodes_of.apply(Stubborn(ExposureTime=1.0, Width=1), [("ExposureTime", "8000"), ("Width", "400")])


@pytest.mark.parametrize("line", ["ExposureTime", "=5", "A=", "A B=5", "__import__('os')=1"])
def test_what_is_not_a_setting_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="NODE = VALUE"):
        nodes_of.parse_settings([line])


def test_trigger_settings() -> None:
    assert nodes_of.trigger_settings("free_run", "FrameStart", "Line0", False) == []
    assert nodes_of.trigger_settings("software", "FrameStart", "Line0", True)[-1] == ("TriggerSource", "Software")
    wired = nodes_of.trigger_settings("hard_wired", "", "Line2", True)
    assert wired == [("TriggerMode", "On"), ("TriggerSource", "Line2")]
    with pytest.raises(CameraError, match="TriggerMode"):
        nodes_of.trigger_settings("hard_wired", "", "Line2", False)


@pytest.mark.parametrize(
    ("nodes", "clock"),
    [({}, "device"),
     ({"PtpEnable": True, "PtpStatus": "Slave"}, "ptp"),
     ({"PtpEnable": True, "PtpStatus": "Master"}, "ptp"),
     ({"PtpEnable": False, "PtpStatus": "Slave"}, "device"),
     ({"PtpEnable": True, "PtpStatus": "Listening"}, "device"),
     ({"PtpEnable": True}, "device"),
     ({"GevIEEE1588": True, "GevIEEE1588Status": "Slave"}, "ptp")],
)  # fmt: skip
def test_ptp_is_what_the_camera_says_and_nothing_else(nodes: dict[str, bool | str], clock: str) -> None:
    assert nodes_of.clock_of(StandInNodes(nodes)) == clock  # type: ignore[arg-type]


def test_ptp_is_read_after_its_latch() -> None:
    nodes = StandInNodes(PtpEnable=True, PtpStatus="Listening", PtpDataSetLatch="")
    nodes.on_execute = lambda name: nodes.values.update(PtpStatus="Slave")
    assert nodes_of.clock_of(nodes) == "ptp"


def test_ptp_that_is_switched_on_is_waited_for() -> None:
    nodes = StandInNodes(PtpEnable=True, PtpStatus="Uncalibrated")
    waited_ms = [0.0]

    def pause() -> None:
        waited_ms[0] += 200
        if waited_ms[0] == 600:
            nodes.values["PtpStatus"] = "Slave"

    def clock(wait_ms: int) -> str:
        return nodes_of.await_clock(nodes, wait_ms, pause, lambda: waited_ms[0])

    assert (clock(400), waited_ms[0]) == ("device", 400)
    assert (clock(10_000), waited_ms[0]) == ("ptp", 600)
    nodes.values |= {"PtpEnable": False}
    assert (clock(10_000), waited_ms[0]) == ("device", 600)


def test_chunk_values_come_before_those_of_nodes() -> None:
    values = {
        "Scan3dDistanceUnit": "Millimeter", "Scan3dCoordinateSelector": "CoordinateA", "Scan3dCoordinateScale": 0.5,
        "ChunkScan3dCoordinateSelector": "CoordinateA", "ChunkScan3dCoordinateScale[CoordinateC]": 0.25,
        "ChunkScan3dInvalidDataFlag": True, "ChunkScan3dInvalidDataValue": -1.0,
    }  # fmt: skip
    nodes = StandInNodes(values)
    base = nodes_of.read_scan3d(nodes)
    assert base == Scan3d("Millimeter", axes=Axes((0.5, 0.5, 0.5)))
    chunk = nodes_of.read_chunk(nodes, base)
    assert chunk.axes == Axes((0.5, 0.5, 0.25), invalid=(-1.0, -1.0, -1.0)) and chunk.unit == "Millimeter"
    nodes.values["ChunkScan3dCoordinateScale[CoordinateC]"] = 0.0
    with pytest.raises(CameraError, match="above 0"):
        nodes_of.read_chunk(nodes, base)
    with pytest.raises(CameraError, match="no Scan3dInvalidDataValue"):
        nodes_of.read_scan3d(StandInNodes(Scan3dInvalidDataFlag=True))


@pytest.mark.parametrize("jump", [1, 2, 65, 1000])
def test_block_ids_of_16_bits_are_unwrapped(jump: int) -> None:
    count, wanted = ExposureCount(wraps=True), 1
    for _ in range(3 * BLOCK_IDS // jump):
        assert count.number((wanted - 1) % BLOCK_IDS + 1) == wanted
        wanted += jump


def test_counts_that_went_back_or_stood_still_are_not_hidden() -> None:
    assert unwrapped(70_000, (70_000 - 1) % BLOCK_IDS + 1) == 70_000
    assert unwrapped(70_000, (69_998 - 1) % BLOCK_IDS + 1) == 69_998
    wide = ExposureCount(wraps=True)
    assert [wide.number(one) for one in (65_534, 65_535, 65_536, 65_537, 2**40, 3)] == [
        65_534, 65_535, 65_536, 65_537, 2**40, 3]  # fmt: skip
    zero = ExposureCount(wraps=True)
    assert [zero.number(one) for one in (0, 1, 2, 0)] == [0, 1, 2, 0]


def test_without_ids_damaged_buffers_count_too() -> None:
    count = ExposureCount(wraps=False)
    assert count.number(None) == 1
    count.damaged()
    assert count.number(None) == 3
    with pytest.raises(CameraLostError, match="only some"):
        count.number(7)


def test_device_time() -> None:
    assert time_us(1_700_000_000_123_456_789, 1e9) == 1_700_000_000_123_457
    assert time_us(125_000_000, 125e6) == 1_000_000
    assert [time_us(*one) for one in ((0, 1e9), (5, 0.0), (2**64 - 1, 1e3), (5, float("nan")))] == [0, 0, 0, 0]


def test_a_camera_is_chosen_by_name_and_never_by_chance() -> None:
    two = [Seen("mac1", "100", "Cam"), Seen("mac2", "200", "Cam")]
    assert choose(two, "200") == choose(two, "mac2") == 1 and choose(two[:1], "") == 0
    for seen, wanted, words in ((two, "", "more than one"), (two, "300", "100.*200"), ([], "", "no camera"),
                                ([two[0], two[0]], "100", "more than one")):  # fmt: skip
        with pytest.raises(CameraError, match=words):
            choose(seen, wanted)


AHEAD_US = 500_000_000
"""The camera's clock, ahead of ours."""


@pytest.mark.parametrize("latch", ["read", "none", "of another clock"])
def test_an_exposure_from_before_its_trigger_is_told_by_time(latch: str) -> None:
    """Also one that is younger than an exposure takes to be computed."""
    times, at_us = TriggerTimes(), 1_000_000
    for turn in range(50):
        at_us += 60_000 + 10_000_000 * (turn % 3)
        device_us = round(at_us * (1 + 100e-6)) + AHEAD_US  # the two clocks drift apart
        times.triggered(at_us - 10_000 * (turn % 2), at_us + 2000,
                        {"read": device_us, "none": 0, "of another clock": 7}[latch])  # fmt: skip
        if turn:
            assert times.is_before(device_us - 45_000), "the second exposure of the trigger before"
        assert not times.is_before(device_us + 3000 + 1000 * (turn % 5)), "its answer"


def test_producers_are_a_file_a_folder_or_the_vendors_variable(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    for cti in ("", str(tmp_path), str(tmp_path / "no.cti")):
        with pytest.raises(CameraError, match="cti"):
            producers(cti)
    (tmp_path / "a.cti").touch()
    monkeypatch.setenv("GENICAM_GENTL64_PATH", f"/nothing:{tmp_path}::")
    assert producers("") == producers(str(tmp_path)) == producers(str(tmp_path / "a.cti")) == [tmp_path / "a.cti"]
