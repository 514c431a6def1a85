"""Things that are dear to make, made once in a tree: all workers of a run share them, and so do later runs.

A thing's folder below ``build/test-cache`` is named after a digest of everything that it could depend on: each file of
the product and each helper of the tests (or the files that its maker names, such as all that it imports), the versions
of all that is installed, and the machine. Its content has a digest too, so that a thing that somebody changed is made
again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from tests.places import ROOT

FOLDER = ROOT / "build" / "test-cache"
PRODUCT = ("asperity", "runtime", "calibration", "export", "benchmarks")
UNUSED_S = 3600
"""A thing that no run wanted for so long is removed. Not sooner: a run of other sources may read it now."""
BEGAN_S = time.time()
IMPORT = re.compile(
    r"^[ \t]*(?:from ((?:asperity|tests)[\w.]*) import (\([^)]*\)|.*)|import ((?:asperity|tests)[\w.]+))", re.MULTILINE
)
"""A statement. Looked for by its words: every process of a run asks, and a syntax tree of each file takes a second."""


def kept(name: str, make: Callable[[Path], object], folder: Path = FOLDER, of: tuple[Path, ...] = ()) -> Path:
    """A folder that ``make`` filled, now or in an earlier run of the same sources. Shared: nobody may write into it.

    ``of``: the files and folders that it is made of, where those are few; else all of the product is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = folder / f"{name}-{surroundings(of)[:24]}"
        whole = place.with_suffix(".whole")  # holds the digest of the content, and is written last
        if not (whole.is_file() and whole.read_text() == content(place)):
            whole.unlink(missing_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            whole.write_text(content(place))
        os.utime(place)
        _remove_unused(folder, name)
    return place


@cache
def imported_by(*modules: str) -> tuple[Path, ...]:
    """The files of these modules and of all that they import, directly or not, inside functions too; and calibration's
    data. Not what is imported by a name that is put together: no maker of ours has such."""
    found: dict[str, Path] = {}
    left = list(modules)
    while left:
        name = left.pop()
        path = None if name in found else _file_of(name)
        if path is None:  # known, or a function or class of a module
            continue
        found[name] = path
        left.append(name.rpartition(".")[0])
        for module, names, plain in IMPORT.findall(path.read_text()):
            words = re.sub("#.*", "", names).strip("()").split(",")
            left += [plain or module, *(f"{module}.{word.split()[0]}" for word in words if word.strip())]
    data = [path for path in _files(ROOT / "calibration") if path.suffix != ".py"]
    return tuple(sorted({*found.values(), *data}))


def _file_of(module: str) -> Path | None:
    inside = module.removeprefix("asperity.").split(".")
    for place in (ROOT.joinpath(*inside), ROOT.joinpath("asperity", *inside)):
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if module and path.is_file():
                return path
    return None


@cache
def surroundings(of: tuple[Path, ...] = ()) -> str:
    """A digest of all that a thing may depend on."""
    product = [path for each in of or [ROOT / name for name in PRODUCT] for path in _files(each)]
    helpers = [] if of else [
        path for path in _files(ROOT / "tests") if path.suffix == ".py" and not path.name.startswith("test_")
    ]  # fmt: skip
    versions = sorted(f"{each.name}=={each.version}" for each in distributions())
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model name", "flags"))]
    # A source that was written after the start may be loaded in either form: what is made now is for nobody else.
    torn = max(path.stat().st_mtime for path in [*product, *helpers]) > BEGAN_S
    place = [str(ROOT), sys.version, platform.platform(), os.environ.get("OMP_NUM_THREADS", ""), *cpu[:2]]
    text = "\n".join([_digest(product + helpers), *versions, *place, str(os.getpid()) if torn else ""])
    return hashlib.sha256(text.encode()).hexdigest()


def content(place: Path) -> str:
    """A digest of what is in a folder."""
    return _digest(_files(place))


def _digest(paths: list[Path]) -> str:
    lines = (f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(paths))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    """All below a folder, or the file itself."""
    if folder.is_file():
        return [folder]
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _remove_unused(folder: Path, name: str) -> None:
    for old in folder.glob(f"{name}-*"):
        if old.is_dir() and old.stat().st_mtime < time.time() - UNUSED_S:
            old.with_suffix(".whole").unlink(missing_ok=True)
            shutil.rmtree(old, ignore_errors=True)
