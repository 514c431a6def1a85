"""RealSense devices through the SDK: which one, its streams, and its settings, written in order and read back."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from asperity.runtime.cameras.libusb import load_libusb
from asperity.runtime.cameras.source import Device
from asperity.runtime.cameras.sources.realsense.options import RealSenseOptions
from asperity.runtime.cameras.sources.realsense.pairing import differences
from asperity.runtime.errors import CameraError, ConfigError, first_line
from asperity.runtime.files import read_file
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json

log = logging.getLogger(__name__)

MAX_JSON_NBYTES = 2**20
CLOCK_OPTION = "global_time_enabled"
CHOICES_MAX = 64
"""Most values of an option that may have a text each."""


def sdk() -> Any:
    """The module ``pyrealsense2``. Raises CameraError."""
    # Its statistics of use stay on this computer, also when its viewer runs from here (docs/security.md).
    os.environ["RS2_RUM_CLOUD_ENABLED"] = "0"
    load_libusb("pyrealsense2")
    try:
        return import_module("pyrealsense2")
    except (ImportError, OSError) as error:
        raise CameraError(f"pyrealsense2 is installed but does not load ({error}); install it again") from error


def devices(context: Any = None) -> list[Device]:
    """The cameras that are connected. Raises CameraError."""
    rs = sdk()
    try:
        return [Device(info(rs, each, "serial_number"), _words(rs, each)) for each in _connected(rs, context)]
    except RuntimeError as error:
        raise CameraError(f"the RealSense SDK cannot list cameras: {first_line(error)}") from error


def choose(rs: Any, context: Any, serial: str) -> Any:
    """The device with this serial number, or the only one. Raises CameraError."""
    found = {info(rs, each, "serial_number"): each for each in _connected(rs, context)}
    seen = ", ".join(_words(rs, each) for each in found.values()) or "none"
    if serial and serial not in found:
        raise CameraError(
            f"there is no RealSense camera with serial number {serial}; connected: {seen}. Connect it, or set "
            "[realsense] serial to the camera that replaces it and calibrate again"
        )
    if not found:
        raise CameraError("no RealSense camera is connected; check cable, power and the udev rule (docs/cameras.md)")
    if not serial and len(found) > 1:
        raise CameraError(f"several RealSense cameras are connected ({seen}); name one in [realsense] serial")
    device = found[serial] if serial else next(iter(found.values()))
    if is_slow(rs, device):
        log.warning("%s is connected by USB 2: few sizes and rates work; use a USB 3 cable and port", seen)
    return device


def load_recording(rs: Any, context: Any, path: Path, serial: str) -> Any:
    """A recording as a device. Raises CameraError."""
    if not path.is_file():
        raise CameraError(f"[realsense] play: {path} is not a file; give a recording (.db3 or .bag)")
    try:
        device = context.load_device(str(path)).as_playback()
    except RuntimeError as error:
        raise CameraError(
            f"[realsense] play: {path} cannot be played: {first_line(error)}; pyrealsense2 2.59 plays .db3 and .bag"
        ) from error
    recorded = info(rs, device, "serial_number")
    if serial and serial != recorded:
        raise CameraError(f"[realsense] play: {path} was recorded by camera {recorded}, not {serial}")
    # Every picture is delivered, however long it takes.
    device.set_real_time(False)
    return device


def info(rs: Any, device: Any, name: str) -> str:
    """What the device says of itself; ``?`` for nothing."""
    item = getattr(rs.camera_info, name)
    return str(device.get_info(item)) if device.supports(item) else "?"


def sensor_text(rs: Any, device: Any) -> str:
    """Name, serial number and firmware, as in a frame's header."""
    named = f"{info(rs, device, 'name')} {info(rs, device, 'serial_number')} fw {info(rs, device, 'firmware_version')}"
    return "".join(sign if " " <= sign <= "~" else "?" for sign in named)[:64]


def is_slow(rs: Any, device: Any) -> bool:
    """Whether it is connected by USB 2."""
    return info(rs, device, "usb_type_descriptor").startswith("2")


