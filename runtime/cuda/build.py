"""Build the kernels: ``python -m asperity.runtime.cuda.build`` makes ``asperity.fatbin`` with the nvcc of this machine.

It works only from a checkout (CMakeLists.txt is not in the wheel). The CPU stand-in of the kernels is
built on demand by the tests. Both drive the same CMakeLists.txt.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from asperity.runtime.errors import AsperityError, UsageError

ROOT = Path(__file__).resolve().parents[2]
CUDA_DIR = Path(__file__).resolve().parent
FATBIN = CUDA_DIR / "asperity.fatbin"
BUILD = ROOT / "build"

NVCC_ELSEWHERE = Path("/usr/local/cuda/bin/nvcc")

CONFIGURE_S = 120
SIMT_BUILD_S = 300
FATBIN_BUILD_S = 3600


def missing_for_simt() -> str | None:
    """Why the CPU stand-in cannot be built here, or None."""
    if not (ROOT / "CMakeLists.txt").is_file():
        return f"there is no CMakeLists.txt in {ROOT}; kernels are built from a checkout"
    for program in ("cmake", "c++"):
        if shutil.which(program) is None:
            return f"there is no {program} on PATH; install cmake and g++"
    return None


def build_simt(names: Sequence[str], extra: Path | None = None, folder: Path = BUILD / "simt") -> list[Path]:
    """The libraries that hold these sources compiled for the CPU; ``extra`` is one more source, outside runtime/cuda.

    Raises UsageError where there is no compiler or a source does not compile.
    """
    reason = missing_for_simt()
    if reason is not None:
        raise UsageError(reason)
    made = {name: folder / f"libsimt-{name}.so" for name in [*names, *([extra.stem] if extra is not None else [])]}
    with _alone(folder):
        # CMake takes a second to see that nothing has changed, and each process that loads the libraries would ask it.
        sources = _digest(extra)
        wanted = [name for name, path in made.items() if not (path.is_file() and _built_from(path) == sources)]
        if wanted:
            options = [f"-DSIMT_EXTRA_SOURCES={extra}"] if extra is not None else []
            _run(["cmake", "-S", str(ROOT), "-B", str(folder), *options], CONFIGURE_S)
            _run(["cmake", "--build", str(folder), "--target", *(f"simt-{name}" for name in wanted)], SIMT_BUILD_S)
            for name in wanted:
                _stamp(made[name]).write_text(f"{sources} {made[name].stat().st_mtime_ns}")
    return list(made.values())


def build_fatbin(architectures: Sequence[str] = (), out: Path = FATBIN, folder: Path = BUILD / "cuda") -> Path:
    """Compile every kernel with nvcc for the architectures (all that CMakeLists.txt names when empty); minutes.

    Raises UsageError where there is no nvcc, and with the compiler's words where a source does not compile.
    """
    if shutil.which("nvcc") is None and not NVCC_ELSEWHERE.is_file():
        raise UsageError(f"there is no nvcc on PATH or at {NVCC_ELSEWHERE}; install the CUDA toolkit, 12.6 or later")
    with _alone(folder):
        # The cache of a former call must not decide this one.
        names = ";".join(architectures)
        chosen = f"-DASPERITY_CUDA_ARCHITECTURES={names}" if names else "-UASPERITY_CUDA_ARCHITECTURES"
        told = _run(["cmake", "-S", str(ROOT), "-B", str(folder), chosen, f"-DASPERITY_FATBIN={out}"], CONFIGURE_S)
        print("\n".join(line[3:] for line in told.splitlines() if line.startswith("-- asperity:")))
        _run(["cmake", "--build", str(folder), "--target", "kernels"], FATBIN_BUILD_S)
    return out


def _digest(extra: Path | None) -> str:
    """Of everything that a library for the CPU is compiled from."""
    sources = [path for path in sorted(CUDA_DIR.rglob("*")) if path.suffix in {".cu", ".cuh", ".cpp", ".hpp"}]
    found = hashlib.sha256()
    for path in (ROOT / "CMakeLists.txt", *sources, *([extra] if extra is not None else [])):
        found.update(f"{path} {path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()


def _stamp(library: Path) -> Path:
    return library.with_suffix(".built")


def _built_from(library: Path) -> str:
    """The digest of its sources; empty: not known, or the library was changed since."""
    try:
        sources, mtime_ns = _stamp(library).read_text().split()
        return sources if int(mtime_ns) == library.stat().st_mtime_ns else ""
    except (OSError, ValueError):
        return ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two test runs must not write into one build folder at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], limit_s: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{' '.join(command[:3])}... did not end within {limit_s:.0f} s") from error
    if done.returncode:
        raise UsageError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser("python -m asperity.runtime.cuda.build", description="Compile the kernels.")
    parser.add_argument("--arch", action="append", default=[], help="for example 86 or 90a; default: all")
    parser.add_argument("--out", type=Path, default=FATBIN)
    options = parser.parse_args()
    try:
        out = build_fatbin(options.arch, options.out.resolve())
    except AsperityError as error:
        print(f"asperity: {error}", file=sys.stderr)
        return error.exit_code
    print(f"asperity: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
