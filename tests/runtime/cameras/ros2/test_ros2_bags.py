"""The camera source `ros2` on bags."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("zenoh")
pytest.importorskip("rosbags")

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from asperity.runtime.cameras.source import Shot
from asperity.runtime.cameras.sources.ros2.source import Ros2Camera, Ros2Options
from asperity.runtime.errors import CameraError, SourceEnded
from tests.runtime.cameras.ros2.ros2_driver import (
    CAMERA_INFO,
    CLOUD,
    COLOUR,
    DEPTH,
    TYPES,
    camera_info,
    cloud,
    image,
    stamp_ns,
    store,
)  # fmt: skip
from tests.runtime.cameras.ros2.test_ros2 import CLOUDS, DEPTHS, PATIENCE_MS, RGB, SHAPE, XYZ, Z


def written(folder: Path, storage: StoragePlugin, messages: list[tuple[str, bytes]], compress: bool = False) -> Path:
    """A bag with these messages, one each millisecond."""
    writer = Writer(folder, version=9, storage_plugin=storage)
    if compress:
        writer.set_compression(CompressionMode.STORAGE if storage is StoragePlugin.MCAP else CompressionMode.MESSAGE,
                               CompressionFormat.ZSTD)  # fmt: skip
    with writer:
        topics = {topic: writer.add_connection(topic, TYPES[topic], typestore=store()) for topic in TYPES}
        for at, (topic, message) in enumerate(messages):
            writer.write(topics[topic], 10**18 + at * 10**6, message)
    return folder


def recorded(exposures: int, lost: tuple[int, ...] = ()) -> list[tuple[str, bytes]]:
    """Clouds with colour, and depth with its lens; the clouds and depths of ``lost`` are not there."""
    found = []
    for one in range(exposures):
        found.append((COLOUR, image(RGB[one], "rgb8", stamp_ns(one))))
        found.append((CAMERA_INFO, camera_info(SHAPE, stamp_ns(one))))
        if one not in lost:
            found.append((CLOUD, cloud(XYZ[one], stamp_ns(one), big=True)))
            found.append((DEPTH, image(Z[one], "16UC1", stamp_ns(one))))
    return found


def played(camera: Ros2Camera) -> list[Shot]:
    shots = []
    with closing(camera), suppress(SourceEnded):
        while (shot := camera.shot(PATIENCE_MS)) is not None:
            shots.append(shot)
    return shots


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_bags_are_played_to_their_end(storage: StoragePlugin, tmp_path: Path) -> None:
    bag = written(tmp_path / "bag", storage, recorded(5, lost=(2,)))
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    for path, options in ((bag, CLOUDS), (file, DEPTHS)):
        shots = played(Ros2Camera(Ros2Options(bag=str(path), bag_speed=0, **options)))
        assert [shot.number for shot in shots] == [1, 2, 4, 5]
        for shot, exposure in zip(shots, (0, 1, 3, 4), strict=True):
            np.testing.assert_array_equal(shot.frame.rgb, RGB[exposure])
            stored, expected = (shot.frame.xyz, XYZ) if options is CLOUDS else (shot.frame.depth, Z)
            np.testing.assert_array_equal(stored, expected[exposure])


def test_a_bag_keeps_its_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = written(tmp_path / "bag", StoragePlugin.SQLITE3, recorded(2))
    now_s = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr("asperity.runtime.cameras.sources.ros2.bag.time.monotonic", lambda: now_s)
    monkeypatch.setattr("asperity.runtime.cameras.sources.ros2.bag.time.sleep", sleep)
    camera = Ros2Camera(Ros2Options(bag=str(bag), bag_speed=0.5, **CLOUDS))
    assert camera.shot(3) is None, "the cloud came 2 ms after the colour: at half the speed, 4 ms"
    assert camera.shot(3) is not None and now_s == pytest.approx(100.004)
    camera.close()


def test_bags_that_cannot_be_played_are_refused(tmp_path: Path) -> None:
    def fails(path: Path, match: str, **options: Any) -> None:
        with pytest.raises(CameraError, match=match):
            played(Ros2Camera(Ros2Options(bag=str(path), bag_speed=0, **{**CLOUDS, **options})))

    fails(tmp_path / "none", "cannot be read|not a bag")
    (tmp_path / "x.txt").write_text("x")
    fails(tmp_path / "x.txt", "not a bag")
    for suffix in (".db3", ".mcap"):
        (tmp_path / f"x{suffix}").write_bytes(bytes(1000))
        fails(tmp_path / f"x{suffix}", "not a bag")
    mcap = written(tmp_path / "m", StoragePlugin.MCAP, recorded(1))
    fails(mcap, r"has no /other \(sensor_msgs/msg/PointCloud2\); it has", points="/other")
    for storage in StoragePlugin:
        fails(written(tmp_path / f"z{storage.name}", storage, recorded(1), compress=True), "compressed")
    large = [
        (COLOUR, image(np.zeros((700, 700, 3), np.uint8), "rgb8", stamp_ns(0))),
        (CLOUD, cloud(XYZ[0], stamp_ns(0))),
    ]
    fails(written(tmp_path / "l", StoragePlugin.SQLITE3, large), "message_max_mb", message_max_mb=1)
    fails(written(tmp_path / "lm", StoragePlugin.MCAP, large), "message_max_mb", message_max_mb=1)
    data = bytearray((file := mcap / "m.mcap").read_bytes())
    at = data.index(b"rgb8")
    data[at - 12 : at - 8] = b"\xff\xff\xff\x7f"  # the height
    file.write_bytes(bytes(data))
    fails(mcap, "2147483647 pixels|2147483647 x|declares|damaged")