def find_profiles(rs: Any, device: Any, options: RealSenseOptions) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Sensor and stream of depth, sensor and stream of colour, exactly as set. Raises ConfigError."""
    return (
        _find(rs, device, "depth", (options.depth_width_px, options.depth_height_px, options.fps, "z16")),
        _find(rs, device, "color", (options.colour_width_px, options.colour_height_px, options.fps,
                                    options.colour_format)),
    )  # fmt: skip


def apply_settings(rs: Any, device: Any, depth: Any, colour: Any, options: RealSenseOptions) -> None:
    """Write every setting, in order, and read each back. Raises CameraError, ConfigError."""
    if options.advanced_json:
        _write_advanced(rs, device, Path(options.advanced_json))
    for sensor, name, given in _tables(depth, colour, options):
        if options.clock != "arrival" and sensor.supports(getattr(rs.option, CLOCK_OPTION)):
            _write(rs, sensor, name, CLOCK_OPTION, options.clock == "host")
        for option, value in given.items():
            _write(rs, sensor, name, option, value)


def check_settings(rs: Any, depth: Any, colour: Any, options: RealSenseOptions) -> None:
    """Read every setting back once more, since one may have changed another. Raises CameraError."""
    for sensor, name, given in _tables(depth, colour, options):
        for option, value in given.items():
            if option != "visual_preset":  # which the camera calls custom once another setting was written
                _check(rs, sensor, name, option, _number(rs, sensor, name, option, value))


def _connected(rs: Any, context: Any) -> list[Any]:
    context = context or rs.context()
    # A recording that is played is a device of its context too.
    return [each for each in context.query_devices() if not each.is_playback()]


def _words(rs: Any, device: Any) -> str:
    usb = info(rs, device, "usb_type_descriptor")
    slow = " (slow: use a USB 3 cable and port)" if is_slow(rs, device) else ""
    return f"{info(rs, device, 'name')}, serial {info(rs, device, 'serial_number')}, firmware " \
           f"{info(rs, device, 'firmware_version')}, USB {usb}{slow}"  # fmt: skip


def _find(rs: Any, device: Any, stream: str, wanted: tuple[int, int, int, str]) -> tuple[Any, Any]:
    there = []
    for sensor in device.query_sensors():
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() != getattr(rs.stream, stream) or not profile.is_video_stream_profile():
                continue
            video = profile.as_video_stream_profile()
            has = (video.width(), video.height(), video.fps(), video.format().name)
            if has == wanted:
                return sensor, video
            there.append(has)
    name = "colour" if stream == "color" else stream
    has_text = ", ".join(_stream_text(one) for one in sorted(set(there))[:24]) or "none"
    raise ConfigError(
        f"[realsense] {info(rs, device, 'name')} has no {name} stream of {_stream_text(wanted)}; it has: {has_text}"
    )


def _stream_text(stream: tuple[int, int, int, str]) -> str:
    return "{} x {} at {}/s {}".format(*stream)


def _tables(
    depth: Any, colour: Any, options: RealSenseOptions
) -> Iterator[tuple[Any, str, Mapping[str, float | bool | str]]]:
    yield depth, "depth_settings", options.depth_settings
    yield colour, "colour_settings", options.colour_settings


def _write(rs: Any, sensor: Any, table: str, name: str, value: float | bool | str) -> None:
    number = _number(rs, sensor, table, name, value)
    option = rs.option.__members__[name]
    try:
        span = sensor.get_option_range(option)
        if not np.float32(span.min) <= np.float32(number) <= np.float32(span.max):
            raise ConfigError(f"[realsense] {table}: {name} is {number:g}; this camera takes {span.min:g} to "
                              f"{span.max:g} in steps of {span.step:g}")  # fmt: skip
        if not sensor.is_option_read_only(option):
            sensor.set_option(option, number)
    except RuntimeError as error:
        raise CameraError(f"[realsense] {table}: {name} = {number:g} was refused: {first_line(error)}") from error
    _check(rs, sensor, table, name, number)


def _check(rs: Any, sensor: Any, table: str, name: str, wanted: float) -> None:
    try:
        got = sensor.get_option(rs.option.__members__[name])
    except RuntimeError as error:
        raise CameraError(f"[realsense] {table}: {name} cannot be read back: {first_line(error)}") from error
    if np.float32(got) != np.float32(wanted):
        raise CameraError(
            f"[realsense] {table}: {name} was set to {wanted:g} but the camera has {got:g}; correct the value, or the "
            "setting after it that changes it"
        )


def _number(rs: Any, sensor: Any, table: str, name: str, value: float | bool | str) -> float:
    """A setting's value as the SDK takes it. Raises ConfigError."""
    option = rs.option.__members__.get(name)
    if option is None or not sensor.supports(option):
        has = [each.name for each in sensor.get_supported_options()]
        near = difflib.get_close_matches(name, has, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(has)}"
        raise ConfigError(f"[realsense] {table}: this sensor has no option {name}; {hint}")
    if not isinstance(value, str):
        return float(value)
    span = sensor.get_option_range(option)
    count = min(CHOICES_MAX, int((span.max - span.min) / (span.step or 1)) + 1)
    texts = {sensor.get_option_value_description(option, span.min + at * (span.step or 1)): span.min + at * (
        span.step or 1) for at in range(count)}  # fmt: skip
    if value not in texts:
        has_text = ", ".join(repr(text) for text in texts if text) or "none"
        raise ConfigError(f"[realsense] {table}: {name} has no value {value!r}; give a number, or one of: {has_text}")
    return float(texts[value])


def _write_advanced(rs: Any, device: Any, path: Path) -> None:
    try:
        text = read_file(path, MAX_JSON_NBYTES, follow=True)
        wanted = decode_json(text, dict[str, Any])
    except OSError as error:
        raise ConfigError(f"[realsense] advanced_json: {path} cannot be read: {error.strerror}") from error
    except TextRefused as error:
        raise ConfigError(f"[realsense] advanced_json: {path} {error}") from error
    try:
        advanced = rs.rs400_advanced_mode(device)
        if not advanced.is_enabled():
            raise CameraError(
                "[realsense] advanced_json: the camera's advanced mode is off; turn it on once in the RealSense Viewer"
            )
        advanced.load_json(text.decode())
        got = decode_json(advanced.serialize_json().encode(), dict[str, Any])
    except (RuntimeError, TextRefused) as error:
        raise CameraError(f"[realsense] advanced_json: the camera refused {path}: {first_line(error)}") from error
    if wrong := differences(wanted, got):
        raise CameraError(f"[realsense] advanced_json: the camera differs from {path}: {'; '.join(wrong[:8])}")
