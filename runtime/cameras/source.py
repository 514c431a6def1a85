"""Live cameras: what a source of frames is, and how it is found by name.

A source is one file. Its ``SourceKind`` is found through the entry-point group ``asperity.cameras`` (value
``module:KIND``), so that other packages add cameras without a change here (docs/cameras.md). An SDK is imported in the
source's own file only, and there only when a camera is opened or devices are listed.
"""

from __future__ import annotations

import difflib
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from asperity.runtime.errors import AsperityError, CameraError, CameraLostError, UsageError, first_line
from asperity.runtime.extras import install
from asperity.runtime.frame import Frame
from asperity.runtime.process import early_signals
from asperity.runtime.settings.toml_tables import NAME_PATTERN, NAME_RULE, Section

GROUP = "asperity.cameras"
T = TypeVar("T")
_ROOM = "asperity.runtime.cameras.sources"
OWN = {name: f"{_ROOM}.{name}.source:{name.upper()}" for name in ("folder", "genicam", "realsense", "ros2")}
"""Ours, as in pyproject.toml: also there where Asperity runs from a folder or zip and no package is installed."""

Triggers = Literal["free_run", "software", "hard_wired"]
"""As ``[station] triggers``: who has the camera expose."""

SENSOR = re.compile(r"[\x20-\x7e]{1,64}")
"""As in a frame's header (docs/wire.md), and not empty: a camera that is swapped is noticed by it."""

WAITING_MAX = 16
"""Most exposures that may wait in a source and its SDK; of more, the oldest are left out and count in ``number``."""


class Shot(NamedTuple):
    """One exposure. The frame carries its exposure time, the clock of that time, and the source's ``sensor``."""

    frame: Frame
    """Its arrays belong to this exposure alone: nothing writes to them later. Copy what lies in an SDK's buffers."""
    number: int | None
    """The camera's own count of exposures, those included of which no frame came out; None: it has none.

    It only grows: where a device's counter wraps, the source counts on."""


class Source(Protocol):
    """An open camera. Used by one thread, always as open, shot or trigger in any order, close."""

    sensor: str
    """Model and serial number of what is open now, 1 to 64 printable ASCII characters; each frame has the same."""

    def shot(self, timeout_ms: int) -> Shot | None:
        """The oldest exposure not yet returned, None when none came within ``timeout_ms`` (at least 1).

        Colour and 3D are of the same instant; at most ``WAITING_MAX`` exposures wait. An exposure that cannot be used
        (damaged, half of it lost) is logged and left out, and counts in the next ``number``. It is also called now and
        then while no trigger is given. Raises CameraError when the camera is gone or not as it was set, SourceEnded at
        the end of a recording.
        """

    def trigger(self) -> None:
        """Expose once. What ``shot`` returns afterwards is that exposure: older ones are discarded, and no later one
        takes its place.

        Raises CameraError.
        """

    def close(self) -> None:
        """Release the camera. Does not raise, and may be called twice."""


class Device(NamedTuple):
    """A camera that a source sees."""

    id: str
    """What the source's options take to choose it, such as a serial number."""
    text: str


