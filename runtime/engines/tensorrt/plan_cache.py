"""Built networks on disk: TensorRT's plans, made on this machine for its GPU, driver and library, and never elsewhere.

A plan is executable code, so only files that this user wrote and nobody else could have changed are read: folders 0700,
files 0600, owner checked on the opened file, hashes stored with them. One folder per set: ``record.json`` and one plan
per network. It is written whole under another name and renamed, so that a reader sees a complete set or none.
``export.tensorrt`` makes the plans (docs/engines.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from asperity.runtime.cuda.environment import Gpu
from asperity.runtime.engines.tensorrt.library import Library
from asperity.runtime.errors import EngineError, UsageError
from asperity.runtime.files import OTHERS_MAY_WRITE, make_folder, put_folder, write_whole
from asperity.runtime.security.private_files import Private, check_folder, read_private
from asperity.runtime.text.formats import TextRefused, decode_json

FORMAT = 1
"""Goes up when the way from a bundle's networks to plans changes: older sets are then not found, and are built
again."""
RECORD_FILE = "record.json"
MAX_RECORD_BYTES = 256 * 1024
MAX_PLAN_BYTES = 8 * 2**30
MAX_TIMING_BYTES = 256 * 2**20
MAX_SETS = 4096
MAX_TIMINGS = 8
"""Files of kernel timings: one a library version and GPU."""
DRAFT_PREFIX = ".draft-"
OLD_DRAFT_S = 24 * 3600.0
NAME_DIGITS = 20
BUILT = Private(
    EngineError,
    "built networks are executable code and are used only when nobody else could have changed them",
    "remove it and build again", "remove it and build again", OTHERS_MAY_WRITE, root=False,
)  # fmt: skip
BUILT_FOLDER = replace(BUILT, repair="remove what is in it, run `chmod 700 {}` and build again")

Precision = Literal["fp32", "fp16", "int8"]
Softmax = Literal["fp32", "half"]
"""In which type attention's softmax is computed; with fp32 networks always fp32."""


class PlanKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identifies a set of plans. Any difference means another set."""

    bundle: str
    """The bundle's digest, hex."""
    precision: Precision
    softmax: Softmax
    library: str
    version: str
    gpu: Gpu | None
    """None: built without a GPU (TensorRT-RTX only); no engine serves such a set, tests and timings are made of it."""
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The set's folder: a digest of everything above."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:NAME_DIGITS]


def plan_key(bundle_digest: str, precision: Precision, softmax: Softmax, library: Library, gpu: Gpu | None) -> PlanKey:
    """The key of a bundle's plans with this library on this GPU. With fp32 networks softmax is fp32 too."""
    return PlanKey(
        bundle=bundle_digest, precision=precision, softmax="fp32" if precision == "fp32" else softmax,
        library=library.name, version=library.version, gpu=gpu,
    )  # fmt: skip


class PlanFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One network's plan."""

    graph: str
    """Name of the bundle's graph: rgb, points, adaptor_rgb, adaptor_points, adaptor_points_full."""
    nbytes: int
    sha256: str
    onnx_sha256: str
    """Of the ONNX that was compiled: the bundle's own for fp32, else what was derived of it."""
    build_s: float


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times of a set that passed the bundle's gate on its GPU, and of another precision's set beside it."""

    frame_ms: float
    """Median of the whole frame."""
    rival: Precision
    rival_frame_ms: float


class PlanRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``record.json``."""

    key: PlanKey
    files: tuple[PlanFile, ...]
    asperity: str
    created_us: int
    trial: Trial | None = None


@dataclass(frozen=True, slots=True)
class PlanSet:
    """A set in the cache; its files are checked when they are read."""

    folder: Path
    record: PlanRecord

    @property
    def nbytes(self) -> int:
        """Bytes of all plans."""
        return sum(file.nbytes for file in self.record.files)

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the networks."""
        return tuple(file.graph for file in self.record.files)

    def read(self, graph: str) -> bytes:
        """A network's plan. Raises EngineError when others could have changed it, or it is not what was written."""
        for file in self.record.files:
            if file.graph == graph:
                path = self.folder / f"{graph}.plan"
                data = _read(path, min(file.nbytes, MAX_PLAN_BYTES))
                if len(data) != file.nbytes or hashlib.sha256(data).hexdigest() != file.sha256:
                    raise EngineError(f"{path} is damaged (its sha256 differs); {self.remedy}")
                return data
        raise EngineError(f"{self.folder} holds no network {graph}; {self.remedy}")

    @property
    def remedy(self) -> str:
        """What to do about a set that cannot be used."""
        return _remedy(self.folder)


