"""Makes a frame of a depth and a colour picture of a RealSense camera: both on the pixels of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from asperity.runtime.cameras import coordinates, pixels
from asperity.runtime.cameras.sources.realsense_options import RealSenseOptions
from asperity.runtime.cameras.sources.realsense_pairing import Pair
from asperity.runtime.errors import CameraLostError
from asperity.runtime.frame import Clock, FloatArray, Frame, Intrinsics


class Grid:
    """The pixels of the frames of one camera."""

    def __init__(self, rs: Any, depth: Any, colour: Any, options: RealSenseOptions) -> None:
        self._rs, self._options = rs, options
        self._cloud = rs.pointcloud()
        self._align = None
        if not _same_lens(depth, colour):
            self._align = rs.align(rs.stream.depth if options.align == "depth" else rs.stream.color)
        self._made: list[Any] = []
        self._halves: list[Any] = []
        # The SDK's filters take framesets, and only its own blocks make them.
        self._joiner = rs.processing_block(self._join)
        self._joiner.start(self._made.append)

    def frame(self, pair: Pair[Any], sensor: str, exposed: int, clock: Clock) -> Frame:
        """Raises CameraLostError for pictures that are not as they were set, RuntimeError of the SDK."""
        depth, colour = pair.depth.picture, pair.colour.picture
        if self._align is not None:
            both = self._align.process(self._together(depth, colour))
            depth, colour = both.get_depth_frame(), both.get_color_frame()
        stored, rgb = np.asanyarray(depth.get_data()), np.asanyarray(colour.get_data())
        if stored.dtype != np.uint16 or stored.shape != rgb.shape[:2]:
            raise CameraLostError(
                f"{sensor} gave depth {stored.dtype} {stored.shape} with colour {rgb.shape}; it is not as it was set"
            )
        lens = _lens(depth.profile.as_video_stream_profile().get_intrinsics())
        form = colour.profile.format().name
        common: dict[str, Any] = {
            "camera": "", "camera_session": "", "seq": 0, "sensor": sensor, "t_exposure_us": exposed, "clock": clock,
            "rgb": pixels.colour(rgb, form, *stored.shape).rgb,
        }  # fmt: skip
        if lens.model == "pinhole":
            unit_mm = depth.as_depth_frame().get_units() * 1000
            # 7 digits are what the SDK's float32 has.
            return Frame(**common, depth=stored.copy(), intrinsics=lens, unit="mm", scale=float(f"{unit_mm:.7g}"))
        points: FloatArray = np.asanyarray(self._cloud.calculate(depth).get_vertices(2)).reshape(*stored.shape, 3)
        return Frame(**common, xyz=points.copy(), unit="m")

    def _together(self, depth: Any, colour: Any) -> Any:
        self._halves[:] = depth, colour
        self._joiner.invoke(depth)
        made = self._made.pop().as_frameset()
        self._halves.clear()
        return made

    def _join(self, _: Any, source: Any) -> None:
        source.frame_ready(source.allocate_composite_frame(self._halves))


def _same_lens(depth: Any, colour: Any) -> bool:
    """Whether both pictures have the same pixels; resampling between them would only lose points."""
    one, other = depth.get_intrinsics(), colour.get_intrinsics()
    if (one.width, one.height, _lens(one)) != (other.width, other.height, _lens(other)):
        return False
    between = depth.get_extrinsics_to(colour)
    return list(between.rotation) == [1, 0, 0, 0, 1, 0, 0, 0, 1] and list(between.translation) == [0, 0, 0]


def _lens(given: Any) -> Intrinsics:
    return coordinates.intrinsics(given.fx, given.fy, given.ppx, given.ppy, given.model.name, tuple(given.coeffs))
