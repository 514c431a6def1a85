"""ROS 2 camera drivers, without ROS: live through rmw_zenoh, or from a bag. docs/cameras/ros2.md.

A driver publishes the halves of an exposure as messages of their own, so an exposure is what has one stamp
(``ros2_pairing``). What cannot be right ends the program: a second publisher, a stamp twice, another lens.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from asperity.runtime.cameras.pictures.pixels import colour
from asperity.runtime.cameras.pictures.registration import by_grid
from asperity.runtime.cameras.source import Device, Shot, SourceKind, Triggers
from asperity.runtime.cameras.sources.ros2.bag import Bag
from asperity.runtime.cameras.sources.ros2.keys import IMAGE, INFO, POINTS, TOPIC
from asperity.runtime.cameras.sources.ros2.link import Endpoint, Link, Received, publishers
from asperity.runtime.cameras.sources.ros2.messages import (
    INFO_MAX_NBYTES,
    Lens,
    cloud_of,
    depth_of,
    lens_of,
    read_head,
)
from asperity.runtime.cameras.sources.ros2.pairing import Arrived, Pair, Pairing
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError
from asperity.runtime.frame import ByteArray, Frame
from asperity.runtime.settings.toml_tables import Section, number, path_text, text

log = logging.getLogger(__name__)

ROUTER = "tcp/127.0.0.1:7447"
READY_MAX = 4
"""Exposures that wait for the first camera_info."""
DEVICES_MS = 500
SENSOR_MAX = 64


class Ros2Options(Section, frozen=True, forbid_unknown_fields=True):
    """A ROS 2 driver behind a zenoh router, or a bag."""

    points: Annotated[str, text("topic of organised point clouds (PointCloud2), such as `/camera/points`")] = ""
    depth: Annotated[str, text("instead of `points`: topic of depth images (Image, 16UC1 or 32FC1)")] = ""
    colour: Annotated[
        str, text("topic of colour images (Image), registered to the 3D data; empty: the colour in `points`")
    ] = ""
    info: Annotated[
        str, text("topic of the depth image's CameraInfo; empty: `camera_info` next to the topic `depth`")
    ] = ""
    stamps: Annotated[
        Literal["device", "realtime", "ptp"],
        text(
            "clock of `header.stamp`: `realtime` only where the driver stamps each exposure in this computer's "
            "synchronised time, `ptp` as on the wire; `device`: anything else"
        ),
    ] = "device"
    slop_ms: Annotated[
        float, number(0, 1000, "largest difference of two stamps of one exposure; 0: equal. Below half of the period")
    ] = 0.0
    mono16_white: Annotated[int, number(0, 65_535, "value of white in `mono16` and other 16-bit colour")] = 0
    domain: Annotated[int, number(0, 232, "ROS_DOMAIN_ID of the driver")] = 0
    mode: Annotated[Literal["client", "peer"], text("`client` of the zenoh router, or `peer` of the driver itself")] = (
        "client"
    )
    connect: Annotated[str, text("zenoh endpoints that are called, a space between two")] = ROUTER
    listen: Annotated[str, text("with `peer`: zenoh endpoints that are listened on; empty: none")] = ""
    open_ms: Annotated[int, number(100, 60_000, "longest wait for the router and the driver at start")] = 5000
    message_max_mb: Annotated[int, number(1, 1024, "largest message that is taken")] = 128
    bag: Annotated[str, path_text("instead of a driver: a bag's folder, `.mcap` or `.db3` file")] = ""
    bag_speed: Annotated[float, number(0, 1000, "2: twice as fast as recorded; 0: as fast as frames are taken")] = 1.0


class _Topics(NamedTuple):
    """Names and types; the pictures come first, the 3D data last of them."""

    pictures: tuple[tuple[str, str], ...]
    info: tuple[tuple[str, str], ...]
    rectified: bool


class Ros2Camera:
    """A driver's topics as exposures."""

    def __init__(self, options: Ros2Options) -> None:
        """Wait for the driver. Raises CameraError, ConfigError."""
        from rosbags.typesys import Stores, get_typestore

        self._options, self._topics = options, _topics(options)
        self._store = get_typestore(Stores.LATEST)
        self._max_nbytes = options.message_max_mb * 2**20
        pictures = self._topics.pictures
        self._pairing = Pairing[Received](
            tuple(name for name, _ in pictures), slop_ns=round(options.slop_ms * 1e6),
            held_max_nbytes=2 * self._max_nbytes,
        )  # fmt: skip
        self._ready: deque[Pair[Received]] = deque()
        self._info: bytes = b""
        self._lens: Lens | None = None
        self._frame_ids: dict[int, str] = {}
        topics = (*pictures, *self._topics.info)
        self._link: Link | Bag
        if options.bag:
            self._link = Bag(Path(options.bag), topics, max_nbytes=self._max_nbytes, speed=options.bag_speed)
        else:
            self._link = Link(_endpoint(options), options.domain, topics, max_nbytes=self._max_nbytes)
        self.sensor = f"{self._link.nodes[len(pictures) - 1]} {pictures[-1][0]}"[:SENSOR_MAX]

    def shot(self, timeout_ms: int) -> Shot | None:
        """As ``Source.shot``. Raises SourceEnded at the end of a bag."""
        ends_s = time.monotonic() + timeout_ms / 1000
        try:
            while not self._ready or (self._topics.info and self._lens is None):
                left_ms = round((ends_s - time.monotonic()) * 1000)
                received = self._link.take(left_ms) if left_ms > 0 else None  # however many messages wait
                if received is None:
                    return None
                self._take(received)
            pair = self._ready.popleft()
            return Shot(self._frame(pair), pair.number)
        except CameraLostError:
            raise
        except CameraError as error:
            raise CameraLostError(f"{self.sensor}: {error}") from error

    def trigger(self) -> None:
        """Drivers are not triggered over ROS."""
        raise CameraError("the source ros2 has no software trigger; set the driver to free run or hardware trigger")

    def close(self) -> None:
        """As ``Source.close``."""
        self._link.close()

    def _take(self, received: Received) -> None:
        if received.topic == len(self._topics.pictures):
            self._take_info(received.data)
            return
        name, kind = self._topics.pictures[received.topic]
        head = read_head(received.data, kind, max_nbytes=self._max_nbytes)
        for topic, known in self._frame_ids.items():
            if known != head.frame_id:
                other = "before" if topic == received.topic else f"in {self._topics.pictures[topic][0]}"
                raise CameraLostError(
                    f"{name} has the frame_id {head.frame_id!r}, and {known!r} {other}; colour and 3D must be "
                    "registered to one frame (for realsense2_camera: align_depth.enable), which does not change"
                )
        self._frame_ids[received.topic] = head.frame_id
        arrived = Arrived(head.stamp_ns, received.sequence, len(received.data), received)
        self._ready.extend(self._pairing.add(received.topic, arrived))
        while len(self._ready) > READY_MAX and self._topics.info and self._lens is None:
            self._ready.popleft()
            log.warning("an exposure is lost: %s did not come yet", self._topics.info[0][0])

    def _take_info(self, data: bytes) -> None:
        read_head(data, INFO, max_nbytes=INFO_MAX_NBYTES)
        constant = data[:4] + data[12:]  # without the stamp
        if self._info and constant != self._info:
            raise CameraLostError(
                f"{self._topics.info[0][0]} changed while the camera was open; the frames before and after are not "
                "comparable. Start the program again when the driver is set up"
            )
        if not self._info:
            self._lens = lens_of(self._decoded(data, INFO), rectified=self._topics.rectified)
            self._info = constant

    def _frame(self, pair: Pair[Received]) -> Frame:
        messages = [self._decoded(one.data, self._topics.pictures[one.topic][1]) for one in pair.messages]
        if self._options.depth:
            depth, lens = depth_of(messages[-1]), self._lens
            assert lens is not None
            if (lens.shape_px, lens.frame_id) != (depth.values.shape, messages[-1].header.frame_id):
                raise CameraLostError(
                    f"the camera_info is of {lens.shape_px} in {lens.frame_id!r} and the depth image of "
                    f"{depth.values.shape} in {messages[-1].header.frame_id!r}; name the depth image's own in info"
                )
            data: dict[str, Any] = {
                "depth": depth.values, "unit": depth.unit, "intrinsics": lens.intrinsics, "invalid": 0.0
            }  # fmt: skip
            shape, rgb = depth.values.shape, None
        else:
            cloud = cloud_of(messages[-1])
            data, shape, rgb = {"xyz": cloud.xyz, "unit": "m"}, cloud.xyz.shape[:2], cloud.rgb
        if self._options.colour:
            rgb = self._colour(messages[0])
        if rgb is None:
            raise CameraLostError(
                "the point cloud has no field rgb or rgba; name the topic of the colour image in colour"
            )
        rgb = by_grid(rgb, *shape)
        return Frame("", "", 0, rgb, t_exposure_us=pair.stamp_ns // 1000, clock=self._options.stamps,
                     sensor=self.sensor, **data)  # fmt: skip

    def _colour(self, image: Any) -> ByteArray:
        return colour(
            image.data, image.encoding, image.height, image.width, white_level=self._options.mono16_white,
            row_nbytes=image.step, big_endian=bool(image.is_bigendian),
        ).rgb  # fmt: skip

    def _decoded(self, data: bytes, kind: str) -> Any:
        try:
            return self._store.deserialize_cdr(memoryview(data), kind)
        except Exception as error:  # another package's decoder, on bytes of another computer
            raise CameraLostError(f"a message cannot be decoded as {kind}: {error!r:.300}") from error