class PlanCache:
    """The folder of all sets of this user on this machine."""

    def __init__(self, folder: Path, most_nbytes: int) -> None:
        """``most_nbytes``: beyond it the sets used longest ago are removed (``[engine] cache_max_mbytes``)."""
        self.folder = Path(folder)
        self._most_nbytes = most_nbytes

    def find(self, key: PlanKey) -> PlanSet | None:
        """The set of exactly this key, marked as used now; None when there is none.

        Raises EngineError when there is one that others could have changed, or whose record cannot be read.
        """
        folder = self.folder / key.name
        if not folder.exists():
            return None
        self._check_folder(self.folder)
        found = self._load(folder)
        if found.record.key != key:
            raise EngineError(f"{folder} was built for another key; {found.remedy}")
        with contextlib.suppress(OSError):  # only the order of removal depends on it
            os.utime(folder / RECORD_FILE)
        return found

    def survey(self) -> tuple[list[PlanSet], dict[str, str]]:
        """All sets, those used last first, and why others cannot be used, by name.

        Raises EngineError when others may write here.
        """
        if not self.folder.is_dir():
            return [], {}
        self._check_folder(self.folder)
        sets, unusable = [], {}
        for folder in self._folders():
            try:
                sets.append(self._load(folder))
            except EngineError as error:
                unusable[folder.name] = str(error)
        return sorted(sets, key=lambda one: _used_s(one.folder), reverse=True), unusable

    def store(self, key: PlanKey, plans: Mapping[str, tuple[bytes, PlanFile]], asperity: str) -> PlanSet:
        """Write a set whole, and take the place of one of the same key.

        The other softmax's set of the same bundle and precision goes: one of them is in use, never both. Then the
        sets used longest ago go until the folder is within its bound. Raises EngineError when the set alone is beyond
        the bound, or the folder cannot be written or is open to others.
        """
        record = PlanRecord(key, tuple(file for _, file in plans.values()), asperity, time.time_ns() // 1000)
        nbytes = sum(file.nbytes for file in record.files)
        if nbytes > self._most_nbytes:
            raise EngineError(
                f"the built networks take {nbytes / 1e6:.0f} MB and [engine] cache_max_mbytes allows "
                f"{self._most_nbytes / 1e6:.0f}; raise it"
            )
        self._make_folder()
        target = self.folder / key.name
        try:
            draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=self.folder))  # mode 0700
            try:
                for graph, (data, _) in plans.items():
                    write_whole(draft / f"{graph}.plan", data)
                write_whole(draft / RECORD_FILE, msgspec.json.format(msgspec.json.encode(record), indent=1))
                put_folder(draft, target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            if key.precision != "fp32":
                other: Softmax = "half" if key.softmax == "fp32" else "fp32"
                self._remove(self.folder / msgspec.structs.replace(key, softmax=other).name)
            self._shrink(keep=target)
        except OSError as error:
            raise EngineError(
                f"the built networks cannot be written to {self.folder} ({error.strerror}); free some space, or name "
                "another folder in [engine] cache"
            ) from error
        return PlanSet(target, record)

    def note_trial(self, found: PlanSet, trial: Trial) -> PlanSet:
        """Record the result of trying the set. Raises EngineError when it cannot be written."""
        record = msgspec.structs.replace(found.record, trial=trial)
        path = found.folder / RECORD_FILE
        try:
            write_whole(path, msgspec.json.format(msgspec.json.encode(record), indent=1))
        except OSError as error:
            raise EngineError(f"{path} cannot be written ({error.strerror}); free some space") from error
        return PlanSet(found.folder, record)

    def remove(self, name: str) -> None:
        """Remove the set of that folder name. Raises UsageError when there is none."""
        if name not in {folder.name for folder in self._folders()}:
            raise UsageError(
                f"there are no built networks {name!r} in {self.folder}; `asperity engines list` shows them"
            )
        self._remove(self.folder / name)

    def timing(self, key: PlanKey) -> bytes:
        """Kernel timings of earlier builds with this library on this GPU; empty when there are none."""
        path = self._timing_path(key)
        if not path.exists():
            return b""
        self._check_folder(self.folder)
        return _read(path, MAX_TIMING_BYTES)

    def store_timing(self, key: PlanKey, data: bytes) -> None:
        """Keep kernel timings for later builds. Raises EngineError when they cannot be written."""
        self._make_folder()
        path = self._timing_path(key)
        try:
            write_whole(path, data)
        except OSError as error:
            raise EngineError(f"{path} cannot be written ({error.strerror}); free some space") from error

    def _timing_path(self, key: PlanKey) -> Path:
        told = msgspec.json.encode((key.library, key.version, key.gpu))
        return self.folder / f"timing-{hashlib.sha256(told).hexdigest()[:NAME_DIGITS]}.cache"

    def _load(self, folder: Path) -> PlanSet:
        self._check_folder(folder)
        data = _read(folder / RECORD_FILE, MAX_RECORD_BYTES)
        try:
            return PlanSet(folder, decode_json(data, PlanRecord))
        except TextRefused as error:
            raise EngineError(f"{folder / RECORD_FILE} cannot be read ({error}); {_remedy(folder)}") from None

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        below = (path for path in self.folder.iterdir() if not path.name.startswith(DRAFT_PREFIX))
        found = [path for path in below if path.is_dir() and not path.is_symlink()]
        if len(found) > MAX_SETS:
            raise EngineError(f"{self.folder} holds more than {MAX_SETS} folders; it is not a folder of built networks")
        return found

    def _make_folder(self) -> None:
        try:
            make_folder(self.folder)
        except OSError as error:
            raise EngineError(
                f"{self.folder} cannot be made ({error.strerror}); name another folder in [engine] cache"
            ) from error
        self._check_folder(self.folder)

    @staticmethod
    def _check_folder(folder: Path) -> None:
        try:
            check_folder(folder, BUILT_FOLDER)
        except OSError as error:
            raise EngineError(f"{folder} cannot be used: {error.strerror}; remove it and build again") from error

    @staticmethod
    def _remove(folder: Path) -> None:
        """Gone at once for readers, then deleted."""
        if not folder.is_dir() or folder.is_symlink():
            return
        try:
            gone = folder.with_name(f"{DRAFT_PREFIX}gone-{folder.name}-{time.monotonic_ns()}")
            folder.rename(gone)
        except FileNotFoundError:
            return  # another process was faster
        shutil.rmtree(gone, ignore_errors=True)

    def _shrink(self, keep: Path) -> None:
        """Remove what a build that was cut short left, then the sets used longest ago beyond the bound."""
        now_s = time.time()
        for left in (*self.folder.glob(f"{DRAFT_PREFIX}*"), *self.folder.glob(".timing-*")):
            try:
                if now_s - left.lstat().st_mtime > OLD_DRAFT_S:
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
        timings = sorted(self.folder.glob("timing-*"), key=lambda path: path.lstat().st_mtime, reverse=True)
        for path in timings[MAX_TIMINGS:]:
            path.unlink(missing_ok=True)
        folders = sorted(self._folders(), key=_used_s, reverse=True)
        folders.sort(key=lambda folder: folder != keep)  # stable: the new one first
        nbytes = 0
        for folder in folders:
            nbytes += _nbytes_below(folder)
            if nbytes > self._most_nbytes and folder != keep:
                self._remove(folder)


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        return read_private(path, BUILT, limit_bytes)
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}); remove it and build again") from error


