"""A hot folder: the files that a camera's own program writes are the exposures (docs/cameras/folder.md)."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from asperity.runtime.cameras.files.read import ExposureFiles, FileOptions, read_exposure
from asperity.runtime.cameras.source import Shot, SourceKind, Triggers
from asperity.runtime.cameras.sources.folder.arrivals import REMEMBERED, Arrivals, Decided, Exposure, Halves, Step
from asperity.runtime.cameras.sources.folder.hot_folder import HotFolder
from asperity.runtime.cameras.sources.folder.options import FolderSection, Settings, settings_of
from asperity.runtime.cameras.sources.folder.taken import Taken, record_path
from asperity.runtime.clock import MS
from asperity.runtime.errors import CameraError, DataError, FrameRefused
from asperity.runtime.files import shown
from asperity.runtime.folders import state_folder
from asperity.runtime.frame import Frame
from asperity.runtime.settings import log_lines
from asperity.runtime.settings.log_lines import Repeats, with_held
from asperity.runtime.vision.units import check_measured

log = logging.getLogger(__name__)

LOG_PERIOD_MS, LOG_LINES = 60_000, 20
REFUSED = "refused"
"""Folder below ``move_to`` for what could not be used."""

Read = Callable[[ExposureFiles, FileOptions], Frame]


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is, nanoseconds, and how to wait; seconds."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall_ns: Callable[[], int] = time.time_ns
    sleep: Callable[[float], None] = time.sleep


class FolderSource:
    """The exposures in a folder, each at most once, in order, and none that is not whole."""

    def __init__(self, settings: Settings, read: Read = read_exposure, clocks: Clocks = Clocks()) -> None:
        """Raises CameraError, CameraLostError, ConfigError."""
        self.sensor = settings.sensor
        self._settings, self._read, self._clocks = settings, read, clocks
        self._repeats = Repeats(LOG_PERIOD_MS, 8, LOG_LINES)
        self._number = 0
        self._exposed_us = 0
        self._folder = HotFolder(settings.path, settings.folders, settings.files_max, clocks.monotonic_ns)
        try:
            self._taken = Taken(settings.record or record_path(state_folder("[folder] record"), settings.path),
                                settings.path)  # fmt: skip
        except BaseException:
            self._folder.close()
            raise
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def shot(self, timeout_ms: int) -> Shot | None:
        """The next exposure; None: none came in time. Raises CameraLostError."""
        self._taken.passed_on()  # the one before was handed to the sender
        ends_ns = self._clocks.monotonic_ns() + timeout_ms * MS
        while True:
            if self._folder.is_due(self._settings.rules.overwritten):
                self._arrivals.look(self._folder.names(), self._folder.stat, self._clocks.monotonic_ns())
            while (step := self._next()) is not None:
                shot = self._take(step)
                if shot is not None:
                    return shot
                if self._clocks.monotonic_ns() >= ends_ns:
                    return None
            left_ns = ends_ns - self._clocks.monotonic_ns()
            if left_ns <= 0:
                return None
            self._clocks.sleep(min(self._settings.poll_ms * MS, left_ns) / 1e9)

    def trigger(self) -> None:
        """Raises CameraError: files cannot be asked to be exposed."""
        raise CameraError(
            "a folder cannot expose: the camera's own program does; set [live] triggers = free_run, or hard_wired "
            "where the names of the files hold the exposure time"
        )

    def close(self) -> None:
        """Give the folder up."""
        self._taken.close()
        self._folder.close()

    def _begin(self) -> None:
        entries = self._taken.entries
        self._arrivals = Arrivals(
            self._settings.rules,
            {entry.stem: Decided(entry.halves, entry.taken) for entry in entries},
            entries[-1].latest_ns if entries else 0,
        )
        self._pictures = OrderedDict((entry.picture, entry.stem) for entry in entries if entry.taken)
        names = self._folder.names()
        if (doubtful := self._taken.doubtful) is not None:
            self._say(
                f"exposure {doubtful.stem} was taken before the program ended and perhaps not sent: it is not sent "
                "again, so its part may lack a result"
            )
            # The end may have come before they were moved or deleted.
            self._put_away(self._arrivals.left_of(doubtful.stem, doubtful.halves, names, self._folder.stat))
            names = self._folder.names()
        now_ns = self._clocks.monotonic_ns()
        left = self._arrivals.begin(names, self._folder.stat, now_ns, self._settings.take)
        why = (
            f"they, or later ones, were taken or refused before ({self._taken.path})"
            if self._settings.take
            else "[folder] before = take takes such files"
        )
        if left:
            # At a restart that is usual; otherwise a folder of which nothing comes looks like a camera that is gone.
            level = logging.INFO if entries and not self._settings.take else logging.WARNING
            log.log(level, "%d files that were in %s before the start are left out; %s", left, self._settings.path, why)

    def _next(self) -> Step | None:
        clocks = self._clocks
        step = self._arrivals.first(self._folder.stat, clocks.monotonic_ns(), clocks.wall_ns())
        for note in self._arrivals.notes:
            self._say(note)
        self._arrivals.notes.clear()
        if missed := self._arrivals.missed:
            self._number += missed
            self._arrivals.missed = 0
            self._say(f"{missed} exposures were overwritten before they could be read")
        return step

    def _take(self, step: Step) -> Shot | None:
        """The exposure, or None: it was refused, or cannot be read yet."""
        exposure = step.exposure
        if step.refuse:
            self._refuse(exposure, step.refuse)
            return None
        tried = exposure.halves()
        try:
            frame = self._read_whole(exposure, tried)
        except (DataError, FrameRefused) as error:
            self._arrivals.failed(exposure, str(error), tried)
            return None
        exposed_us = 0
        if self._settings.times is not None:
            exposed_us = self._settings.times.exposed_us(exposure.stem) or 0
        picture = _digest(frame)
        if self._is_unchanged(exposure, picture):
            self._arrivals.decide(exposure, taken=True)
            return None
        if why := self._unusable(exposure, picture, exposed_us):
            self._refuse(exposure, why)
            return None
        self._taken.add(exposure.stem, tried, picture, taken=True)
        self._pictures[picture] = exposure.stem
        while len(self._pictures) > REMEMBERED:
            self._pictures.popitem(last=False)
        self._put_away(self._decide(exposure, taken=True))
        self._exposed_us = exposed_us
        return Shot(
            replace(frame, sensor=self.sensor, t_exposure_us=exposed_us, clock=self._settings.clock), self._number
        )

    def _read_whole(self, exposure: Exposure, tried: Halves) -> Frame:
        """Raises DataError, FrameRefused."""
        names = exposure.names
        if hole := next((name for name in names.values() if self._folder.has_hole(name)), ""):
            raise DataError(f"{hole} has parts that were never written")
        paths = {half: self._settings.path / name for half, name in names.items()}
        try:
            frame = self._read(ExposureFiles(paths["points"], paths.get("colour")), self._settings.files)
        except (DataError, FrameRefused, CameraError):
            raise
        except Exception as error:  # of a library, on a file of a new kind: this one is refused, and not the next
            raise DataError(f"it cannot be read: {error!r}") from error
        check_measured(frame)
        if any(self._folder.stat(name) != tried[half] for half, name in names.items()):
            raise DataError("it changed while it was read")
        return frame

    def _is_unchanged(self, exposure: Exposure, picture: bytes) -> bool:
        """Its file was touched, or written again as it was: the exposure that was taken already, and no other."""
        last = not self._settings.rules.overwritten or picture == next(reversed(self._pictures), None)
        return last and self._pictures.get(picture) == exposure.stem

    def _unusable(self, exposure: Exposure, picture: bytes, exposed_us: int) -> str:
        """Why an exposure that could be read must not be sent."""
        settings = self._settings
        if exposure.again and not settings.rules.overwritten:
            return "an exposure of this name was taken before; a program that writes one name needs overwritten = true"
        if settings.times is not None and not exposed_us:
            return f"its name does not hold a time as name_time = {settings.times.form!r} says"
        if exposed_us and exposed_us <= self._exposed_us:
            return "its exposure time is not after the one of the exposure before"
        wall_ns = self._clocks.wall_ns()
        if exposed_us and settings.clock != "device" and 0 < settings.rules.max_age_ns < wall_ns - exposed_us * 1000:
            return "its exposure time is longer ago than max_age_ms"
        if picture in self._pictures:
            return f"it holds the same picture as {self._pictures[picture]}"
        # Again: reading may have taken long, or this process stood still.
        return self._arrivals.out_of_bounds(exposure, self._clocks.monotonic_ns(), wall_ns)

    def _refuse(self, exposure: Exposure, why: str) -> None:
        self._say(f"exposure {exposure.stem} is left out: {why}")
        if self._arrivals.moves_on(exposure):
            self._taken.add(exposure.stem, exposure.halves(), taken=False)
        names = self._decide(exposure, taken=False)
        if self._settings.move_to:
            self._folder.move(names, self._settings.move_to / REFUSED)

    def _decide(self, exposure: Exposure, taken: bool) -> list[str]:
        """Names of its files."""
        names = self._arrivals.files(exposure)
        self._arrivals.decide(exposure, taken)
        self._number += 1
        return names

    def _put_away(self, names: list[str]) -> None:
        if self._settings.move_to:
            self._folder.move(names, self._settings.move_to)
        elif self._settings.delete:
            self._folder.delete(names)

    def _say(self, text: str) -> None:
        held = self._repeats.due("exposure", self._clocks.monotonic_ns())
        if held is not None:
            log.warning("%s", shown(with_held(text, held)), extra=log_lines.BOUNDED)


def _digest(frame: Frame) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in (frame.rgb, frame.xyz, frame.depth):
        if array is not None:
            digest.update(array.data if array.flags.c_contiguous else array.tobytes())
    return digest.digest()


def open_folder(options: FolderSection, triggers: Triggers) -> FolderSource:
    """Raises CameraError, ConfigError."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # many lines for each half-written file
    return FolderSource(settings_of(options, triggers))


FOLDER = SourceKind(
    summary="files that a camera's own program writes into a folder",
    options=FolderSection,
    open=open_folder,
    triggers=("free_run", "hard_wired"),
)