def _topics(options: Ros2Options) -> _Topics:
    """What is subscribed. Raises ConfigError."""
    if bool(options.points) == bool(options.depth):
        raise ConfigError("[ros2] needs the topic of the 3D data: give points (a point cloud) or depth, one of them")
    if options.depth and not options.colour:
        raise ConfigError("[ros2] depth needs colour, the topic of the colour image")
    for key in ("points", "depth", "colour", "info"):
        name = getattr(options, key)
        if name and not TOPIC.fullmatch(name):
            raise ConfigError(f"[ros2] {key} is {name!r}; a topic is written in full, such as /camera/depth/image_rect")
    pictures = ([(options.colour, IMAGE)] if options.colour else []) + [(options.points, POINTS)] * bool(options.points)
    if options.points:
        return _Topics(tuple(pictures), (), False)
    above, _, last = options.depth.rpartition("/")
    info = options.info or f"{above}/camera_info"
    return _Topics((*pictures, (options.depth, IMAGE)), ((info, INFO),), last.startswith("image_rect"))


def _endpoint(options: Ros2Options) -> Endpoint:
    """Raises ConfigError."""
    if options.listen and options.mode == "client":
        raise ConfigError("[ros2] listen needs mode = 'peer'; a client of the router only calls")
    for end in (*options.connect.split(), *options.listen.split()):
        if not re.fullmatch(r"[a-z-]+/\S+", end):
            raise ConfigError(f"[ros2] {end!r} is not a zenoh endpoint; write it as tcp/192.168.1.10:7447")
    return Endpoint(options.mode, options.connect, options.listen, options.open_ms)


def open_camera(options: Ros2Options, triggers: Triggers) -> Ros2Camera:
    """Raises CameraError, ConfigError."""
    if options.bag and triggers != "free_run":
        raise ConfigError(
            f"[ros2] bag: a recording has no part in front of it; [live] triggers = {triggers!r} is for a driver"
        )
    return Ros2Camera(options)


def devices() -> list[Device]:
    """Topics of 3D data behind this computer's zenoh router; none without a router. Raises CameraError."""
    try:
        found = publishers(_endpoint(Ros2Options(open_ms=DEVICES_MS)), DEVICES_MS)
    except CameraError as error:
        log.info("%s", error)
        return []
    return [
        Device(one.topic, f"{one.type} of {one.node}, domain {domain}")
        for domain, one in sorted(found)
        if one.type in (IMAGE, POINTS)
    ]


ROS2 = SourceKind(
    summary="ROS 2 drivers through rmw_zenoh, and bags (sqlite3, MCAP)",
    options=Ros2Options,
    open=open_camera,
    triggers=("free_run", "hard_wired"),
    devices=devices,
    packages={"zenoh": "[ros2]", "rosbags": "[ros2]"},
)
