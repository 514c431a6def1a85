"""The source ``genicam``: 3D cameras through the GenTL producer (.cti) of their vendor (docs/cameras/genicam.md)."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from asperity.runtime.cameras.ages import look
from asperity.runtime.cameras.source import WAITING_MAX, Shot, SourceKind, Triggers
from asperity.runtime.cameras.source import Device as Listed
from asperity.runtime.cameras.sources.genicam import nodes as nodes_of
from asperity.runtime.cameras.sources.genicam import sdk
from asperity.runtime.cameras.sources.genicam.count import ExposureCount, TriggerTimes
from asperity.runtime.cameras.sources.genicam.nodes import Nodes, Scan3d
from asperity.runtime.cameras.sources.genicam.payload import Damaged, Delivery, picture_of
from asperity.runtime.errors import CameraError, CameraLostError
from asperity.runtime.frame import Clock, Frame, Unit
from asperity.runtime.settings.toml_tables import Section, number, path_text, text

log = logging.getLogger(__name__)

CLOCK_CHECK_S = 1.0
"""How often a camera with PTP is asked whether it is still synchronised."""
SECOND_US = 1_000_000
SENSOR_CHARACTERS = 64
"""As in docs/wire.md."""
RESAMPLED = ", colour resampled"


class GenicamSection(Section, frozen=True, forbid_unknown_fields=True):
    """A camera with a GenTL producer."""

    cti: Annotated[
        str, path_text("GenTL producer of the camera's vendor (.cti), or a folder of them; empty: GENICAM_GENTL64_PATH")
    ] = ""
    serial: Annotated[
        str, text("serial number or id of the camera, as `asperity camera list` shows it; empty: the only one")
    ] = ""
    settings: Annotated[
        tuple[str, ...],
        Meta(
            max_length=256,
            description="`NODE = VALUE` each, written in order at every start and read back; `NODE = execute` for a "
            "command",
        ),
    ] = ()
    trigger_selector: Annotated[str, text("TriggerSelector of the trigger; empty: not written")] = "FrameStart"
    trigger_line: Annotated[str, text("TriggerSource with `hard_wired`: the camera's input")] = "Line0"
    white_level: Annotated[
        int, number(0, 65_535, "stored value of white, of colours with more than 8 bits; 0: all bits, not with 16")
    ] = 0
    unit: Annotated[Literal["", "m", "mm", "um"], text("unit of length, where the camera does not say it")] = ""
    buffers: Annotated[int, number(2, WAITING_MAX, "buffers of the driver: the most exposures that wait")] = 4
    discovery_ms: Annotated[int, number(100, 10_000, "longest wait of each producer's interface for cameras")] = 2000
    resample_colour: Annotated[
        bool, text("colour of another size than the 3D data is brought onto its pixels; `sensor` says so. Else refused")
    ] = False
    ptp_wait_ms: Annotated[int, number(0, 600_000, "at start, longest wait for PTP to synchronise, where it is on")] = 0
    ptp_ahead_s: Annotated[
        int, number(0, 60, "seconds that PTP time is ahead of UTC: 37 with a grandmaster that sends TAI, else 0")
    ] = 0


class Camera(Protocol):
    """An open camera: ``sdk.Device``, or a stand-in of a test."""

    @property
    def nodes(self) -> Nodes: ...
    @property
    def seen(self) -> sdk.Seen: ...
    @property
    def serial(self) -> str: ...
    @property
    def wraps(self) -> bool: ...
    def start(self, buffers: int) -> None: ...
    def fetch(self, timeout_ms: int, scan3d: Scan3d) -> Delivery | None: ...
    def close(self) -> None: ...


class GenicamSource:
    """An open camera that exposes."""

    def __init__(self, camera: Camera, options: GenicamSection, triggers: Triggers) -> None:
        """Set the camera and start it. Raises CameraError, ConfigError; the camera is closed then."""
        self._camera, self._options, self._triggers = camera, options, triggers
        self._damaged = 0
        self._came = False
        self._after: tuple[int, int] | None = None
        self._time_us = 0
        self._tells_time = False
        """Its own time was read at the last trigger."""
        self._trigger_times = TriggerTimes()
        try:
            serial = camera.serial
            if options.serial and options.serial not in (serial, camera.seen.id):
                raise CameraError(f"[genicam] serial is {options.serial} and the camera that was opened says {serial}")
            name = " ".join(filter(None, (camera.seen.text, serial or camera.seen.id)))
            said = RESAMPLED if options.resample_colour else ""
            self.sensor = "".join(letter if " " <= letter <= "~" else "?" for letter in name)
            self.sensor = self.sensor[: SENSOR_CHARACTERS - len(said)] + said
            self._set()
            self._count = ExposureCount(camera.wraps)
            camera.start(options.buffers)
        except BaseException:
            camera.close()
            raise

    def _set(self) -> None:
        nodes, options = self._camera.nodes, self._options
        wanted = [("GenDCStreamingMode", "Off"), ("AcquisitionMode", "Continuous")]
        first = [setting for setting in wanted if nodes.has(setting[0])]
        trigger = nodes_of.trigger_settings(
            self._triggers, options.trigger_selector, options.trigger_line, nodes.has("TriggerMode")
        )
        nodes_of.apply(nodes, [*first, *nodes_of.parse_settings(options.settings), *trigger])
        self._scan3d = nodes_of.read_scan3d(nodes)
        self._described: tuple[object, ...] = ()
        self._clock: Clock = nodes_of.await_clock(
            nodes, options.ptp_wait_ms, lambda: time.sleep(0.2), lambda: time.monotonic() * 1000
        )
        self._ptp_status = nodes_of.ptp_status(nodes)
        self._clock_read_s = time.monotonic()

    def shot(self, timeout_ms: int) -> Shot | None:
        """``Source.shot``."""
        ends_s = time.monotonic() + timeout_ms / 1000
        while True:
            self._check_clock()
            left_ms = max(1, round((ends_s - time.monotonic()) * 1000))
            delivery = self._camera.fetch(left_ms, self._scan3d)
            if delivery is not None:
                before, number = self._count.last, self._number(delivery)
                try:
                    frame = self._frame(delivery)
                except Damaged as damaged:
                    if self._after is not None and number > self._after[0]:
                        self._after = None  # it was the answer
                    self._note(str(damaged))
                else:
                    if not self._is_old(delivery, before, number):
                        self._came, self._time_us = True, max(self._time_us, delivery.time_us)
                        return Shot(frame, number)
            if time.monotonic() >= ends_s:
                return None

    def trigger(self) -> None:
        """``Source.trigger``."""
        unanswered = self._after
        if unanswered is not None and not self._came:
            raise CameraLostError(
                f"{self.sensor} did not answer its first trigger; its exposure could be taken for the next one's"
            )
        for surplus in range(self._options.buffers + 1):
            delivery = self._camera.fetch(1, self._scan3d)
            if delivery is None:
                break
            self._number(delivery)
            self._time_us = max(self._time_us, delivery.time_us)
            self._leave_out("it was exposed before the trigger", surplus=unanswered is None or surplus > 0)
        else:
            raise CameraLostError(f"{self.sensor} exposes without a trigger; check its trigger settings")
        # An exposure of a trigger that was not answered may still come: it has the number after that trigger's.
        owed = 0 if unanswered is None else unanswered[0] + 1
        self._after = max(self._count.last, owed), self._time_us
        nodes = self._camera.nodes
        before_us, device_us = look().ns // 1000, nodes_of.read_time_us(nodes)
        self._tells_time = device_us > 0
        nodes.execute("TriggerSoftware")
        self._trigger_times.triggered(before_us, look().ns // 1000, device_us)

    def _is_old(self, delivery: Delivery, before: int, number: int) -> bool:
        """Whether an exposure is not the answer to the last trigger. Raises CameraLostError for one out of order."""
        if self._after is None:
            if self._triggers == "software":
                self._leave_out("no trigger asked for it", surplus=True)
            return self._triggers == "software"
        last, time_us = self._after
        if not delivery.time_us:
            raise CameraLostError(
                f"{self.sensor} does not say when it exposed, so that an exposure too many would get the next part's "
                "trigger; switch on its time stamps (ChunkModeActive, ChunkSelector = Timestamp, ChunkEnable), or use "
                "[live] triggers = free_run"
            )
        if (self._came and number <= before) or delivery.time_us <= time_us:
            raise CameraLostError(f"{self.sensor} answered a trigger with exposure {number}, from before it")
        if self._came and number <= last:
            self._note("it answers an earlier trigger")
            return True
        if self._trigger_times.is_before(delivery.time_us):
            self._leave_out("it was exposed before the trigger", surplus=True)
            return True
        self._after = None
        return False

    def _leave_out(self, why: str, surplus: bool) -> None:
        """An exposure that answers no trigger.

        Raises CameraLostError where it is one too many of a camera that does not tell its time: the next one may come
        so soon before a trigger that nothing tells it from the answer.
        """
        if surplus and self._came and not self._tells_time:
            raise CameraLostError(
                f"{self.sensor} exposes more than once for a trigger, and its clock cannot be read (TimestampLatch): a "
                "part could get the picture of the one before; set it to one exposure per trigger "
                "(AcquisitionBurstFrameCount)"
            )
        self._note(why)

    def close(self) -> None:
        """``Source.close``."""
        self._camera.close()

    def _number(self, delivery: Delivery) -> int:
        """The exposure's number; of an incomplete one, whose id may not be known, the last that is."""
        if not delivery.parts and delivery.frame_id is None:
            self._count.damaged()
            return self._count.last
        return self._count.number(delivery.frame_id)

    def _frame(self, delivery: Delivery) -> Frame:
        """Raises Damaged, CameraLostError."""
        if not delivery.parts:
            raise Damaged("its buffer came incomplete")
        options = self._options
        unit: Unit | None = options.unit or None
        try:
            picture = picture_of(delivery, options.white_level, unit)
        except Damaged as damaged:
            if not self._came:
                raise CameraError(
                    f"{self.sensor}: the first exposure cannot be used: {damaged}; switch on its components by "
                    "ComponentSelector and ComponentEnable in [genicam] settings"
                ) from damaged
            raise
        self._check_same(delivery)
        if picture.colour_px != picture.rgb.shape[:2] and not options.resample_colour:
            rows, columns = picture.colour_px
            raise CameraError(
                f"{self.sensor} gives colour of {columns} x {rows} pixels and 3D data of {picture.rgb.shape[1]} x "
                f"{picture.rgb.shape[0]}; set the camera to one size, or [genicam] resample_colour = true"
            )
        ahead_us = options.ptp_ahead_s * SECOND_US if self._clock == "ptp" else 0
        return Frame(
            camera="", camera_session="", seq=0, rgb=picture.rgb, xyz=picture.xyz, depth=picture.depth,
            intrinsics=picture.intrinsics, unit=picture.unit, scale=picture.scale, offset=picture.offset,
            invalid=picture.invalid, t_exposure_us=max(0, delivery.time_us - ahead_us), clock=self._clock,
            sensor=self.sensor,
        )  # fmt: skip

    def _check_same(self, delivery: Delivery) -> None:
        """Raises CameraLostError where components, formats, sizes or the meaning of the 3D data changed."""
        described = (*(part[:5] for part in delivery.parts), *delivery.scan3d.described())
        if self._described and described != self._described:
            raise CameraLostError(
                f"{self.sensor} changed from {self._described} to {described} while it was open; its frames are not "
                "comparable"
            )
        self._described = described

    def _check_clock(self) -> None:
        if self._clock == "device" or time.monotonic() - self._clock_read_s < CLOCK_CHECK_S:
            return
        self._clock_read_s = time.monotonic()
        status = nodes_of.ptp_status(self._camera.nodes)
        if status != self._ptp_status:  # a Slave that is Master now has lost its grandmaster
            raise CameraLostError(
                f"{self.sensor} is no longer synchronised by PTP as it was: {self._ptp_status} before, "
                f"{status or 'not at all'} now; check grandmaster and network"
            )

    def _note(self, why: str) -> None:
        """Log a lost exposure: the first, second, fourth, eighth and so on."""
        self._damaged += 1
        if self._damaged & (self._damaged - 1) == 0:
            log.warning("%s: an exposure cannot be used: %s (%d so far)", self.sensor, why, self._damaged)


def open_camera(options: GenicamSection, triggers: Triggers) -> GenicamSource:
    """Open a camera by its options. Raises CameraError, ConfigError."""
    nodes_of.parse_settings(options.settings)
    device = sdk.open_device(options.cti, options.serial, options.discovery_ms)
    return GenicamSource(device, options, triggers)


def devices() -> list[Listed]:
    """The cameras that the installed producers see. Raises CameraError."""
    seen = sdk.list_devices("", GenicamSection().discovery_ms)
    return [Listed(one.serial or one.id, f"{one.text} {one.serial} ({one.id})") for one in seen]


GENICAM = SourceKind(
    summary="3D cameras with a GenTL producer: Ensenso, Photoneo, blaze, SICK, Lucid, Gocator and others",
    options=GenicamSection,
    open=open_camera,
    triggers=("free_run", "software", "hard_wired"),
    devices=devices,
    packages={"harvesters": "[genicam]", "genicam": "[genicam]"},
)
