"""A folder of recorded normal frames for calibration: ``rgb/NNN.png``, ``xyz/NNN.tiff`` (mm), ``parts.csv``.

A frame is written whole under ``.recording/`` and then put in its place by two renames; where the program ends between
them, the next recording into the folder does the second. Nothing that is there is ever overwritten.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.parts import MAX_PARTS_NBYTES, PARTS_FILE
from asperity.runtime.cameras.files.pictures import read_rgb
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.cameras.setup.look import Look, dark, look_at, saturated
from asperity.runtime.errors import DataError, FrameRefused
from asperity.runtime.files import read_file, sync_folder, write_whole
from asperity.runtime.frame import Frame, Unit
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.part_identity import part_id_fault
from asperity.runtime.text.tables import decode_table
from asperity.runtime.vision.border_plane import PlaneFit
from asperity.runtime.vision.digest import frame_digest

DRAFTS = ".recording"
HALVES = (("rgb", ".png"), ("xyz", ".tiff"))
NAME = re.compile(r"[0-9]{3,9}")
AUTOMATIC = re.compile(r"part-([0-9]{3,50})")

FEWEST_VALID = 0.02
"""Share of pixels with a point below which a frame shows nothing."""
MOST_SATURATED = 0.5
"""Share of the part's pixels at white above which its colour says nothing."""


class Worth:
    """Which exposures are worth recording, as far as can be said without a bundle."""

    def __init__(self, *, fills_view: bool = False) -> None:
        """``fills_view``: the material fills the picture, so that there is no plane behind it and no part on one."""
        self._fills_view = fills_view
        self._digests: set[int] = set()
        self._plane: PlaneFit | None = None
        self.look: Look | None = None
        """Of the last exposure."""

    def refusal(self, frame: Frame, unit: Unit) -> tuple[str, str]:
        """What is wrong with the exposure, in a word or two and as a sentence; empty: it is worth recording."""
        self.look = None
        digest = frame_digest(frame)
        if digest in self._digests:
            return "repeat", "every pixel and point equals an earlier frame's; the camera repeats its pictures"
        try:
            self.look = look_at(frame, unit, self._plane)
        except FrameRefused as error:
            return "unusable", str(error)
        self._plane = self.look.plane or self._plane
        refusal = self._of_scene(self.look) or _of_colour(frame, self.look)
        if not refusal:
            self._digests.add(digest)
        return refusal or ("", "")

    def _of_scene(self, look: Look) -> tuple[str, str] | None:
        if look.valid_share < FEWEST_VALID:
            return "few points", f"only {look.valid_share:.1%} of the pixels have a point; check exposure and projector"
        if self._fills_view:
            return None
        if look.plane is None and not look.empty_border:
            return "no plane", f"{look.no_plane}; leave background in view, or give --fills-view"
        if look.part is None:
            return "no part", "nothing rises above the background plane; put a part in view, or give --fills-view"
        return None


def _of_colour(frame: Frame, look: Look) -> tuple[str, str] | None:
    where = look.part.filled if look.part else np.ones_like(look.valid)
    if (share := float(saturated(frame.rgb)[where].mean())) > MOST_SATURATED:
        return "saturated", f"{share:.0%} of the part's colour pixels are at white; shorten the exposure"
    if dark(frame.rgb).all():
        return "dark", "the colour picture is black; check the light, the exposure and the lens cap"
    return None


