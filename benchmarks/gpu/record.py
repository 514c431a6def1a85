"""The result file of one machine's kernels: written after every stage, resumed by the next call."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.benchmarks.results_tools.reports import read_result, write_result
from asperity.runtime.cuda.build import BUILD, CUDA_DIR, ROOT, build_fatbin
from asperity.runtime.cuda.launch import Buffer, Device, Enqueue
from asperity.runtime.errors import EngineError

RESULTS = ROOT / "benchmarks" / "results"
STAGE_LIMIT_S = 420.0
"""A stage starts nothing more after this long: each call of the check or the benchmark ends within 8 minutes."""


VERSIONED = ("pycuda", "cuda-bindings", "torch", "cupy-cuda13x", "cupy-cuda12x", "triton", "onnxruntime", "tensorrt",
             "tensorrt-rtx")  # fmt: skip
KERNELS = "CUDA kernels alone, inputs on the device"


class MeasuredDevice(Device, Protocol):
    """A device that can also time what it is given."""

    def seconds(self, enqueue: Enqueue, repeats: int, before: Enqueue | None = None) -> list[float]:
        """Seconds of each repeat."""

    def replayed(self, enqueue: Enqueue) -> Enqueue:
        """What ``enqueue`` does, in one launch."""

    def fill(self, buffer: Buffer, byte: int) -> None:
        """Set every byte."""

    def copy(self, source: Buffer, to: Buffer, nbytes: int) -> None:
        """Copy on the device."""


def open_device(kind: str) -> MeasuredDevice:
    """``cuda``: the first GPU, with kernels compiled for it now. ``cpu-shim``: the CPU stand-in.

    Raises EngineError where there is no GPU to use and UsageError where kernels cannot be compiled.
    """
    if kind == "cpu-shim":
        from asperity.runtime.cuda.shim import ShimDevice

        return ShimDevice()
    if kind != "cuda":
        raise EngineError(f"device {kind!r} is not known; give cuda or cpu-shim")
    from asperity.runtime.cuda.driver import CudaDevice

    return CudaDevice(0, own_fatbin())


def own_fatbin() -> Path:
    """The kernels, compiled for the first GPU here unless they are already. Raises EngineError, UsageError."""
    from asperity.runtime.cuda.driver import capability_of

    major, minor = capability_of(0)
    architecture = f"{major}{minor}" + ("a" if (major, minor) == (9, 0) else "")
    own = BUILD / "gpu" / f"asperity-{architecture}.fatbin"
    own.parent.mkdir(parents=True, exist_ok=True)
    return build_fatbin([architecture], own, BUILD / "cuda-own")


def sources_digest() -> str:
    """What the kernels' figures belong to: every kernel source and header."""
    return digest_of([*CUDA_DIR.glob("*.cu"), *CUDA_DIR.glob("*.cuh")])


def digest_of(paths: Iterable[Path]) -> str:
    """Of files and their names, in no particular order."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def slug(name: str) -> str:
    """A device's name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Record:
    """One result file. ``cases`` of a section are kept as long as the kernels' sources are the same."""

    def __init__(
        self, path: Path, device: Device, command: str, measured: str = KERNELS, sources: str | None = None
    ) -> None:
        """``sources``: what the figures belong to; None: the kernels' sources."""
        self.path = path
        sources = sources or sources_digest()
        known = read_result(path) if path.is_file() else {}
        if known.get("sources") != sources or known.get("device") != device.name:
            known = {}
        self.data: dict[str, Any] = {
            "measured": measured,
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit(),
            "device": device.name,
            "is_gpu": device.name != "cpu-shim",
            "multiprocessors": device.multiprocessors,
            "sources": sources,
            "machine": machine(),
            "gpu": gpu_state() if device.name != "cpu-shim" else "",
            "versions": versions(),
            "commands": sorted({*known.get("commands", []), command}),
            "states": known.get("states", {}),
            "sections": known.get("sections", {}),
        }

    def section(self, name: str) -> dict[str, Any]:
        """A section's cases by name."""
        found: dict[str, Any] = self.data["sections"].setdefault(name, {})
        return found

    def forget(self, name: str) -> None:
        """Clear a section, so that it is measured again."""
        self.data["sections"].pop(name, None)

    def write(self) -> None:
        """Write the whole file at once."""
        write_result(self.path, self.data)


def results_path(device: Device, given: Path | None) -> Path:
    """``benchmarks/results/<device>/kernels.json``; results of the CPU stand-in stay in the build folder."""
    if given is not None:
        return given
    if device.name == "cpu-shim":
        return BUILD / "gpu" / "cpu-shim.json"
    return RESULTS / slug(device.name) / "kernels.json"


def gpu_state() -> str:
    """Driver, clocks and power limit as nvidia-smi reports them; empty if it does not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    command = [program, f"--query-gpu={asked}", "--format=csv"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except subprocess.TimeoutExpired:
        return ""


def versions() -> dict[str, str]:
    """Of what takes part, where it is there."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    from importlib.metadata import PackageNotFoundError, version

    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def name_of(shape: Any) -> str:
    """A shape in one word: ``m784-n8329-d768``."""
    return "-".join(f"{key}{value}" for key, value in shape.items())
