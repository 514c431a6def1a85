"""What the checks may ask about a machine, and this machine's answers. Nothing here judges."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from asperity.runtime.process import kernel_clock
from asperity.runtime.process.kernel_clock import KernelClock
from asperity.runtime.process.processors import Processors, processors

IMPORT_S = 90
"""Longest wait for one import; TensorRT's first one from a slow disk takes many seconds."""
COMMAND_S = 20
GPU_PROBE = Path(__file__).resolve().parent / "probes" / "gpu.py"


@dataclass(frozen=True, slots=True)
class Python:
    """The interpreter that runs."""

    version: tuple[int, int, int]
    executable: str
    is_venv: bool
    sees_system: bool
    """Whether a venv was made with --system-site-packages; True outside of one."""
    bits: int = 64


@dataclass(frozen=True, slots=True)
class Imported:
    """How an import went, in a separate process."""

    version: str = ""
    path: str = ""
    error: str = ""
    """Empty: it loads."""
    is_there: bool = True
    """False: no such module."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device as the driver names it."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    kernels: str
    """Whether the fatbin loads: ``ok``, ``absent``, or the driver's error."""


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver, asked through libcuda alone."""

    error: str = ""
    cuda: tuple[int, int] = (0, 0)
    """Newest CUDA version it serves."""
    gpus: tuple[Gpu, ...] = field(default=())


class World(Protocol):
    """A machine. Paths are absolute; a thing that is not there is None, never an exception."""

    python: Python
    machine: str
    """``x86_64``, ``aarch64``."""
    environment: Mapping[str, str]

    def read(self, path: str) -> str | None:
        """A small text file."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""

    def glob(self, pattern: str) -> list[str]:
        """Paths, sorted."""

    def mode(self, path: str) -> tuple[int, int] | None:
        """Permission bits and owner's uid."""

    def uid(self) -> int:
        """Who runs."""

    def processors(self) -> Processors:
        """How many processors there are, and how many this process may use."""

    def clock(self) -> KernelClock:
        """What the kernel says of the wall clock."""

    def free_bytes(self, path: str) -> int:
        """Free space for this user at the path, which need not exist yet."""

    def may_write(self, path: str) -> bool:
        """Whether the path, or the nearest folder above it that exists, can be written."""

    def say(self, *command: str) -> str | None:
        """stdout of a program; None where it is not there, fails or does not end in time."""

    def imported(self, module: str) -> Imported:
        """Import a module in a separate process, which has this one's search path."""

    def is_installed(self, module: str) -> bool:
        """Whether there is such a top-level module, without importing it."""

    def library(self, names: Sequence[str]) -> str | None:
        """The first shared library of these that loads."""

    def driver(self) -> Driver:
        """The NVIDIA driver and its GPUs."""


IMPORT = """
import importlib, json, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, version
sys.path[:] = json.loads(sys.argv[2])
name = sys.argv[1]
try:
    module = importlib.import_module(name)
except ModuleNotFoundError as error:
    there = (error.name or "") not in (name, name.split(".")[0])
    print(json.dumps({"error": str(error), "is_there": there}))
    sys.exit(0)
top = name.split(".")[0]
told = getattr(module, "__version__", "") or getattr(sys.modules[top], "__version__", "")
if not isinstance(told, str) or not told:
    try:
        told = version((packages_distributions().get(top) or [top])[0])
    except PackageNotFoundError:
        told = ""
print(json.dumps({"version": told, "path": getattr(module, "__file__", None) or ""}))
"""


