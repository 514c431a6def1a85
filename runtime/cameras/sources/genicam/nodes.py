"""GenICam nodes: settings written in order and read back, the trigger, the clock, and what 3D data mean.

Pure over ``Nodes``, so that a test needs a dictionary and no camera.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from asperity.runtime.cameras.pictures.coordinates import Axes
from asperity.runtime.cameras.source import Triggers
from asperity.runtime.cameras.sources.genicam.count import time_us
from asperity.runtime.errors import CameraError, ConfigError
from asperity.runtime.frame import Clock

Value = bool | int | float | str
Setting = tuple[str, str]
"""A node's name and what is written to it, as text; ``EXECUTE`` for a command."""

EXECUTE = "execute"
CLOSE = 1e-6
"""A float may be read back this much off, relative: the camera stores it in another precision."""
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
SYNCHRONISED = ("Slave", "Master")
PTP_NODES = (("PtpEnable", "PtpStatus"), ("GevIEEE1588", "GevIEEE1588Status"))
TIME_NODES = (
    ("TimestampLatch", "TimestampLatchValue", ""),
    ("GevTimestampControlLatch", "GevTimestampValue", "GevTimestampTickFrequency"),
)
"""Command, value, and its ticks per second; without: nanoseconds."""


class Nodes(Protocol):
    """A camera's node map."""

    def has(self, name: str) -> bool:
        """Whether there is such a node, and it can be used now. Raises CameraError where the camera does not answer."""

    def read(self, name: str) -> Value | None:
        """The value; None: the camera does not have this node, or it cannot be read now. Raises CameraError."""

    def write(self, name: str, text: str) -> None:
        """Raises CameraError with the reason."""

    def execute(self, name: str) -> None:
        """Raises CameraError with the reason."""


class Scan3d(NamedTuple):
    """What the camera says of its 3D data; empty or 0: nothing."""

    unit: str = ""
    mode: str = ""
    system: str = ""
    reference: str = ""
    axes: Axes = Axes()
    focal_px: float = 0.0
    principal_px: tuple[float, float] = (0.0, 0.0)

    def described(self) -> tuple[object, ...]:
        """What does not change while a camera is open. Scale and offset may: some cameras choose them per exposure."""
        return (self.unit, self.mode, self.system, self.reference, self.focal_px, self.principal_px)


