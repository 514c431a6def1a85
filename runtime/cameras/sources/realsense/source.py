"""RealSense cameras (D400 series) by Intel's SDK, ``librealsense``: docs/cameras/realsense.md.

Sensors are opened without the SDK's pipeline, which mixes exposures (``realsense_pairing``) and, when a camera is
unplugged, opens it again by itself without its settings.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from asperity.runtime.cameras.source import Device, Shot, SourceKind, Triggers
from asperity.runtime.cameras.sources.realsense import device as device_of
from asperity.runtime.cameras.sources.realsense.grid import Grid
from asperity.runtime.cameras.sources.realsense.options import RealSenseOptions
from asperity.runtime.cameras.sources.realsense.pairing import (
    COUNTER,
    Half,
    Pair,
    Pairing,
    Unwrapped,
    begun_us,
    exposed_us,
)
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError, SourceEnded, first_line
from asperity.runtime.frame import Clock

log = logging.getLogger(__name__)

WAITING_MAX = 16
"""Pictures, of both streams, between the SDK and us; of more, the oldest are dropped and so counted as missed."""
LOOK_S = 0.1
"""How often a camera that gives nothing is asked whether it is there."""
WARM_UP_S = 10.0
WRONG_CLOCK_S = 5.0
"""How long pictures may have another clock at the start: the SDK needs some time to map the camera's to this one's."""
HOST_CLOCK_S = 5.0
"""An exposure that just came is not older than this by this computer's clock, if that is its clock."""
MAPPED_CLOCK_US = 5000
"""How far the SDK's mapping of the camera's clock to this computer's is trusted: a trigger waits this much more."""
EXTERNAL_SYNC_MIN = 3
"""inter_cam_sync_mode from which on the camera exposes when its trigger line says so: full slave, genlock."""


