"""A calibration's own folder beside its target: what a killed calibration goes on from, and what is not yet whole.

``OUT/calibration.work`` holds the frozen patches with a check sum for each frame, the adaptation's checkpoint, and the
draft that becomes ``OUT/calibration`` by a rename. It is removed when the calibration ends, well or by an error; a
kill, an interrupt from the keyboard or a power cut leaves it, and the same command goes on from it. It belongs to one
job (frames, options, weights, versions): for another one it is emptied first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from asperity import runtime
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.record import RECORD, CalibrateOptions
from asperity.runtime.errors import DataError, UsageError
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Network, WeightsOrigin

SUFFIX = ".work"
LOCK, JOB, CHECKPOINT, DRAFT = "lock", "job", "adaptation.safetensors", "draft"
PRESENT = 1 << 32
"""Above a check sum of 32 bits: the frame has one."""


class KeptPatches:
    """Frozen patches in mapped files, each frame with the check sum it was written with."""

    def __init__(self, folder: Path, frames: int, network: Network) -> None:
        """Open what is there or make it, zeros. Raises OSError when the disk has no room for all of it."""
        rgb = _mapped(folder / "rgb.f32", (frames, network.rgb_grid**2, network.rgb_channels), np.float32)
        points = _mapped(folder / "points.f32", (frames, network.grid**2, network.points_channels), np.float32)
        nonempty = _mapped(folder / "nonempty.bool", (frames, network.grid, network.grid), np.bool_)
        self.patches = PatchSet(rgb, points, nonempty)
        self._sums = _mapped(folder / "sums.u64", (frames,), np.uint64)

    def holds(self, index: int) -> bool:
        """Whether the frame's patches are there as they were written; a power cut may have left half of them."""
        return int(self._sums[index]) == self._sum(index)

    def note(self, index: int) -> None:
        """The frame's patches are complete."""
        self._sums[index] = self._sum(index)

    def count(self) -> int:
        """How many frames' patches are there."""
        return sum(self.holds(index) for index in range(len(self.patches)))

    def _sum(self, index: int) -> int:
        found = 0
        for values in (self.patches.rgb, self.patches.points, self.patches.nonempty):
            found = zlib.crc32(np.ascontiguousarray(values[index]).data, found)
        return found | PRESENT


class Work:
    """The folder of one calibration under way. Made by ``working``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.draft = folder / DRAFT
        """What becomes the calibration folder."""

    @property
    def checkpoint(self) -> Path:
        """Of the adaptation: there when an earlier run of this job came so far."""
        return self._folder / CHECKPOINT

    def begin(self, job: str) -> None:
        """Keep what an earlier run of the same job left, and nothing else. ``job``: see ``job_digest``."""
        path = self._folder / JOB
        if path.exists() and path.read_text() == job:
            return
        for entry in self._folder.iterdir():
            if entry.name not in (LOCK, DRAFT):
                entry.unlink()
        path.write_text(job)

    def patches(self, frames: int, network: Network) -> KeptPatches:
        """The frozen patches, as far as they were made."""
        return KeptPatches(self._folder, frames, network)


def job_digest(
    options: CalibrateOptions,
    config: AdaptationConfig | None,
    prepared: Sequence[Prepared],
    network: Network,
    weights: Sequence[WeightsOrigin],
) -> str:
    """What the patches and the adaptation follow from: versions, choices, weights, and the frames in their order."""
    told = (runtime.__version__, str(torch.__version__), options, config, network, tuple(weights))
    sha256 = hashlib.sha256(msgspec.json.encode(told))
    for one in prepared:
        for values in (one.image, one.cloud, one.inspect):
            sha256.update(np.ascontiguousarray(values).data)
    return sha256.hexdigest()


@contextlib.contextmanager
def working(target: Path, force: bool) -> Iterator[Work]:
    """The work folder of ``target``; its draft takes the target's place when the block ends well.

    Raises UsageError when the target exists (without ``force``), is no calibration, or is being made by another
    process; DataError when the disk refuses.
    """
    target = target.absolute()
    if target.exists() and not force:
        raise UsageError(f"{target} exists; name another folder, or give --force to replace it")
    if target.exists() and not (target / RECORD).is_file():
        raise UsageError(f"{target} is no calibration, so --force does not replace it; name another folder")
    folder = target.with_name(target.name + SUFFIX)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DataError(f"nothing can be written to {folder} ({error.strerror}); name another folder") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another process is calibrating into {target}; wait for it, or name another folder"
            ) from error
        with _removed_unless_cut_short(folder), _disk_errors(target):
            work = Work(folder)
            shutil.rmtree(work.draft, ignore_errors=True)
            work.draft.mkdir()
            yield work
            if target.exists():
                shutil.rmtree(target)
            work.draft.rename(target)
    finally:
        os.close(lock)


@contextlib.contextmanager
def _removed_unless_cut_short(folder: Path) -> Iterator[None]:
    """An interrupt (no Exception) leaves the folder as a kill does; the end and every error remove it."""
    try:
        yield
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise DataError(
                f"the disk is full: {target} was not written; free some space or name a folder on another disk"
            ) from error
        raise DataError(f"{target} could not be written ({error}); nothing was left behind") from error


def _mapped(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("a+b") as file:
        # A full disk must be an error here: a write into a hole of a mapped file would end the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, nbytes)
        file.truncate(nbytes)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)