def parse_settings(lines: Sequence[str]) -> list[Setting]:
    """``NODE = VALUE`` each. Raises ConfigError."""
    found = []
    for line in lines:
        name, equals, value = (piece.strip() for piece in line.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise ConfigError(f"[genicam] settings: {line!r} is not NODE = VALUE, such as ExposureTime = 8000")
        found.append((name, value))
    return found


def trigger_settings(triggers: Triggers, selector: str, line: str, has_mode: bool) -> list[Setting]:
    """How the camera is set for who fires it. Raises CameraError for a camera that cannot be triggered."""
    if triggers == "free_run":
        return [*_selected(selector if has_mode else ""), ("TriggerMode", "Off")] if has_mode else []
    if not has_mode:
        raise CameraError(f"this camera has no node TriggerMode, so it cannot be used with triggers = {triggers!r}")
    source = "Software" if triggers == "software" else line
    return [*_selected(selector), ("TriggerMode", "On"), ("TriggerSource", source)]


def _selected(selector: str) -> list[Setting]:
    return [("TriggerSelector", selector)] if selector else []


def apply(nodes: Nodes, settings: Sequence[Setting]) -> None:
    """Write settings in order and read each back, then all of them again: a later one may have changed an earlier one.

    Raises CameraError naming node, wanted and read value.
    """
    context: dict[str, str] = {}
    last: dict[tuple[tuple[Setting, ...], str], str] = {}
    for name, value in settings:
        if value.lower() == EXECUTE:
            nodes.execute(name)
            last.clear()  # a command such as UserSetLoad may set everything
            continue
        _write(nodes, name, value)
        if name.endswith("Selector"):
            context[name] = value
        else:
            last[tuple(context.items()), name] = value
    for (selectors, name), value in last.items():
        for selector, choice in selectors:
            nodes.write(selector, choice)
        _check(nodes, name, value)
    for selector, choice in context.items():
        nodes.write(selector, choice)


def _write(nodes: Nodes, name: str, value: str) -> None:
    try:
        nodes.write(name, value)
    except CameraError:
        got = nodes.read(name)
        if got is None or not same(value, got):  # else it is fixed, at the value that is wanted
            raise
    _check(nodes, name, value)


def _check(nodes: Nodes, name: str, wanted: str) -> None:
    got = nodes.read(name)
    if got is None or not same(wanted, got):
        raise CameraError(
            f"the camera's {name} was set to {wanted} and reads {'nothing' if got is None else got}; give a value that "
            "the camera takes, in [genicam] settings"
        )


def same(wanted: str, got: Value) -> bool:
    """Whether a value read back is the text that was written."""
    if isinstance(got, str):
        return got == wanted
    if isinstance(got, bool):
        return wanted.lower() in (YES if got else NO)
    try:
        number = int(wanted, 0) if isinstance(got, int) else float(wanted)
    except ValueError:
        return False
    return math.isclose(number, got, rel_tol=CLOSE, abs_tol=0.0)


def clock_of(nodes: Nodes) -> Clock:
    """``ptp`` only where the camera itself says that it is synchronised now."""
    return "ptp" if ptp_status(nodes) else "device"


def ptp_status(nodes: Nodes) -> str:
    """What the camera is in PTP now; empty: not synchronised."""
    for enable, status in PTP_NODES:
        if nodes.read(enable) is True:
            if nodes.has("PtpDataSetLatch"):
                nodes.execute("PtpDataSetLatch")
            said = nodes.read(status)
            if said in SYNCHRONISED:
                return str(said)
    return ""


def read_time_us(nodes: Nodes) -> int:
    """The camera's clock now, as it stamps exposures; 0: it does not tell it."""
    for latch, value, frequency in TIME_NODES:
        if nodes.has(latch):
            nodes.execute(latch)
            ticks, hz = nodes.read(value), nodes.read(frequency) if frequency else 1e9
            return time_us(ticks, float(hz)) if isinstance(ticks, int) and isinstance(hz, int | float) else 0
    return 0


def read_scan3d(nodes: Nodes, prefix: str = "Scan3d", base: Scan3d | None = None) -> Scan3d:
    """What the nodes with this prefix say; what they do not say is as in ``base``. Raises CameraError."""
    known = base or Scan3d()
    principal = tuple(
        _number(nodes, f"{prefix}PrincipalPoint{letter}", known.principal_px[at]) for at, letter in enumerate("UV")
    )
    return Scan3d(
        unit=_text(nodes, f"{prefix}DistanceUnit", known.unit),
        mode=_text(nodes, f"{prefix}OutputMode", known.mode),
        system=_text(nodes, f"{prefix}CoordinateSystem", known.system),
        reference=_text(nodes, f"{prefix}CoordinateSystemReference", known.reference),
        axes=_read_axes(nodes, prefix, known.axes),
        focal_px=_number(nodes, f"{prefix}FocalLength", known.focal_px),
        principal_px=(principal[0], principal[1]),
    )


def read_chunk(nodes: Nodes, base: Scan3d) -> Scan3d:
    """What came with an exposure, over what the nodes said when the camera was opened. Raises CameraError."""
    if nodes.has("ChunkComponentSelector"):
        with suppress(CameraError):  # of the only component that there is
            nodes.write("ChunkComponentSelector", "Range")
    return read_scan3d(nodes, "ChunkScan3d", base)


def _read_axes(nodes: Nodes, prefix: str, base: Axes) -> Axes:
    scale, offset, invalid = list(base.scale), list(base.offset), list(base.invalid)
    selector = f"{prefix}CoordinateSelector"
    for at, letter in enumerate("ABC"):
        if nodes.has(selector):
            try:
                nodes.write(selector, f"Coordinate{letter}")
            except CameraError:
                continue  # a camera of heights has no A and B
            if nodes.read(selector) != f"Coordinate{letter}":
                raise CameraError(f"the camera's {selector} cannot be set to Coordinate{letter}")
        scale[at] = _number(nodes, f"{prefix}CoordinateScale", scale[at])
        offset[at] = _number(nodes, f"{prefix}CoordinateOffset", offset[at])
        invalid[at] = _read_invalid(nodes, prefix, invalid[at])
    if not all(math.isfinite(one) and one > 0 for one in scale) or not all(map(math.isfinite, offset)):
        raise CameraError(
            f"the camera's {prefix}CoordinateScale {scale} and Offset {offset} must be finite, scales above 0"
        )
    return Axes((scale[0], scale[1], scale[2]), (offset[0], offset[1], offset[2]), (invalid[0], invalid[1], invalid[2]))


def _read_invalid(nodes: Nodes, prefix: str, base: float | None) -> float | None:
    flag = nodes.read(f"{prefix}InvalidDataFlag")
    if flag is None:
        return base
    if flag is False:
        return None
    value = nodes.read(f"{prefix}InvalidDataValue")
    if not isinstance(value, int | float):
        raise CameraError(f"the camera has {prefix}InvalidDataFlag set and no {prefix}InvalidDataValue")
    return None if math.isnan(value) else float(value)  # NaN is missing anyway


def _text(nodes: Nodes, name: str, base: str) -> str:
    value = nodes.read(name)
    return base if value is None else str(value)


def _number(nodes: Nodes, name: str, base: float) -> float:
    value = nodes.read(name)
    return float(value) if isinstance(value, int | float) else base


def await_clock(nodes: Nodes, wait_ms: int, pause: Callable[[], None], now_ms: Callable[[], float]) -> Clock:
    """The clock; while PTP is switched on and not yet synchronised it is asked again, for at most ``wait_ms``."""
    ends_ms = now_ms() + wait_ms
    while (clock := clock_of(nodes)) == "device" and now_ms() < ends_ms:
        if not any(nodes.read(enable) is True for enable, _ in PTP_NODES):
            break
        pause()
    return clock
