"""A RealSense camera without hardware: the SDK's own ``software_device``, in a context of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from asperity.runtime.cameras.source import Triggers
from asperity.runtime.cameras.sources.realsense.device import sdk
from asperity.runtime.cameras.sources.realsense.options import RealSenseOptions
from asperity.runtime.cameras.sources.realsense.source import RealSense

if find_spec("pyrealsense2") is None:
    pytest.skip("pyrealsense2 is not installed", allow_module_level=True)
rs = sdk()
FPS = 30
PERIOD_US = 1e6 / FPS
OPTIONS = {"laser_power": (0.0, 360.0, 150.0, 30.0), "exposure": (1.0, 1000.0, 85.0, 1.0),
           "inter_cam_sync_mode": (0.0, 4.0, 0.0, 1.0), "global_time_enabled": (0.0, 1.0, 1.0, 1.0)}  # fmt: skip
"""Least, most, default, step."""


class Lens(NamedTuple):
    """Of one stream. RealSense cameras say ``inverse_brown_conrady`` even where all coefficients are 0."""

    f_px: float = 60.0
    coefficients: Sequence[float] = (0.0,) * 5
    shift_m: float = 0.0
    """How far the colour camera is to the side of the depth camera."""


class Emulated:
    """A camera of a depth and a colour sensor. Exposes when it is told to."""

    def __init__(
        self, shape: tuple[int, int] = (48, 64), *, serial: str = "0001", lens: Lens | None = None,
        colour_lens: Lens | None = None, domain: str = "hardware_clock", unit_m: float = 0.001, usb: str = "3.2",
        context: Any = None,
    ) -> None:  # fmt: skip
        self.shape, self.unit_m, self.serial = shape, unit_m, serial
        self.domain = getattr(rs.timestamp_domain, domain)
        self.number = 0
        self.context = context or rs.context()
        self._hub = rs.device_hub(self.context)  # since 2.56 nothing is added to a context without one
        self.device = rs.software_device()
        for key, text in (("name", "Emulated D435"), ("serial_number", serial), ("firmware_version", "5.17.0.10"),
                          ("usb_type_descriptor", usb)):  # fmt: skip
            self.device.register_info(getattr(rs.camera_info, key), text)
        self.depth, self.colour = self.device.add_sensor("Stereo Module"), self.device.add_sensor("RGB Camera")
        lens = lens or Lens()
        colour_lens = colour_lens or lens
        self._depth = self.depth.add_video_stream(self._stream(rs.stream.depth, rs.format.z16, 2, lens))
        self._colour = self.colour.add_video_stream(self._stream(rs.stream.color, rs.format.rgb8, 3, colour_lens))
        between = rs.extrinsics()
        between.rotation, between.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [colour_lens.shift_m, 0, 0]
        self._depth.register_extrinsics_to(self._colour, between)
        self.depth.add_read_only_option(rs.option.depth_units, unit_m)
        for sensor in (self.depth, self.colour):
            for name, span in OPTIONS.items():
                sensor.add_option(getattr(rs.option, name), rs.option_range(*span), True)
        self.device.add_to(self.context)

    def _stream(self, kind: Any, form: Any, nbytes: int, lens: Lens) -> Any:
        given, stream = rs.intrinsics(), rs.video_stream()
        given.height, given.width = self.shape
        given.fx = given.fy = lens.f_px
        given.ppx, given.ppy = (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2
        given.model, given.coeffs = rs.distortion.inverse_brown_conrady, list(lens.coefficients)
        stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = kind, 0, int(kind), form, nbytes
        stream.width, stream.height, stream.fps, stream.intrinsics = given.width, given.height, FPS, given
        return stream

    def options(self, **more: Any) -> RealSenseOptions:
        """What opens this camera."""
        height, width = self.shape
        given = {"depth_width_px": width, "depth_height_px": height, "colour_width_px": width,
                 "colour_height_px": height, "fps": FPS, "warm_up_frames": 0, "serial": self.serial}  # fmt: skip
        return RealSenseOptions(**given | more)

    def open(self, triggers: Triggers = "free_run", **options: Any) -> RealSense:
        return RealSense(self.options(**options), triggers, self.context)

    def expose(
        self, depth: NDArray[np.uint16] | int, rgb: NDArray[np.uint8] | int, *, at_us: float | None = None,
        streams: str = "dc", colour_later_us: float = 100.0, number: int | None = None,
        metadata: dict[str, int] | None = None,
    ) -> int:  # fmt: skip
        """One exposure; its number. ``streams``: those of which a picture arrives. A number fills a whole picture."""
        self.number = number or self.number + 1
        at_us = self.number * PERIOD_US if at_us is None else at_us
        halves = {"d": (self.depth, self._depth, np.uint16, (), depth, at_us, 0),
                  "c": (self.colour, self._colour, np.uint8, (3,), rgb, at_us + colour_later_us, 500)}  # fmt: skip
        for stream in streams:
            sensor, profile, dtype, channels, values, stamp_us, offset = halves[stream]
            for name, value in (metadata or {}).items():
                sensor.set_metadata(getattr(rs.frame_metadata_value, name), value)
            picture = rs.software_video_frame()
            stored = np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype), (*self.shape, *channels)))
            picture.pixels, picture.bpp = stored, stored.itemsize * (channels or (1,))[0]
            picture.stride = self.shape[1] * picture.bpp
            picture.timestamp, picture.domain = stamp_us / 1000, self.domain
            picture.frame_number = self.number + offset
            picture.profile = profile.as_video_stream_profile()
            if stream == "d":
                picture.depth_units = self.unit_m
            sensor.on_video_frame(picture)
        return self.number

    def record(self, file: Path, exposures: Callable[[], object]) -> None:
        """Write a recording of what ``exposures`` exposes."""
        device = next(each for each in self.context.query_devices())
        recorder = rs.recorder(str(file), device)
        sensors = recorder.query_sensors()
        for sensor in sensors:
            sensor.open(sensor.get_stream_profiles()[0])
            sensor.start(lambda picture: None)
        exposures()
        for sensor in sensors:
            sensor.stop()
            sensor.close()


class FreeRun:
    """Exposes again and again in a thread, each exposure of its own colour. For a ``with``."""

    def __init__(self, camera: Emulated, stamp_us: Callable[[], float], period_s: float = 1 / FPS) -> None:
        self.begun_us: dict[int, float] = {}
        """Colour -> when the exposure began, by the clock of the stamps."""
        self._camera, self._stamp_us, self._period_s = camera, stamp_us, period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            number, begun_us = self._camera.number + 1, self._stamp_us()
            self.begun_us[number % 256] = begun_us
            time.sleep(self._period_s)  # the exposure and its way here
            self._camera.expose(400, number % 256, at_us=begun_us + self._period_s * 5e5)

    def __enter__(self) -> FreeRun:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
