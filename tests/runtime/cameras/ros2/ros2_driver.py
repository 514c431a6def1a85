"""A stand-in for a ROS 2 driver on rmw_zenoh: its keys, liveliness tokens, attachments and CDR. Also a process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zenoh
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore
from zenoh.ext import Int64, z_serialize

from asperity.runtime.cameras.sources.ros2.keys import IMAGE, INFO, POINTS, dds_type
from tests.places import ROOT

COLOUR, CLOUD, DEPTH, CAMERA_INFO = "/cam/image", "/cam/points", "/cam/depth", "/cam/camera_info"
TYPES = {COLOUR: IMAGE, CLOUD: POINTS, DEPTH: IMAGE, CAMERA_INFO: INFO}
FRAME_ID = "cam_optical"
PERIOD_NS = 100_000_000
FIRST_NS = 1_700_000_000_000_000_000
HASH = "RIHS01_" + 64 * "0"
QOS = "::,10:,:,:,,"


@cache
def store() -> Any:
    return get_typestore(Stores.LATEST)


def stamp_ns(exposure: int) -> int:
    return FIRST_NS + exposure * PERIOD_NS


def encoded(kind: str, little: bool = True, **fields: Any) -> bytes:
    """A message in CDR. ``stamp_ns`` and ``frame_id`` go into the header."""
    at_ns = fields.pop("stamp_ns")
    header = store().types["std_msgs/msg/Header"](
        stamp=store().types["builtin_interfaces/msg/Time"](sec=at_ns // 10**9, nanosec=at_ns % 10**9),
        frame_id=fields.pop("frame_id", FRAME_ID),
    )
    message = store().types[kind](header=header, **fields)
    return bytes(store().serialize_cdr(message, kind, little_endian=little))


def image(pixels: NDArray[Any], encoding: str, at_ns: int, big: bool = False, pad: int = 0, **changed: Any) -> bytes:
    """An Image, its rows ``pad`` bytes longer than needed."""
    flat = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))).view(np.uint8)
    rows = np.pad(flat.reshape(len(pixels), -1), ((0, 0), (0, pad)))
    fields: dict[str, Any] = {
        "height": pixels.shape[0], "width": pixels.shape[1], "encoding": encoding, "is_bigendian": int(big),
        "step": rows.shape[1], "data": rows.reshape(-1), "stamp_ns": at_ns,
    }  # fmt: skip
    return encoded(IMAGE, **fields | changed)


def cloud(xyz: NDArray[Any], at_ns: int, rgb: NDArray[np.uint8] | None = None, big: bool = False,
          little: bool = True, **changed: Any) -> bytes:  # fmt: skip
    """A PointCloud2 with x, y, z (f4 or f8), 4 unused bytes, and a packed rgb."""
    order, code = ">" if big else "<", xyz.dtype.str[1:]
    names = {"x": code, "y": code, "z": code, "unused": "u4"} | ({"rgb": "u4"} if rgb is not None else {})
    points = np.zeros(xyz.shape[:2], [(name, order + kind) for name, kind in names.items()])
    for axis, name in enumerate("xyz"):
        points[name] = xyz[..., axis]
    if rgb is not None:
        points["rgb"] = rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    field = store().types["sensor_msgs/msg/PointField"]
    kinds = {"f4": 7, "f8": 8, "u4": 6}
    assert points.dtype.fields is not None
    listed = [
        field(name=name, offset=points.dtype.fields[name][1], datatype=7 if name == "rgb" else kinds[kind], count=1)
        for name, kind in names.items()
    ]
    fields: dict[str, Any] = {
        "height": xyz.shape[0], "width": xyz.shape[1], "fields": listed, "is_bigendian": big,
        "point_step": points.itemsize, "row_step": points.itemsize * xyz.shape[1],
        "data": points.reshape(-1).view(np.uint8), "is_dense": False, "stamp_ns": at_ns,
    }  # fmt: skip
    return encoded(POINTS, little, **fields | changed)


def camera_info(shape: tuple[int, int], at_ns: int, f: float = 200.0, **changed: Any) -> bytes:
    """A CameraInfo without distortion."""
    height, width = shape
    fields: dict[str, Any] = {
        "height": height, "width": width, "distortion_model": "plumb_bob", "d": np.zeros(5),
        "k": np.array([f, 0, width / 2, 0, f, height / 2, 0, 0, 1]), "r": np.eye(3).reshape(-1),
        "p": np.array([f, 0, width / 2, 0, 0, f, height / 2, 0, 0, 0, 1, 0]), "binning_x": 0, "binning_y": 0,
        "roi": store().types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
        "stamp_ns": at_ns,
    }  # fmt: skip
    return encoded(INFO, **fields | changed)


def config(mode: str, port: int, *, connect: bool) -> zenoh.Config:
    """Of a session that listens on a port of the loopback interface, or calls it."""
    made = zenoh.Config()
    for key, value in {
        "mode": json.dumps(mode), "listen/endpoints": "[]", "connect/endpoints": "[]",
        f"{'connect' if connect else 'listen'}/endpoints": json.dumps([f"tcp/127.0.0.1:{port}"]),
        "scouting/multicast/enabled": "false", "scouting/gossip/enabled": "false",
        "transport/shared_memory/enabled": "false",
    }.items():  # fmt: skip
        made.insert_json5(key, value)
    return made


class Driver:
    """A node with publishers."""

    def __init__(
        self, port: int, topics: Sequence[str], *, domain: int = 0, node: str = "camera", connect: bool = False,
        types: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Listen on the port of the loopback interface, or call it."""
        self.session = zenoh.open(config("peer", port, connect=connect))
        self._kinds = TYPES | (types or {})
        self.sequence = dict.fromkeys(topics, 0)
        self.gid = {topic: bytes([at + 1]) * 16 for at, topic in enumerate(topics)}
        self.named = False
        """The attachment's older form."""
        self._publishers, self._tokens = {}, []
        for at, topic in enumerate(topics):
            kind = f"{dds_type(self._kinds[topic])}/{HASH}"
            self._publishers[topic] = self.session.declare_publisher(
                f"{domain}/{topic.strip('/')}/{kind}", congestion_control=zenoh.CongestionControl.BLOCK
            )
            token = f"@ros2_lv/{domain}/{self.session.zid()}/0/{at + 1}/MP/%/%cam/{node}/{topic.replace('/', '%')}"
            self._tokens.append(self.session.liveliness().declare_token(f"{token}/{kind}/{QOS}"))

    def await_subscribers(self, timeout_s: float = 60.0) -> None:
        """Wait until somebody has subscribed to all topics."""
        ends_s = time.monotonic() + timeout_s
        while not all(each.matching_status.matching for each in self._publishers.values()):
            assert time.monotonic() < ends_s, "nobody subscribed"
            time.sleep(0.005)

    def publish(self, topic: str, message: bytes, *, lost: bool = False, attached: bool = True) -> None:
        """Send a message, or only count it."""
        self.sequence[topic] += 1
        if lost:
            return
        numbers = (Int64(self.sequence[topic]), Int64(time.time_ns()), self.gid[topic])
        names = ("sequence_number", "source_timestamp", "source_gid")
        said: Any = tuple(part for pair in zip(names, numbers, strict=True) for part in pair) if self.named else numbers
        self._publishers[topic].put(message, attachment=z_serialize(said) if attached else None)

    def withdraw(self) -> None:
        """Undeclare the first publisher's token."""
        self._tokens.pop(0).undeclare()

    def close(self) -> None:
        self.session.close()


def main(port: str, frames_file: str) -> None:
    """Publish an exposure for each line on stdin, and end with stdin.

    A line names the frame in the file (arrays rgb, xyz): ``3``; ``3c``: only its colour arrives; ``3-``: nothing
    arrives; ``3/4``: with the colour of frame 4; ``3+``: its points have the next exposure's stamp.
    """
    frames = np.load(frames_file)
    driver = Driver(int(port), [COLOUR, CLOUD])
    driver.await_subscribers()
    for exposure, line in enumerate(sys.stdin):
        step = line.strip()
        frame, _, other = step.rstrip("c-+").partition("/")
        at_ns, points_ns = stamp_ns(exposure), stamp_ns(exposure + step.endswith("+"))
        driver.publish(COLOUR, image(frames["rgb"][int(other or frame)], "rgb8", at_ns), lost=step[-1] == "-")
        driver.publish(CLOUD, cloud(frames["xyz"][int(frame)], points_ns), lost=step[-1] in "c-")


def driver_command(port: int, frames_file: Path) -> list[str]:
    """The command line of the driver as a process."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {__name__} import main; main(*sys.argv[1:])"
    return [sys.executable, "-u", "-c", code, str(port), str(frames_file)]
