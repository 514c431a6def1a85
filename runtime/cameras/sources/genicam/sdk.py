"""Harvesters and GenTL, as thin as can be: find devices, open one, take buffers as bytes, release everything.

What was seen of them (docs/cameras/genicam.md): they wait with Python's lock held, so every wait here is short; a
Harvester that was not reset hides its devices from the next; buffers are written over after they are queued again.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asperity.runtime.cameras.sources.genicam.count import time_us
from asperity.runtime.cameras.sources.genicam.nodes import Scan3d, Value, read_chunk
from asperity.runtime.cameras.sources.genicam.payload import Damaged, Delivery, Part
from asperity.runtime.errors import CameraError, CameraLostError, first_line
from asperity.runtime.frame import MAX_BUFFER_BYTES, ByteArray

log = logging.getLogger(__name__)

PRODUCERS_VARIABLE = "GENICAM_GENTL64_PATH"
MAX_PRODUCERS = 32
MAX_DEVICES = 256
MAX_PARTS = 16
MAX_BUFFERS_NBYTES = 2**31
"""All buffers of a camera together."""
MAX_PAYLOAD_NBYTES = 4 * MAX_BUFFER_BYTES
WAIT_MS = 10
"""Longest wait inside the SDK: signals and other threads wait as long."""
STUCK_S = 120.0
"""A call that opens or closes a camera ends the process after this long: nothing else ends a producer that hangs."""
ALIVE_S = 1.0
"""A silent camera is asked this often whether it is still there."""


class Seen(NamedTuple):
    """A device as a producer lists it."""

    id: str
    serial: str
    text: str


def producers(cti: str) -> list[Path]:
    """The producers to load: one file, all of a folder, or those of the vendors' variable. Raises CameraError."""
    if cti and not Path(cti).is_dir():
        if not Path(cti).is_file():
            raise CameraError(f"[genicam] cti: {cti} does not exist; give the .cti file of the camera's vendor")
        return [Path(cti)]
    folders = [cti] if cti else [one for one in os.environ.get(PRODUCERS_VARIABLE, "").split(os.pathsep) if one]
    found = sorted({path.resolve() for folder in folders for path in Path(folder).glob("*.cti")})
    if not found:
        where = f"in {cti}" if cti else f"in the folders of {PRODUCERS_VARIABLE} ({':'.join(folders) or 'not set'})"
        raise CameraError(f"there is no GenTL producer (.cti) {where}; install the vendor's, or set [genicam] cti")
    if len(found) > MAX_PRODUCERS:
        raise CameraError(f"there are {len(found)} GenTL producers; set [genicam] cti to the camera's")
    return found


def choose(seen: Sequence[Seen], wanted: str) -> int:
    """Which device has this serial number or id; without one, the only device. Raises CameraError."""
    there = "; there are: " + ", ".join(f"{one.serial or one.id} ({one.text})" for one in seen) if seen else ""
    if not seen:
        raise CameraError(
            "no camera was found; check power, cable and address, that [genicam] cti is its vendor's producer, and "
            "that no other program has it open"
        )
    found = [at for at, one in enumerate(seen) if wanted in ("", one.serial, one.id)]
    if wanted and not found:
        raise CameraError(f"there is no camera with the serial number or id {wanted!r}{there}")
    if len(found) > 1:
        raise CameraError(f"there is more than one camera; set [genicam] serial{there}")
    return found[0]