class ThisMachine:
    """The real one. Answers are kept: a check may ask again."""

    def __init__(self, fatbin: Path) -> None:
        self._fatbin = fatbin
        self._imports: dict[str, Imported] = {}
        self._driver: Driver | None = None
        in_venv = sys.prefix != sys.base_prefix
        settings = self.read(str(Path(sys.prefix) / "pyvenv.cfg")) or ""
        sees = not in_venv or "include-system-site-packages = true" in settings.lower()
        bits = 64 if sys.maxsize > 2**32 else 32
        self.python = Python(sys.version_info[:3], sys.executable, in_venv, sees, bits)
        self.machine = platform.machine()
        self.environment: Mapping[str, str] = os.environ

    def read(self, path: str) -> str | None:
        """A small text file."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return os.access(path, os.F_OK)

    def glob(self, pattern: str) -> list[str]:
        """Paths, sorted."""
        return sorted(str(path) for path in Path("/").glob(pattern.lstrip("/")))

    def mode(self, path: str) -> tuple[int, int] | None:
        """Permission bits and owner's uid."""
        try:
            found = Path(path).stat()
        except OSError:
            return None
        return found.st_mode & 0o7777, found.st_uid

    def uid(self) -> int:
        """Who runs."""
        return os.geteuid()

    def processors(self) -> Processors:
        """How many processors."""
        return processors()

    def clock(self) -> KernelClock:
        """What the kernel says of the wall clock."""
        return kernel_clock.look()

    def free_bytes(self, path: str) -> int:
        """Room for this user."""
        return shutil.disk_usage(_nearest(path)).free

    def may_write(self, path: str) -> bool:
        """Whether it can be written."""
        nearest = _nearest(path)
        if nearest.is_dir():
            return os.access(nearest, os.W_OK | os.X_OK)
        return os.access(nearest, os.W_OK) and nearest == Path(path).absolute()

    def say(self, *command: str) -> str | None:
        """stdout of a program."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def imported(self, module: str) -> Imported:
        """Import a module in a separate process: one that crashes takes nothing along."""
        if module not in self._imports:
            self._imports[module] = _import(module)
        return self._imports[module]

    def is_installed(self, module: str) -> bool:
        """Whether there is such a top-level module."""
        try:
            return find_spec(module) is not None
        except (ImportError, ValueError):
            return False

    def library(self, names: Sequence[str]) -> str | None:
        """The first shared library of these that loads, tried in a separate process."""
        code = (
            "import ctypes, sys\n"
            "for name in sys.argv[1:]:\n"
            "    try:\n        ctypes.CDLL(name)\n    except OSError:\n        continue\n"
            "    print(name)\n    break\n"
        )
        return self.say(sys.executable, "-I", "-c", code, *names) or None

    def driver(self) -> Driver:
        """The NVIDIA driver and its GPUs, asked in a separate process."""
        if self._driver is None:
            self._driver = _probe(self._fatbin)
        return self._driver


def _nearest(path: str) -> Path:
    """The path, or the nearest above it that exists."""
    place = Path(path).absolute()
    while not os.access(place, os.F_OK) and place != place.parent:
        place = place.parent
    return place


def _child(command: list[str], limit_s: float) -> tuple[dict[str, Any] | None, str]:
    """A child's JSON line, or why there is none."""
    try:
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    lines = done.stdout.strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines and done.returncode == 0 else None
    except ValueError:
        told = None
    if isinstance(told, dict):
        return told, ""
    if done.returncode < 0:
        return None, f"the process that tried ended by signal {-done.returncode}"
    said = done.stderr.strip().splitlines()
    return None, said[-1] if said else f"the process that tried ended with {done.returncode}"


def _import(module: str) -> Imported:
    # A relative entry of the path ("" is the present folder) means another place in the child.
    path = [str(Path(entry).absolute()) for entry in sys.path]
    told, error = _child([sys.executable, "-c", IMPORT, module, json.dumps(path)], IMPORT_S)
    return Imported(error=error) if told is None else Imported(**told)


def _probe(fatbin: Path) -> Driver:
    told, error = _child([sys.executable, "-I", str(GPU_PROBE), str(fatbin)], IMPORT_S)
    if told is None:
        return Driver(error=error)
    if told["error"]:
        return Driver(error=told["error"])
    gpus = tuple(
        Gpu(gpu["name"], (gpu["capability"][0], gpu["capability"][1]), gpu["memory_bytes"], gpu["kernels"])
        for gpu in told["gpus"]
    )
    return Driver("", (told["cuda"][0], told["cuda"][1]), gpus)