class Recording:
    """Frames written into a folder, from its next number on. Used as a context; one program per folder."""

    def __init__(self, folder: Path, shots_per_part: int = 0) -> None:
        """``shots_per_part``: that many frames in a row show one part, which ``parts.csv`` says; 0: no such file.

        Raises DataError for a folder that holds anything else, or was recorded without (or with) ``parts.csv``.
        """
        self.folder, self._shots, self._lock = folder, shots_per_part, -1
        self._parts: list[tuple[str, str]] = []
        self._part, self._left = "", 0
        try:
            for name in ("rgb", "xyz", DRAFTS):
                if name == DRAFTS:
                    self._refuse_others()
                (folder / name).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / DRAFTS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._finish_drafts()
            names = [path.stem for path in (folder / "rgb").iterdir() if not path.name.startswith(".")]
            if names or any((folder / "xyz").iterdir()):
                list_samples(folder)  # whole pairs only
            if odd := [name for name in names if not NAME.fullmatch(name)]:
                raise DataError(f"{folder} holds {odd[0]}, which was not recorded here; choose a new folder")
            self._last = max((int(name) for name in names), default=-1)
            self._size = read_rgb(folder / "rgb" / f"{max(names, key=int)}.png").shape if names else None
            self._read_parts(bool(names))
        except BlockingIOError:
            self.close()
            raise DataError(f"another program records into {folder}; choose another folder") from None
        except OSError as error:
            self.close()
            raise DataError(f"{folder} cannot be used: {error.strerror}; choose another folder") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is not part of the recording, and let others record."""
        if self._lock >= 0:
            with suppress(OSError):
                self._finish_drafts()  # stopped between two renames
            shutil.rmtree(self.folder / DRAFTS, ignore_errors=True)
            with suppress(OSError):  # frames are there
                for folder in (self.folder / "rgb", self.folder / "xyz", self.folder):
                    folder.rmdir()
            os.close(self._lock)
            self._lock = -1

    @property
    def names_parts(self) -> bool:
        """Whether ``parts.csv`` is written."""
        return bool(self._shots)

    @property
    def parts(self) -> int:
        """Different parts in ``parts.csv``."""
        return len({part for _, part in self._parts})

    def add(self, frame: Frame, look: Look, part_id: str = "") -> str:
        """Write a frame, missing points as (0, 0, 0); returns its name. Raises DataError.

        ``part_id``: of this frame and those after it, with ``shots_per_part``; empty: counted.
        """
        if self._size is not None and frame.rgb.shape != self._size:
            raise DataError(
                f"{self.folder} holds frames of {self._size[1]} x {self._size[0]} pixels and the camera gives "
                f"{frame.rgb.shape[1]} x {frame.rgb.shape[0]}; record into another folder"
            )
        name = f"{self._last + 1:03d}"
        drafts = self.folder / DRAFTS
        try:
            if not os.path.samestat(drafts.stat(), os.fstat(self._lock)):
                raise FileNotFoundError(errno.ENOENT, "it was replaced")
            for half, suffix in HALVES:
                if os.path.lexists(self.folder / half / f"{name}{suffix}"):
                    raise DataError(f"{self.folder / half / name}{suffix} was written by another program")
            write_frame(drafts, name, frame.rgb, look.points)
            for half, suffix in HALVES:
                _sync(drafts / half / f"{name}{suffix}")
            if self._shots:
                self._name_part(name, part_id)
            for half, suffix in reversed(HALVES):
                (drafts / half / f"{name}{suffix}").rename(self.folder / half / f"{name}{suffix}")
            for half, _ in HALVES:
                sync_folder(self.folder / half)
        except OSError as error:
            remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder"
            raise DataError(
                f"frame {name} cannot be written under {self.folder}: {error.strerror}; {remedy}"
            ) from error
        self._last, self._size = self._last + 1, frame.rgb.shape
        return name

    def _refuse_others(self) -> None:
        known = {"rgb", "xyz", PARTS_FILE, DRAFTS}
        other = sorted(path.name for path in self.folder.iterdir() if path.name not in known)
        if other:
            raise DataError(f"{self.folder} holds {other[0]}, which was not recorded here; choose a new folder")

    def _finish_drafts(self) -> None:
        """Do the second rename of a frame whose first was done; the rest under ``.recording`` was never a frame."""
        for draft in (self.folder / DRAFTS / "rgb").glob("*.png"):
            colour = self.folder / "rgb" / draft.name
            if (self.folder / "xyz" / f"{draft.stem}.tiff").exists() and not os.path.lexists(colour):
                draft.rename(colour)
        for half, _ in HALVES:
            shutil.rmtree(self.folder / DRAFTS / half, ignore_errors=True)

    def _read_parts(self, continued: bool) -> None:
        path = self.folder / PARTS_FILE
        if continued and path.exists() != bool(self._shots):
            how = "without parts; give no --parts" if self._shots else f"with {PARTS_FILE}; give --parts"
            raise DataError(f"{self.folder} was recorded {how}, or choose a new folder")
        if not path.exists():
            return
        try:
            rows = decode_table(read_file(path, MAX_PARTS_NBYTES), ("name", "part_id"))
        except TextRefused as error:
            raise DataError(f"{path} {error}") from error
        # The row of a frame that was not put in its place before the program ended names the next one.
        self._parts = [(row["name"], row["part_id"]) for _, row in rows if not _after(row["name"], self._last)]

    def _name_part(self, name: str, part_id: str) -> None:
        """Write ``parts.csv`` with this frame's row, before the frame: a row without a frame has no effect."""
        if part_id:
            _check_part(part_id)
            self._part, self._left = part_id, self._shots
        elif self._left <= 0:
            counted = [int(match[1]) for _, part in self._parts if (match := AUTOMATIC.fullmatch(part))]
            self._part, self._left = f"part-{max(counted, default=0) + 1:03d}", self._shots
        rows = [*self._parts, (name, self._part)]
        write_whole(self.folder / PARTS_FILE, _table(rows), mode=0o666)
        self._parts, self._left = rows, self._left - 1


def _check_part(part_id: str) -> None:
    """Raises DataError for what ``parts.csv`` could not be read with."""
    if fault := part_id_fault(part_id):
        raise DataError(f"the part id {part_id!r} cannot be used: {fault}")
    try:
        ((_, row),) = decode_table(_table([("000", part_id)]), ("name", "part_id"))
    except TextRefused as error:
        raise DataError(f"the part id {part_id!r} cannot be used: {PARTS_FILE} {error}") from None
    if row["part_id"] != part_id:
        raise DataError(f"the part id {part_id!r} would be read as {row['part_id']!r} from {PARTS_FILE}; type another")


def _table(rows: list[tuple[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("name", "part_id"), *rows])
    return text.getvalue().encode()


def _after(name: str, last: int) -> bool:
    return bool(NAME.fullmatch(name)) and int(name) > last


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        with suppress(OSError):
            os.close(handle)