@contextmanager
def ends_when_stuck() -> Iterator[None]:
    """End the process, with a trace on stderr, if this takes too long. A thread of Python could not: see above."""
    output = sys.__stderr__
    if output is None or not hasattr(output, "fileno"):
        yield
        return
    faulthandler.dump_traceback_later(STUCK_S, exit=True, file=output)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class SdkNodes:
    """A node map of genapi as ``Nodes``."""

    def __init__(self, node_map: Any) -> None:
        self._map = node_map

    def _node(self, name: str) -> Any | None:
        """The node if it is implemented and available now."""
        if not self._map.has_node(name):
            return None
        node = self._map.get_node(name)
        return node if int(node.get_access_mode()) in range(2, 5) else None  # WO, RO, RW

    def has(self, name: str) -> bool:
        with _as_camera_error(f"the camera's {name} cannot be read"):
            return self._node(name) is not None

    def read(self, name: str) -> Value | None:
        with _as_camera_error(f"the camera's {name} cannot be read"):
            node = self._node(name)
            if node is None or int(node.get_access_mode()) == 2:
                return None
            value = getattr(node, "value", None)
            return value if isinstance(value, bool | int | float | str) else None

    def write(self, name: str, text: str) -> None:
        with _as_camera_error(f"the camera's {name} cannot be set to {text}"):
            if not self._map.has_node(name):
                raise CameraError(f"the camera has no node {name}; see its vendor's list of GenICam nodes")
            try:
                self._map.get_node(name).from_string(text)
            except Exception as error:
                choices = getattr(self._map.get_node(name), "symbolics", ())
                if choices and text not in choices:
                    raise CameraError(
                        f"the camera's {name} cannot be set to {text}; it has {', '.join(choices)}"
                    ) from error
                raise

    def execute(self, name: str) -> None:
        with _as_camera_error(f"the camera's command {name} failed"):
            if not self._map.has_node(name):
                raise CameraError(f"the camera has no command {name}")
            self._map.get_node(name).execute()


class Device:
    """An open camera."""

    def __init__(self, harvester: Any, acquirer: Any, seen: Seen) -> None:
        self.seen = seen
        self.nodes = SdkNodes(acquirer.remote_device.node_map)
        self._acquirer, self._release = acquirer, ExitStack()
        self._release.callback(harvester.reset)
        self._incomplete = False
        self._asked_s = time.monotonic()
        self._can_be_asked = False
        self._frequency_hz = float(_said(acquirer.device, "timestamp_frequency") or 0)

    @property
    def serial(self) -> str:
        """As the open device says it."""
        return str(_said(self._acquirer.device, "serial_number") or self.nodes.read("DeviceSerialNumber") or "")

    @property
    def wraps(self) -> bool:
        """Whether its frame ids may have 16 bits."""
        return self._acquirer.device.tl_type == "GEV" and self.nodes.read("GevGVSPExtendedIDMode") != "On"

    def start(self, buffers: int) -> None:
        """Start the acquisition. Raises CameraError."""
        from harvesters.core import Callback

        class Incomplete(Callback):  # type: ignore[misc]
            def emit(_, context: Any = None) -> None:
                self._incomplete = True

        acquirer = self._acquirer
        with _as_camera_error("the camera cannot be started"):
            streams = acquirer.data_streams
            if len(streams) != 1:
                raise CameraError(f"the camera has {len(streams)} data streams; one is supported")
            payload = streams[0].payload_size if streams[0].defines_payload_size() else self.nodes.read("PayloadSize")
            least = max(buffers, int(acquirer.min_num_buffers))
            if not isinstance(payload, int) or not 0 < payload <= MAX_PAYLOAD_NBYTES:
                raise CameraError(f"the camera says that an exposure has {payload} bytes; that cannot be")
            if least * payload > MAX_BUFFERS_NBYTES:
                raise CameraError(f"{least} buffers of {payload} bytes are more than 2 GiB; lower [genicam] buffers")
            acquirer.num_buffers = least
            acquirer.add_callback(acquirer.Events.INCOMPLETE_BUFFER, Incomplete())
            acquirer.start()
        with suppress(*_errors()):
            self._ask()
            self._can_be_asked = True

    def fetch(self, timeout_ms: int, scan3d: Scan3d) -> Delivery | None:
        """The next buffer, copied; None: none came in time. Raises CameraLostError, CameraError."""
        self._incomplete = False
        with self._lost():
            self._acquirer.timeout_period_on_update_event_data_call = min(WAIT_MS, max(1, timeout_ms))
            buffer = self._acquirer.try_fetch(timeout=max(1, timeout_ms) / 1000, is_raw=True)  # 0 waits forever
        if buffer is None:
            if self._incomplete:
                return Delivery(())
            self._check_alive()
            return None
        try:
            with self._lost():
                return self._delivery(buffer, scan3d)
        finally:
            with suppress(*_errors()):
                buffer.parent.queue_buffer(buffer)

    def _delivery(self, buffer: Any, scan3d: Scan3d) -> Delivery:
        frame_id = _said(buffer, "frame_id")
        has_chunk = bool(_said(buffer, "is_containing_chunk_data"))
        if frame_id is None and has_chunk:
            chunk_id = self.nodes.read("ChunkFrameID")
            frame_id = chunk_id if isinstance(chunk_id, int) else None
        try:
            parts = _parts(buffer)
        except Damaged as damaged:
            log.debug("%s", damaged)
            parts = ()
        return Delivery(
            parts, frame_id, self._time_us(buffer, has_chunk), read_chunk(self.nodes, scan3d) if has_chunk else scan3d
        )

    def _time_us(self, buffer: Any, has_chunk: bool) -> int:
        tick_hz = self.nodes.read("GevTimestampTickFrequency")
        given_hz = float(tick_hz) if isinstance(tick_hz, int | float) else 0.0
        ticks = self.nodes.read("ChunkTimestamp") if has_chunk else None
        if isinstance(ticks, int) and ticks:
            return time_us(ticks, given_hz or 1e9)  # nanoseconds since SFNC 2
        ns = _said(buffer, "timestamp_ns")
        return time_us(ns, 1e9) if ns else time_us(_said(buffer, "timestamp") or 0, self._frequency_hz or given_hz)

    def _check_alive(self) -> None:
        """Read something over the cable: a producer may wait endlessly for a camera that is unplugged."""
        if self._can_be_asked and time.monotonic() - self._asked_s >= ALIVE_S:
            self._asked_s = time.monotonic()
            with self._lost():
                self._ask()

    def _ask(self) -> None:
        self._acquirer.remote_device.port.read(0, 4)  # the first register: of GigE Vision and USB3 Vision the version

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except _errors() as error:
            raise CameraLostError(
                f"{self.seen.text} {self.seen.serial} is lost ({first_line(error)}); check power, cable and network"
            ) from error

    def close(self) -> None:
        """Release it and all that belongs to it; does not raise."""
        with ends_when_stuck():
            _quietly(self._acquirer.destroy)
            _quietly(self._release.close)


