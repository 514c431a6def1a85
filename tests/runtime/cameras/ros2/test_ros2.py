"""The camera source `ros2`, in this process: a stand-in driver over the loopback interface, and bags."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("zenoh")
pytest.importorskip("rosbags")

import zenoh

from asperity.runtime.cameras.source import Shot, open_source
from asperity.runtime.cameras.sources.ros2 import link, source
from asperity.runtime.cameras.sources.ros2.keys import POINTS
from asperity.runtime.cameras.sources.ros2.source import ROS2, Ros2Camera, Ros2Options
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError, UsageError
from asperity.runtime.frame import Intrinsics
from asperity.testing.site import free_port
from tests.runtime.cameras.ros2.ros2_driver import (
    CAMERA_INFO,
    CLOUD,
    COLOUR,
    DEPTH,
    TYPES,
    Driver,
    camera_info,
    cloud,
    config,
    image,
    stamp_ns,
)
from tests.system import sealed_box

PATIENCE_MS = 30_000
SHAPE = (8, 12)
RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (6, *SHAPE, 3), dtype=np.uint8)
XYZ = RNG.normal(size=(6, *SHAPE, 3)).astype(np.float32)
Z = RNG.integers(1, 900, (6, *SHAPE)).astype(np.uint16)
CLOUDS = {"points": CLOUD, "colour": COLOUR}
DEPTHS = {"depth": DEPTH, "colour": COLOUR}


class Scene:
    """A driver and the source that listens to it."""

    def __init__(self) -> None:
        self.port = free_port()
        self._open: list[Any] = []

    def driver(self, *topics: str, **given: Any) -> Driver:
        self._open.append(driver := Driver(self.port, topics, **given))
        return driver

    def camera(self, **options: Any) -> Ros2Camera:
        self._open.append(camera := Ros2Camera(Ros2Options(**{"connect": f"tcp/127.0.0.1:{self.port}"} | options)))
        return camera

    def router(self) -> Any:
        self._open.append(router := zenoh.open(config("router", self.port, connect=False)))
        return router

    def both(self, *topics: str, through_router: bool = False, **options: Any) -> tuple[Driver, Ros2Camera]:
        driver = self.driver(*topics, connect=through_router)
        camera = self.camera(open_ms=PATIENCE_MS, **options)
        driver.await_subscribers()
        return driver, camera

    def close(self) -> None:
        for each in reversed(self._open):
            each.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def taken(camera: Ros2Camera) -> Shot:
    shot = camera.shot(PATIENCE_MS)
    assert shot is not None
    return shot


def send_cloud(driver: Driver, exposure: int, **lost: bool) -> None:
    driver.publish(COLOUR, image(RGB[exposure], "rgb8", stamp_ns(exposure)), lost=lost.get("colour", False))
    driver.publish(CLOUD, cloud(XYZ[exposure], stamp_ns(exposure)), lost=lost.get("points", False))


def test_exposures_are_paired_and_the_lost_ones_counted(scene: Scene) -> None:
    driver, camera = scene.both(COLOUR, CLOUD, **CLOUDS)
    driver.named = True
    for exposure in range(6):
        # Exposure 2 loses its points in transit, exposure 4 both halves.
        send_cloud(driver, exposure, points=exposure in (2, 4), colour=exposure == 4)
    shots = [taken(camera) for _ in range(4)]
    assert [shot.number for shot in shots] == [1, 2, 4, 6]
    for shot, exposure in zip(shots, (0, 1, 3, 5), strict=True):
        frame = shot.frame
        np.testing.assert_array_equal(frame.rgb, RGB[exposure])
        np.testing.assert_array_equal(frame.xyz, XYZ[exposure])
        assert (frame.t_exposure_us, frame.clock, frame.unit) == (stamp_ns(exposure) // 1000, "device", "m")
        assert frame.sensor == camera.sensor == "/cam/camera /cam/points"
    assert camera.shot(1) is None


def test_depth_waits_for_its_lens_and_colour_of_twice_the_size_is_binned(scene: Scene) -> None:
    driver, camera = scene.both(COLOUR, DEPTH, CAMERA_INFO, **DEPTHS, stamps="realtime")
    for exposure in range(2):
        twice = RGB[exposure].repeat(2, 0).repeat(2, 1)
        driver.publish(DEPTH, image(Z[exposure], "16UC1", stamp_ns(exposure)))
        driver.publish(COLOUR, image(twice[..., ::-1], "bgr8", stamp_ns(exposure)))
    driver.publish(CAMERA_INFO, camera_info(SHAPE, stamp_ns(1)))
    for exposure in range(2):
        shot = taken(camera)
        np.testing.assert_array_equal(shot.frame.depth, Z[exposure])
        np.testing.assert_array_equal(shot.frame.rgb, RGB[exposure])
        assert shot.frame.intrinsics == Intrinsics(200, 200, 6, 4) and shot.number == exposure + 1
        assert (shot.frame.unit, shot.frame.invalid, shot.frame.clock) == ("mm", 0.0, "realtime")
    driver.publish(CAMERA_INFO, camera_info(SHAPE, stamp_ns(2)))
    assert camera.shot(50) is None, "only its stamp is new"
    driver.publish(CAMERA_INFO, camera_info(SHAPE, stamp_ns(3), f=201.0))
    with pytest.raises(CameraLostError, match="camera_info changed"):
        camera.shot(PATIENCE_MS)


def test_a_cloud_may_bring_its_own_colour(scene: Scene) -> None:
    driver, camera = scene.both(CLOUD, points=CLOUD)
    driver.publish(CLOUD, cloud(XYZ[0], stamp_ns(0), RGB[0]))
    np.testing.assert_array_equal(taken(camera).frame.rgb, RGB[0])
    driver.publish(CLOUD, cloud(XYZ[1], stamp_ns(1)))
    with pytest.raises(CameraLostError, match="no field rgb"):
        camera.shot(PATIENCE_MS)


def twice(scene: Scene, driver: Driver) -> None:
    driver.publish(COLOUR, image(RGB[0], "rgb8", stamp_ns(0)))


def another_publisher(scene: Scene, driver: Driver) -> None:
    scene.driver(CLOUD, connect=True, node="second")


def another_gid(scene: Scene, driver: Driver) -> None:
    driver.gid[COLOUR] = bytes(16)
    driver.publish(COLOUR, image(RGB[1], "rgb8", stamp_ns(1)))


def no_attachment(scene: Scene, driver: Driver) -> None:
    driver.publish(COLOUR, image(RGB[1], "rgb8", stamp_ns(1)), attached=False)


def too_large(scene: Scene, driver: Driver) -> None:
    driver.publish(COLOUR, bytes(2**20 + 1))


def nonsense(scene: Scene, driver: Driver) -> None:
    driver.publish(COLOUR, bytes(100))


def size_that_lies(scene: Scene, driver: Driver) -> None:
    driver.publish(COLOUR, image(RGB[1], "rgb8", stamp_ns(1)))
    driver.publish(CLOUD, cloud(XYZ[1], stamp_ns(1), width=2000))


def wrong_encoding(scene: Scene, driver: Driver) -> None:
    driver.publish(COLOUR, image(RGB[1], "8UC3", stamp_ns(1)))
    driver.publish(CLOUD, cloud(XYZ[1], stamp_ns(1)))


def another_frame(scene: Scene, driver: Driver) -> None:
    driver.publish(COLOUR, image(RGB[1], "rgb8", stamp_ns(1), frame_id="elsewhere"))


def driver_ends(scene: Scene, driver: Driver) -> None:
    driver.close()


def one_publisher_ends(scene: Scene, driver: Driver) -> None:
    driver.withdraw()


@pytest.mark.parametrize(
    ("happens", "match"),
    [
        (twice, "twice"),
        (another_publisher, "two publishers"),
        (another_gid, "two publishers"),
        (no_attachment, "attachment of rmw_zenoh"),
        (too_large, "larger message_max_mb"),
        (nonsense, "not CDR"),
        (size_that_lies, "cannot be decoded|driver is faulty"),
        (wrong_encoding, "8UC3"),
        (another_frame, "frame_id 'elsewhere'"),
        (driver_ends, "is gone"),
        (one_publisher_ends, "is gone"),
    ],
)
def test_what_makes_pictures_doubtful_ends_it_at_once(
    scene: Scene, happens: Callable[[Scene, Driver], None], match: str
) -> None:
    driver, camera = scene.both(COLOUR, CLOUD, **CLOUDS, message_max_mb=1)
    send_cloud(driver, 0)
    assert taken(camera).number == 1
    happens(scene, driver)
    with pytest.raises(CameraLostError, match=match):
        camera.shot(PATIENCE_MS)


def test_a_session_that_was_closed_ends_it(scene: Scene) -> None:
    _, camera = scene.both(CLOUD, points=CLOUD)
    camera._link._session.close()
    with pytest.raises(CameraLostError, match=r"session was closed|is gone"):
        camera.shot(50)


def test_a_driver_behind_a_router_and_a_router_that_ends(scene: Scene) -> None:
    """As rmw_zenoh has it: the driver is a peer of the router, the source its client."""
    router = scene.router()
    driver, camera = scene.both(COLOUR, CLOUD, **CLOUDS, through_router=True)
    send_cloud(driver, 0)
    assert taken(camera).frame.t_exposure_us == stamp_ns(0) // 1000
    router.close()
    with pytest.raises(CameraLostError, match="is gone"):
        camera.shot(PATIENCE_MS)


def test_half_an_exposure_after_another_is_no_sign_of_life(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, camera = scene.both(COLOUR, CLOUD, **CLOUDS)
    now_s = 0.0

    def later() -> float:
        nonlocal now_s
        now_s += 0.1
        return now_s

    for exposure in range(5):
        send_cloud(driver, exposure, points=exposure < 4)
    monkeypatch.setattr(source.time, "monotonic", later)
    assert camera.shot(300) is None, "messages waited, and the time was up"


def test_what_comes_faster_than_it_is_taken_is_bounded_and_counted(scene: Scene) -> None:
    driver, camera = scene.both(CLOUD, points=CLOUD)
    for exposure in range(3 * link.QUEUED_MAX):
        driver.publish(CLOUD, cloud(XYZ[0], stamp_ns(exposure), RGB[0]))
    driver.publish(CLOUD, cloud(XYZ[1], stamp_ns(exposure + 1), RGB[1]))
    ends_s = time.monotonic() + PATIENCE_MS / 1000
    while camera._link._dropped < 2 * link.QUEUED_MAX + 1:
        assert time.monotonic() < ends_s
        time.sleep(0.005)
    shots = [taken(camera) for _ in range(link.QUEUED_MAX)]
    np.testing.assert_array_equal(shots[-1].frame.rgb, RGB[1])
    assert shots[-1].number == shots[0].number + (shots[-1].frame.t_exposure_us - shots[0].frame.t_exposure_us) // 10**5


@pytest.mark.parametrize(
    ("topics", "options", "match"),
    [
        ({COLOUR: TYPES[COLOUR]}, CLOUDS, r"nobody publishes /cam/points; published are: /cam/image"),
        ({COLOUR: "sensor_msgs/msg/CompressedImage", CLOUD: POINTS}, CLOUDS, "image_transport"),
        ({COLOUR: TYPES[COLOUR], CLOUD: POINTS}, {**CLOUDS, "domain": 5}, "nobody publishes"),
        ({}, {**CLOUDS, "connect": "tcp/127.0.0.1:1"}, "no zenoh session"),
    ],
)
def test_a_driver_that_is_not_there_is_named(
    scene: Scene, topics: dict[str, str], options: dict[str, Any], match: str
) -> None:
    scene.driver(*topics, types=topics)
    with pytest.raises(CameraError, match=match):
        scene.camera(open_ms=1000, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "give points"),
        ({"points": CLOUD, "depth": DEPTH}, "one of them"),
        ({"depth": DEPTH}, "depth needs colour"),
        ({"points": "cam/points"}, "written in full"),
        ({"points": CLOUD, "listen": "tcp/127.0.0.1:7000"}, "peer"),
        ({"points": CLOUD, "connect": "127.0.0.1:7447"}, "not a zenoh endpoint"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Ros2Camera(Ros2Options(**options))


def test_it_has_no_software_trigger() -> None:
    with pytest.raises(
        UsageError, match="ros2 cannot be used with triggers = 'software'; it has free_run or hard_wired"
    ):
        open_source("ros2", ROS2, Ros2Options(points=CLOUD), "software")


def test_a_bag_answers_no_announced_part() -> None:
    with pytest.raises(ConfigError, match="no part in front of it"):
        open_source("ros2", ROS2, Ros2Options(points=CLOUD, bag="recorded"), "hard_wired")


def test_devices_are_the_topics_behind_the_router(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Ros2Options(connect=f"tcp/127.0.0.1:{scene.port}", open_ms=200)
    monkeypatch.setattr(source, "Ros2Options", lambda **_: options)
    assert ROS2.devices() == [], "no router"
    options = replace(options, open_ms=PATIENCE_MS)
    monkeypatch.setattr(source, "DEVICES_MS", PATIENCE_MS)
    scene.driver(CLOUD, CAMERA_INFO, domain=3)
    assert ROS2.devices() == [(CLOUD, "sensor_msgs/msg/PointCloud2 of /cam/camera, domain 3")]


# ---------------------------------------------------------------------------------------------------- nothing leaves


LISTENER = """
import json, sys
from asperity.runtime.cameras.sources.ros2.source import Ros2Camera, Ros2Options, ROS2
from tests.runtime.cameras.ros2.ros2_driver import CLOUD, Driver
driver = Driver(7001, [CLOUD])
camera = Ros2Camera(Ros2Options(points=CLOUD, connect="tcp/127.0.0.1:7001", open_ms=60000))
driver.await_subscribers()
camera.shot(300)
camera.close(), driver.close()
ROS2.devices()
print(json.dumps("done"))
"""


def test_it_calls_what_it_is_told_to_and_nobody_else(tmp_path: Path) -> None:
    if why := sealed_box.why_not():
        pytest.skip(f"no namespaces for a sealed box: {why}")
    seen = sealed_box.run(tmp_path, [sys.executable, "-c", LISTENER], 120)
    assert seen.code == 0 and seen.lost == 0, seen.said
    assert json.loads(seen.said.splitlines()[-1]) == "done"
    assert set(seen.calls) <= {"tcp 127.0.0.1:7001", "tcp 127.0.0.1:7447"} and "tcp 127.0.0.1:7001" in seen.calls
    assert not seen.left


def test_a_session_as_zenoh_makes_it_would_be_seen(tmp_path: Path) -> None:
    """The control."""
    if why := sealed_box.why_not():
        pytest.skip(f"no namespaces for a sealed box: {why}")
    seen = sealed_box.run(tmp_path, [sys.executable, "-c", "import zenoh; zenoh.open(zenoh.Config()).close()"], 120)
    assert seen.code == 0 and any(call.startswith("udp 224.0.0.224:7446") for call in seen.calls), seen
