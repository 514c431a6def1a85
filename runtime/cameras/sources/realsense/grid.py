"""Makes a frame of a depth and a colour picture of a RealSense camera: both on the pixels of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from asperity.runtime.cameras.pictures import coordinates, pixels
from asperity.runtime.cameras.sources.realsense.options import RealSenseOptions
from asperity.runtime.cameras.sources.realsense.pairing import Pair
from asperity.runtime.errors import CameraLostError, ConfigError
from asperity.runtime.frame import Clock, FloatArray, Frame, Intrinsics


class Grid:
    """The pixels of the frames of one camera."""

    def __init__(self, rs: Any, depth: Any, colour: Any, options: RealSenseOptions) -> None:
        """Raises ConfigError for lenses that the SDK does not bring together exactly."""
        lens, colour_lens = (_lens(profile.get_intrinsics()) for profile in (depth, colour))
        self._align = None
        if not _same_pixels(depth, colour):
            # Its align treats a distorted lens that depth is brought to, or comes from, as one without distortion.
            if lens.model != "pinhole" or (colour_lens.model != "pinhole" and options.align == "colour"):
                raise ConfigError(
                    f"[realsense] align = {options.align!r}: the SDK does not bring a depth lens {lens.model} and a "
                    f"colour lens {colour_lens.model} together exactly; set align = 'depth', or other sizes"
                )
            self._align = rs.align(rs.stream.depth if options.align == "depth" else rs.stream.color)
        self._rays = None if lens.model == "pinhole" else _rays(rs, depth.get_intrinsics())
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
        unit_m = depth.as_depth_frame().get_units()
        form = colour.profile.format().name
        common: dict[str, Any] = {
            "camera": "", "camera_session": "", "seq": 0, "sensor": sensor, "t_exposure_us": exposed, "clock": clock,
            "rgb": pixels.colour(rgb, form, *stored.shape).rgb,
        }  # fmt: skip
        if self._rays is None:
            # 7 digits are what the SDK's float32 has.
            return Frame(**common, depth=stored.copy(), intrinsics=lens, unit="mm", scale=float(f"{unit_m * 1000:.7g}"))
        return Frame(**common, xyz=self._rays * (stored * np.float32(unit_m))[..., None], unit="m")

    def _together(self, depth: Any, colour: Any) -> Any:
        self._halves[:] = depth, colour
        self._joiner.invoke(depth)
        made = self._made.pop().as_frameset()
        self._halves.clear()
        return made

    def _join(self, _: Any, source: Any) -> None:
        source.frame_ready(source.allocate_composite_frame(self._halves))


def _rays(rs: Any, lens: Any) -> FloatArray:
    """Directions with z = 1 of every pixel. Not by ``rs.pointcloud``, whose formula is another one (up to 2 % off)."""
    if lens.model not in (rs.distortion.inverse_brown_conrady, rs.distortion.brown_conrady):
        raise ConfigError(f"[realsense] the depth lens has the distortion model {lens.model.name}, without inverse")
    rays = [rs.rs2_deproject_pixel_to_point(lens, [x, y], 1.0) for y in range(lens.height) for x in range(lens.width)]
    return np.array(rays, dtype=np.float32).reshape(lens.height, lens.width, 3)


def _same_pixels(depth: Any, colour: Any) -> bool:
    """Whether both pictures have the same pixels; resampling between them would only lose points."""
    one, other = depth.get_intrinsics(), colour.get_intrinsics()
    if (one.width, one.height, _lens(one)) != (other.width, other.height, _lens(other)):
        return False
    between = depth.get_extrinsics_to(colour)
    return list(between.rotation) == [1, 0, 0, 0, 1, 0, 0, 0, 1] and list(between.translation) == [0, 0, 0]


def _lens(given: Any) -> Intrinsics:
    return coordinates.intrinsics(given.fx, given.fy, given.ppx, given.ppy, given.model.name, tuple(given.coeffs))
