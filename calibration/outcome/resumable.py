"""A calibration's own folder next to its target: what a killed calibration resumes from, and what is not yet complete.

``OUT/calibration.work`` holds the frozen patches with a check sum for each frame, the adaptation's checkpoint, and the
draft that becomes ``OUT/calibration`` by a rename. It is removed when the calibration ends, well or by an error; a
kill, an interrupt from the keyboard or a power cut leaves it, and the same command resumes from it. It belongs to one
job (frames, options, weights, versions): for another one it is emptied first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError

from asperity import runtime
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.features.kept_patches import FILES as KEPT_FILES
from asperity.calibration.features.kept_patches import KeptPatches
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.record import RECORD
from asperity.runtime.errors import DataError, UsageError
from asperity.runtime.files import put_folder
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Network, WeightsOrigin

SUFFIX = ".work"
LOCK, JOB, CHECKPOINT, DRAFT = "lock", "job", "adaptation.safetensors", "draft"


class Resumable:
    """The folder of one running calibration. Made by ``working``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.draft = folder / DRAFT
        """What becomes the calibration folder."""

    @property
    def checkpoint(self) -> Path:
        """Of the adaptation: there when an earlier run of this job came so far."""
        return self._folder / CHECKPOINT

    @property
    def smallest_defect(self) -> Path:
        """The places at which an earlier run of this job measured the smallest defect."""
        return self._folder / "smallest_defect.json"

    def begin(self, job: str) -> None:
        """Keep what an earlier run of the same job left, and nothing else. ``job``: see ``job_digest``."""
        path = self._folder / JOB
        if path.exists() and path.read_bytes() == job.encode():
            return
        for entry in self._folder.iterdir():
            if entry.is_dir() and entry.name != DRAFT:
                shutil.rmtree(entry)  # an older target, put aside when it was to be replaced
            elif entry.name not in (LOCK, DRAFT):
                entry.unlink()
        path.write_text(job)

    def patches(self, frames: int, network: Network) -> KeptPatches:
        """The frozen patches, as far as they were made."""
        return KeptPatches(self._folder, frames, network)

    def give_patches(self, folder: Path, frames: int, network: Network) -> None:
        """Move the patches' files into ``folder``, on the same disk; arrays that are mapped from them stay valid.

        Patches of modalities that ``network`` does not have stay behind.
        """
        others = [path for path in self._folder.glob("*.f32") if path.stem not in network.modalities]
        if others:
            for path in others:
                path.unlink()
            kept = KeptPatches(self._folder, frames, network)
            for index in range(frames):
                kept.note(index)
        for path in [path for pattern in KEPT_FILES for path in self._folder.glob(pattern)]:
            path.rename(folder / path.name)


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
def working(target: Path, force: bool) -> Iterator[Resumable]:
    """The work folder of ``target``; its draft takes the target's place when the block ends well.

    Raises UsageError when the target exists (without ``force``), is not a calibration, or is being made by another
    process; DataError when the disk refuses.
    """
    target = target.absolute()
    if target.exists() and not force:
        raise UsageError(f"{target} exists; name another folder, or give --force to replace it")
    if target.exists() and not (target / RECORD).is_file():
        raise UsageError(f"{target} is not a calibration, so --force does not replace it; name another folder")
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
            work = Resumable(folder)
            shutil.rmtree(work.draft, ignore_errors=True)
            work.draft.mkdir()
            yield work
            put_folder(work.draft, target)
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