@dataclass(frozen=True)
class SourceKind:
    """How a kind of camera is described, found and opened."""

    summary: str
    """One line for ``asperity camera list``."""
    options: type[Section]
    """Its table in ``camera.toml``: keys with default, range and description (``settings.toml_tables``)."""
    open: Callable[[Any, Triggers], Source]
    """Open a camera by its options; settings are written in order and read back. Nothing exposed before it returns
    comes out afterwards. Raises CameraError, also where the camera is not there yet, and ConfigError, which the service
    does not try again."""
    triggers: tuple[Triggers, ...] = ("free_run",)
    """The modes that its cameras can be used in."""
    devices: Callable[[], list[Device]] = list
    """The cameras that it sees now; called only where ``packages`` are there. Raises CameraError."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """What it imports: module -> requirement of pip, or ``[EXTRA]`` for an extra of Asperity."""

    def lacking(self) -> list[str]:
        """Names of modules that are not installed."""
        return [module for module in self.packages if not _is_there(module)]

    def remedy(self) -> str:
        """The command that installs what is lacking, or all that it needs where nothing is."""
        needs = [self.packages[module] for module in self.lacking() or self.packages]
        extras = [match[1] for need in needs if (match := re.fullmatch(r"\[([\w-]+)\]", need))]
        if extras:
            return install(*dict.fromkeys(extras))
        return shlex.join([sys.executable, "-m", "pip", "install", *needs])


def names() -> list[str]:
    """Names of the installed sources, sorted."""
    return sorted(_found())


def load(name: str) -> SourceKind:
    """The source of this name. Raises UsageError for one that is not installed, CameraError for a broken package."""
    found = _found()
    if name not in found:
        near = difflib.get_close_matches(name, list(found), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(found)) or 'none'}"
        raise UsageError(f"there is no camera source {name!r}; {hint}")
    entry, *others = found[name]
    if not is_name(name):
        raise CameraError(f"the camera source {name!r} cannot be used: a name is {NAME_RULE}, not camera or live")
    if others:
        values = " and ".join(sorted(each.value for each in found[name]))
        raise CameraError(f"there are several camera sources {name}: {values}; uninstall all but one of their packages")
    try:
        kind = entry.load()
    except Exception as error:  # another package's module may raise anything
        raise CameraError(f"the camera source {name} ({entry.value}) cannot be loaded: {error!r}") from error
    if not isinstance(kind, SourceKind):
        raise CameraError(f"the camera source {name} ({entry.value}) is not a SourceKind; see docs/cameras.md")
    return kind


def open_source(name: str, kind: SourceKind, options: Section, triggers: Triggers) -> Source:
    """Open a camera. Raises UsageError for triggers that the source cannot give, CameraError, ConfigError."""
    if triggers not in kind.triggers:
        can = " or ".join(kind.triggers)
        raise UsageError(f"the camera source {name} cannot be used with triggers = {triggers!r}; it has {can}")
    if lacking := kind.lacking():
        raise CameraError(f"the camera source {name} needs {', '.join(lacking)}; install with: {kind.remedy()}")
    try:
        opened = kind.open(options, triggers)
        sensor: object = opened.sensor
    except AsperityError:
        raise
    except (Exception, SystemExit) as error:  # another package's source, or an SDK, may raise anything
        if early_signals.told():
            raise  # it is ours
        raise CameraError(f"the camera source {name} could not open a camera: {what_failed(kind, error)}") from error
    if not (isinstance(sensor, str) and SENSOR.fullmatch(sensor)):
        opened.close()
        raise CameraError(f"the camera source {name} names its camera {sensor!r}; it must be 1 to 64 ASCII characters")
    return opened


def call(sensor: str, function: Callable[..., T], *arguments: int) -> T:
    """A call of an open source. Whatever it raises, the camera is lost."""
    try:
        return function(*arguments)
    except CameraLostError:
        raise
    except CameraError as error:
        raise CameraLostError(str(error)) from error
    except AsperityError:
        raise
    except Exception as error:  # another package's source may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise CameraLostError(
            f"the source of {sensor} failed: {type(error).__name__}: {first_line(error)} "
            f"({last.filename}:{last.lineno})"
        ) from error


def what_failed(kind: SourceKind, error: BaseException) -> str:
    """What a source or its SDK raised, with the remedy where it is installed and does not load."""
    said = f"{type(error).__name__}: {first_line(error)}"
    again = isinstance(error, ImportError) and bool(kind.packages)
    return f"{said}; install its SDK again: {kind.remedy()} --force-reinstall" if again else said


def is_name(name: str) -> bool:
    """Whether a source can have this name: it is a table of ``camera.toml``, and an instance of the service."""
    return re.fullmatch(NAME_PATTERN, name) is not None and name not in ("camera", "live")


def _found() -> dict[str, list[EntryPoint]]:
    """By name. A package that is installed twice, such as a checkout next to a wheel, has the same value twice."""
    found = {name: [EntryPoint(name, value, GROUP)] for name, value in OWN.items()}
    for entry in entry_points(group=GROUP):
        if entry.name in OWN and entry.value.startswith("asperity."):
            continue  # ours, perhaps of another version that is installed next to this one
        same = found.setdefault(entry.name, [])
        if entry.value not in [each.value for each in same]:
            same.append(entry)
    return found


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a name with dots, whose package is not there
        return False