def _remedy(folder: Path) -> str:
    return f"run `asperity engines remove {folder.name}` and build it again with `asperity engines build`"


def find_built(cache: PlanCache, key: PlanKey) -> PlanSet | None:
    """The set of the key, with either softmax; None when none was built. Raises EngineError as ``PlanCache.find``."""
    choices: tuple[Softmax, ...] = ("fp32",) if key.precision == "fp32" else ("half", "fp32")
    for softmax in choices:
        found = cache.find(msgspec.structs.replace(key, softmax=softmax))
        if found is not None:
            return found
    return None


def find_served(cache: PlanCache, key: PlanKey) -> PlanSet:
    """The set by which an engine may be opened: that of the key, with either softmax, for the GPU of the key.

    Whether it may judge is still the gate's business. Raises EngineError when there is none, or it is int8 and was not
    seen to pass the gate and to be faster than its rival.
    """
    if key.gpu is None:
        raise EngineError('no GPU was found, so built networks cannot run; use [engine] name = "cpu"')
    found = find_built(cache, key)
    if found is not None:
        if key.precision == "int8":
            check_int8(found)
        return found
    raise EngineError(
        f"there are no networks of this bundle in {key.precision}, built with {key.library} {key.version} for "
        f"{key.gpu.name} and its driver {key.gpu.driver}, in {cache.folder}; run `asperity engines build BUNDLE "
        f"--precision {key.precision} --cache {cache.folder}`"
    )


def check_int8(found: PlanSet) -> None:
    """Raises EngineError unless the set passed the gate and is faster than its rival on its GPU."""
    trial = found.record.trial
    again = 'use [engine] precision = "fp16"'
    if trial is None:
        raise EngineError(
            f"the int8 networks {found.folder.name} have not been tested on this GPU yet, and int8 is used only if "
            "it is correct and faster; run `asperity engines build BUNDLE --precision int8 --cache "
            f"{found.folder.parent}`, or {again}"
        )
    if not trial.frame_ms < trial.rival_frame_ms:
        raise EngineError(
            f"the int8 networks {found.folder.name} take {trial.frame_ms:.2f} ms a frame and {trial.rival} takes "
            f"{trial.rival_frame_ms:.2f}: int8 gains nothing; {again}"
        )


def _used_s(folder: Path) -> float:
    try:
        return (folder / RECORD_FILE).stat().st_mtime
    except OSError:
        return 0.0


def _nbytes_below(folder: Path) -> int:
    """Bytes of the files in a folder, as far as another process leaves them there."""
    nbytes = 0
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            nbytes += path.lstat().st_size
    return nbytes