def list_devices(cti: str, discovery_ms: int) -> list[Seen]:
    """What the producers see. Raises CameraError."""
    with ends_when_stuck(), ExitStack() as stack:
        harvester = _harvester(stack, cti, discovery_ms)
        return _seen(harvester)


def open_device(cti: str, wanted: str, discovery_ms: int) -> Device:
    """Open one camera. Raises CameraError, and then nothing stays open."""
    with ends_when_stuck(), ExitStack() as stack:
        harvester = _harvester(stack, cti, discovery_ms)
        seen = _seen(harvester)
        at = choose(seen, wanted)
        with _as_camera_error(f"{seen[at].text} {seen[at].serial} cannot be opened"), _keeping_interrupts():
            acquirer = harvester.create(at)
        device = Device(harvester, acquirer, seen[at])
        stack.pop_all()
        return device


def _harvester(stack: ExitStack, cti: str, discovery_ms: int) -> Any:
    from harvesters.core import Harvester, ParameterKey, ParameterSet

    quiet = logging.getLogger(f"{__name__}.harvesters")  # it logs every damaged buffer, with traces
    quiet.setLevel(logging.CRITICAL)
    files = producers(cti)
    harvester = Harvester(
        config=ParameterSet(
            {ParameterKey.LOGGER: quiet, ParameterKey.TIMEOUT_PERIOD_ON_MODULE_ENUMERATION: discovery_ms}
        )
    )
    stack.callback(_quietly, harvester.reset)
    for file in files:
        try:
            harvester.add_file(str(file), check_existence=True, check_validity=True)
        except OSError as error:
            if len(files) == 1:
                raise CameraError(f"the GenTL producer {file} cannot be loaded: {first_line(error)}") from error
            log.warning("the GenTL producer %s cannot be loaded and is left out: %s", file, first_line(error))
    with _as_camera_error("the GenTL producers cannot be asked for cameras"):
        harvester.update()
    if not harvester.has_revised_device_info_list:
        raise CameraError(f"a GenTL producer of {', '.join(map(str, files))} failed to list its cameras")
    return harvester


