"""``[realsense]`` of camera.toml as types."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from asperity.runtime.settings.toml_tables import Section, number, path_text, text

Settings = Annotated[dict[str, float | bool | str], Meta(max_length=64)]
"""The SDK's option -> value, or one of the texts that the camera has for its values."""


class RealSenseOptions(Section, frozen=True, forbid_unknown_fields=True):
    """A RealSense camera."""

    serial: Annotated[str, text("serial number; needed when more than one camera is there. Another one is refused")] = (
        ""
    )
    depth_width_px: Annotated[int, number(16, 4096, "columns of the depth picture")] = 640
    depth_height_px: Annotated[int, number(16, 4096, "rows of the depth picture")] = 480
    colour_width_px: Annotated[int, number(16, 4096, "columns of the colour picture")] = 640
    colour_height_px: Annotated[int, number(16, 4096, "rows of the colour picture")] = 480
    fps: Annotated[int, number(1, 300, "exposures per second, of both streams")] = 30
    colour_format: Annotated[Literal["rgb8", "bgr8"], text("format of the colour picture")] = "rgb8"
    align: Annotated[
        Literal["depth", "colour"],
        text("whose pixels the frame has: the other picture is resampled to it. Nothing is resampled where both have "
             "the same lens"),
    ] = "depth"  # fmt: skip
    clock: Annotated[
        Literal["device", "host", "arrival"],
        text("exposure times are by the camera's clock (`device`), by this computer's (`host`: the SDK maps the "
             "camera's clock to it), or none (`arrival`: cameras without metadata; pairs by the time of arrival)"),
    ] = "device"  # fmt: skip
    pair_max_us: Annotated[
        int, number(0, 1_000_000, "largest difference of the stamps of depth and colour; 0: half a period, the most")
    ] = 0
    warm_up_frames: Annotated[
        int, number(0, 1000, "exposures discarded at start, while automatic exposure settles; none with `hard_wired`")
    ] = 30
    advanced_json: Annotated[
        str, path_text("file of advanced settings, as the RealSense Viewer writes it; written before all others")
    ] = ""
    depth_settings: Annotated[
        Settings, text("options of the depth sensor by their names in the SDK, written in this order and read back")
    ] = {}  # noqa: RUF012 - msgspec copies it
    colour_settings: Annotated[
        Settings, text("options of the colour sensor, likewise; where depth and colour are one sensor, they follow")
    ] = {}  # noqa: RUF012
    play: Annotated[
        str, path_text("recording (`.db3`, old `.bag`) to play instead of a camera, for tests and demonstrations")
    ] = ""