class RealSense:
    """An open camera, or a recording that is played."""

    def __init__(self, options: RealSenseOptions, triggers: Triggers, context: Any = None) -> None:
        """Raises CameraError, ConfigError. ``context``: of the SDK, where one is there already."""
        self._options, self._triggers = options, triggers
        _check_options(options, triggers)
        self._rs = device_of.sdk()
        self._queue: queue.Queue[Any] = queue.Queue(WAITING_MAX)
        self._started: list[Any] = []
        self._closed = False
        self._all_started = threading.Event()
        self._is_playing = False
        self._period_us = 1e6 / options.fps
        half_us = self._period_us / 2
        self._pairing: Pairing[Any] = Pairing(min(options.pair_max_us or half_us, half_us))
        self._counts = Unwrapped(), Unwrapped()
        self._clock, self._clock_read_s = Unwrapped(), time.monotonic()
        self._ready: list[Pair[Any]] = []
        self._after_us: float | None = None
        self._has_clock = False
        self._wrong_since_s: float | None = None
        self._lost = 0
        self._pace: tuple[int, float] | None = None
        self.sensor = "the RealSense camera"
        try:
            self._open(context or self._rs.context())
        except RuntimeError as error:
            self.close()
            raise CameraError(
                f"{self.sensor} cannot be opened: {first_line(error)}; close other programs that use it"
            ) from error
        except BaseException:
            self.close()
            raise

    def _open(self, context: Any) -> None:
        rs, options = self._rs, self._options
        if options.play:
            self._device = device_of.load_recording(rs, context, Path(options.play), options.serial)
        else:
            self._device = device_of.choose(rs, context, options.serial)
        self.sensor = device_of.sensor_text(rs, self._device)
        depth, colour = device_of.find_profiles(rs, self._device, options)
        self._grid = Grid(rs, depth[1], colour[1], options)
        if self._triggers == "software" and options.clock == "device":
            self._now_us()
        if options.play:
            self._start(depth, colour)
            return
        device_of.apply_settings(rs, self._device, depth[0], colour[0], options)
        self._start(depth, colour)
        device_of.check_settings(rs, depth[0], colour[0], options)
        self._warm_up()

    def shot(self, timeout_ms: int) -> Shot | None:
        """As ``Source.shot``. Raises SourceEnded at the end of a recording."""
        ends_s = time.monotonic() + timeout_ms / 1000
        while True:
            pair = self._next_pair(ends_s)
            if pair is None:
                return None
            if self._after_us is None or begun_us(pair, self._period_us) >= self._after_us:
                return self._shot(pair)

    def trigger(self) -> None:
        """As ``Source.trigger``: the camera runs freely, and what began before now is discarded."""
        while not self._queue.empty():
            with suppress(queue.Empty):
                self._queue.get_nowait()
        self._pairing.clear()
        self._ready.clear()
        if self._options.clock == "host":
            self._after_us = time.time_ns() / 1000 + MAPPED_CLOCK_US
        else:
            self._after_us = self._now_us()

    def close(self) -> None:
        """As ``Source.close``."""
        self._closed = True
        while self._started:
            sensor = self._started.pop()
            for end in (sensor.stop, sensor.close):
                with suppress(RuntimeError):  # of a camera that is gone, or a recording that has ended
                    end()

    # ------------------------------------------------------------------ pictures

    def _start(self, depth: tuple[Any, Any], colour: tuple[Any, Any]) -> None:
        if depth[0].name == colour[0].name:  # a D405 has one sensor for both
            depth[0].open([depth[1], colour[1]])
            self._started = [depth[0]]
        else:
            for sensor, profile in (depth, colour):
                sensor.open(profile)
                self._started.append(sensor)
        take = self._take_all if self._options.play else self._take_new
        for sensor in self._started:
            # A function, not the SDK's queue: in this version a full one waits without letting Python run.
            sensor.start(take)
        self._all_started.set()

    def _take_new(self, picture: Any) -> None:
        """Called by the SDK's threads."""
        while not self._closed:
            with suppress(queue.Full):
                self._queue.put_nowait(picture)
                return
            with suppress(queue.Empty):
                self._queue.get_nowait()

    def _take_all(self, picture: Any) -> None:
        """Called by the SDK's thread that reads a recording, which waits for us."""
        while not self._closed:
            with suppress(queue.Full):
                if not self._all_started.wait(0.1):  # it would drop the pictures of a sensor that was not started yet
                    continue
                self._is_playing = True
                self._queue.put(picture, timeout=0.1)
                return

    def _next_pair(self, ends_s: float) -> Pair[Any] | None:
        """The oldest pair, None when there is none until then."""
        while not self._ready:
            over = self._is_over()  # asked before the queue is looked at: what comes before the end is in it
            try:
                left_s = 0.0 if over else ends_s - time.monotonic()
                picture = self._queue.get(timeout=min(max(0.001, left_s), LOOK_S))
            except queue.Empty:
                if over:
                    alone = self._lost + self._pairing.waiting
                    raise SourceEnded(
                        f"the recording {self._options.play} has ended; {alone} pictures had no other half"
                    ) from None
                self._check_connected()
                if time.monotonic() >= ends_s:
                    return None
                continue
            self._add(picture)
        if self._options.play and self._too_early(self._ready[0], ends_s):
            return None
        return self._ready.pop(0)

    def _check_connected(self) -> None:
        try:
            connected = self._device.is_connected()
        except RuntimeError as error:
            raise CameraLostError(f"{self.sensor}: the SDK failed: {first_line(error)}") from error
        if not connected:
            raise CameraLostError(f"{self.sensor} was disconnected; check its cable and power")

    def _is_over(self) -> bool:
        # A recording is also stopped until the SDK's thread has read something.
        return self._is_playing and self._device.current_status() == self._rs.playback_status.stopped

    def _add(self, picture: Any) -> None:
        stream = picture.profile.stream_type()
        if stream not in (self._rs.stream.depth, self._rs.stream.color) or not self._is_in_clock(picture):
            return
        is_colour = stream == self._rs.stream.color
        stamp_us = self._stamp_us(picture)
        half = Half(stamp_us, self._counts[is_colour](picture.get_frame_number() % COUNTER), picture)
        pairs, alone = self._pairing.add(half, is_colour)
        self._ready += pairs
        for text in alone:
            self._lose(text, half)

    def _lose(self, text: str, newest: Half[Any]) -> None:
        if self._triggers == "software" and (self._after_us is None or newest.stamp_us < self._after_us):
            return  # nobody asked for it
        self._lost += 1
        if self._lost & (self._lost - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            log.warning("%s: %s; %d pictures were left out so far", self.sensor, text, self._lost)

    def _is_in_clock(self, picture: Any) -> bool:
        """Whether the stamp is of the clock that was asked for. Raises CameraLostError when that changes."""
        domain, domains = picture.get_frame_timestamp_domain(), self._rs.timestamp_domain
        if self._options.play:
            # Recorded stamps are of no clock of today, whatever they are called.
            return True
        wanted = {"device": domains.hardware_clock, "host": domains.global_time}.get(self._options.clock)
        if wanted is None or domain == wanted:
            if wanted == domains.global_time and not self._has_clock:
                self._check_host_clock(picture)
            self._has_clock = True
            return True
        now_s = time.monotonic()
        self._wrong_since_s = self._wrong_since_s or now_s
        if self._has_clock or now_s - self._wrong_since_s > WRONG_CLOCK_S:
            raise CameraLostError(
                f"{self.sensor} stamps its pictures by {domain.name}, not {wanted.name} ([realsense] clock = "
                f"{self._options.clock!r}); system_time is when a picture arrived, not when it was exposed: install "
                "the SDK's kernel modules for metadata, or choose another clock"
            )
        return False

    def _check_host_clock(self, picture: Any) -> None:
        apart_s = time.time() - picture.get_timestamp() / 1000
        if abs(apart_s) > HOST_CLOCK_S:
            raise CameraLostError(
                f"{self.sensor} stamps its pictures {apart_s:.1f} s before the clock of this computer; set [realsense] "
                "clock = 'device'"
            )

    def _stamp_us(self, picture: Any) -> int:
        """When the picture was exposed or read, one clock for both streams."""
        if picture.get_frame_timestamp_domain() == self._rs.timestamp_domain.system_time:
            sensor_us = _metadata(self._rs, picture, "sensor_timestamp")
            if sensor_us is not None:
                return self._device_us(sensor_us)
        stamp_us = round(float(picture.get_timestamp()) * 1000)
        if picture.get_frame_timestamp_domain() == self._rs.timestamp_domain.hardware_clock:
            return self._device_us(stamp_us)
        return stamp_us

    def _device_us(self, value: int) -> int:
        """The device's clock of 32 bits as one that only grows, also after a pause of an hour."""
        now_s = time.monotonic()
        grown_us = round((now_s - self._clock_read_s) * 1e6)
        self._clock_read_s = now_s
        return self._clock(value % COUNTER, grown_us)

    def _now_us(self) -> int:
        """The camera's clock, read now. Raises CameraError."""
        try:
            return self._device_us(int(self._device.get_device_time_ms() * 1000))
        except RuntimeError as error:
            raise CameraError(
                f"{self.sensor} does not tell its time ({first_line(error)}), so that it is not known which exposures "
                "are later than a trigger; set [realsense] clock = 'host'"
            ) from error

    def _warm_up(self) -> None:
        """Discard the first exposures. Raises CameraError when none come."""
        if self._triggers == "hard_wired":
            return
        ends_s = time.monotonic() + WARM_UP_S + self._options.warm_up_frames / self._options.fps
        for done in range(self._options.warm_up_frames):
            if self._next_pair(ends_s) is None:
                raise CameraError(
                    f"{self.sensor} gave {done} exposures of {self._options.warm_up_frames} in time "
                    f"({self._lost} pictures without their other half); check its USB cable and port"
                )

    def _too_early(self, pair: Pair[Any], ends_s: float) -> bool:
        """Wait until a recorded pair is due, as the camera gave it; whether it is still too early."""
        if self._pace is None:
            self._pace = pair.depth.stamp_us, time.monotonic()
        due_s = self._pace[1] + (pair.depth.stamp_us - self._pace[0]) / 1e6
        time.sleep(max(0.0, min(due_s, ends_s) - time.monotonic()))
        return due_s > ends_s

    def _shot(self, pair: Pair[Any]) -> Shot:
        try:
            frame = self._grid.frame(pair, self.sensor, *self._exposure(pair.depth))
        except RuntimeError as error:
            raise CameraLostError(f"{self.sensor}: the SDK failed: {first_line(error)}") from error
        return Shot(frame, None if self._triggers == "software" else pair.depth.number)

    def _exposure(self, depth: Half[Any]) -> tuple[int, Clock]:
        """Exposure time in microseconds, 0 where there is none, and its clock."""
        clock: Clock = "realtime" if self._options.clock == "host" and not self._options.play else "device"
        sensor_us = _metadata(self._rs, depth.picture, "sensor_timestamp")
        if depth.picture.get_frame_timestamp_domain() == self._rs.timestamp_domain.system_time:
            return (0 if sensor_us is None else depth.stamp_us), clock
        frame_us = _metadata(self._rs, depth.picture, "frame_timestamp")
        return exposed_us(depth.stamp_us, frame_us, sensor_us, self._period_us), clock


def _check_options(options: RealSenseOptions, triggers: Triggers) -> None:
    for table in (options.depth_settings, options.colour_settings):
        if device_of.CLOCK_OPTION in table:
            raise ConfigError(f"[realsense] {device_of.CLOCK_OPTION} is not a setting; use clock")
    if options.play and (options.depth_settings or options.colour_settings or options.advanced_json):
        raise ConfigError("[realsense] play: a recording cannot be set; remove advanced_json and the settings")
    if options.play and triggers != "free_run":
        raise ConfigError(f"[realsense] play: a recording cannot be triggered ([live] triggers = {triggers!r})")
    if triggers == "software" and options.clock == "arrival":
        raise ConfigError(
            "[realsense] clock = 'arrival' does not say when a picture was exposed, so that it cannot be used with "
            "[live] triggers = 'software'"
        )
    mode = options.depth_settings.get("inter_cam_sync_mode", 0)
    if triggers == "hard_wired" and not (isinstance(mode, int | float) and mode >= EXTERNAL_SYNC_MIN):
        raise ConfigError(
            "[realsense] with [live] triggers = 'hard_wired' the camera must expose by its trigger line: set "
            "depth_settings = { inter_cam_sync_mode = 3 } (or 4, where the camera has it)"
        )


def _metadata(rs: Any, picture: Any, name: str) -> int | None:
    key = getattr(rs.frame_metadata_value, name)
    return int(picture.get_frame_metadata(key)) if picture.supports_frame_metadata(key) else None


def _devices() -> list[Device]:
    return device_of.devices()


open_camera: Callable[[Any, Triggers], RealSense] = RealSense

REALSENSE = SourceKind(
    summary="RealSense depth cameras (D400 series) over USB",
    options=RealSenseOptions,
    open=open_camera,
    triggers=("free_run", "software", "hard_wired"),
    devices=_devices,
    packages={"pyrealsense2": "[realsense]"},
)