def _seen(harvester: Any) -> list[Seen]:
    found = []
    for info in harvester.device_info_list[:MAX_DEVICES]:
        said = [str(_said(info, name) or "") for name in ("id_", "serial_number", "vendor", "model")]
        found.append(Seen(said[0], said[1], " ".join(filter(None, said[2:]))))
    return found


def _parts(buffer: Any) -> tuple[Part, ...]:
    """The components, copied. Raises CameraError for what cannot be, Damaged for one of fewer rows."""
    from genicam.gentl import PIXELENDIANNESS_IDS

    if _said(buffer, "pixel_endianness") == PIXELENDIANNESS_IDS.PIXELENDIANNESS_BIG:
        raise CameraError("the camera gives big-endian pixels, which is not supported")
    raw = np.frombuffer(buffer.raw_buffer, dtype=np.uint8)
    parts = list(_said(buffer, "parts") or ())
    if len(parts) > MAX_PARTS:
        raise CameraError(f"the camera gives {len(parts)} components at once; at most {MAX_PARTS} are supported")
    if parts:
        return tuple(
            _part(raw, part, part.data_format, part.data_offset, part.data_size, _said(part, "x_padding") or 0)
            for part in parts
        )
    start = _said(buffer, "image_offset") or 0
    filled = _said(buffer, "size_filled") or raw.size
    return (_part(raw, buffer, buffer.pixel_format, start, filled - start, _said(buffer, "padding_x") or 0),)


def _part(raw: ByteArray, part: Any, code: int, start: int, nbytes: int, padding: int) -> Part:
    from harvesters.core import dict_by_ints

    delivered = _said(part, "delivered_image_height")
    if delivered and delivered < part.height:
        raise Damaged(f"{delivered} rows of {part.height} came")
    name = dict_by_ints.get(code, f"0x{code:08x}")
    data = raw[start : start + max(0, nbytes)].copy()
    # A PFNC code says itself how many bits a pixel takes.
    return Part(str(name), (code >> 16) & 0xFF, part.width, part.height, padding, data)


def _said(of: Any, name: str) -> Any:
    """What a producer says of a module, a buffer or a part; None: it does not say it."""
    from genicam.gentl import InvalidParameterException, NoDataException, NotAvailableException, NotImplementedException

    with suppress(
        InvalidParameterException, NoDataException, NotAvailableException, NotImplementedException, AttributeError
    ):
        found = getattr(of, name)
        return found() if callable(found) else found
    return None


def _errors() -> tuple[type[Exception], ...]:
    """What the SDK raises. (``genapi`` is the node map, ``gentl`` the producer.)"""
    from genicam import genapi, gentl

    return genapi.GenericException, gentl.GenericException


@contextmanager
def _as_camera_error(what: str) -> Iterator[None]:
    errors: tuple[type[Exception], ...] = (*_errors(), ValueError, RuntimeError, AttributeError)
    try:
        yield
    except errors as error:
        raise CameraError(f"{what}: {first_line(error)}") from error


@contextmanager
def _keeping_interrupts() -> Iterator[None]:
    """Harvesters takes SIGINT for itself: the program could not be stopped any more."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)


def _quietly(release: Callable[[], Any]) -> None:
    try:
        release()
    except Exception as error:  # noqa: BLE001 - a camera that is gone may fail in any way; the process ends next
        log.warning("the camera was not released cleanly: %s", first_line(error))
