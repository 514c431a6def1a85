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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Protocol

from asperity.runtime.errors import CameraError, UsageError
from asperity.runtime.extras import install
from asperity.runtime.frame import Frame
from asperity.runtime.settings.toml_tables import Section

GROUP = "asperity.cameras"

Triggers = Literal["free_run", "software", "hard_wired"]
"""As ``[station] triggers``: who has the camera expose."""


class Shot(NamedTuple):
    """One exposure. The frame carries its exposure time, the clock of that time, and the source's ``sensor``."""

    frame: Frame
    number: int | None
    """The camera's own count of exposures, those included of which no frame came out; None: it has none."""


class Source(Protocol):
    """An open camera. Used by one thread, always as open, shot or trigger in any order, close."""

    sensor: str
    """Model and serial number of what is open now; the same in every frame's ``sensor``."""

    def shot(self, timeout_ms: int) -> Shot | None:
        """The oldest exposure not yet returned, None when none came within ``timeout_ms``.

        Colour and 3D are of the same instant. An exposure that cannot be used (damaged, half of it lost) is logged and
        left out, and counts in the next ``number``. Raises CameraError when the camera is gone or not as it was set.
        """

    def trigger(self) -> None:
        """Expose once. What ``shot`` returns afterwards was exposed after this call: older exposures are discarded.

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
    """Open a camera by its options; settings are written in order and read back. Raises CameraError, ConfigError."""
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
        """The command that installs what is lacking."""
        needs = [self.packages[module] for module in self.lacking()]
        extras = [match[1] for need in needs if (match := re.fullmatch(r"\[([\w-]+)\]", need))]
        if extras:
            return install(*extras)
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
    entry = found[name]
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
    return kind.open(options, triggers)


def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a name with dots, whose package is not there
        return False
