"""What a customer installs: one package, with its data, that works from any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.places import ROOT

PACKAGES = ("runtime", "calibration", "export", "benchmarks")
DATA = {".cu", ".cuh", ".fatbin", ".json", ".safetensors", ".conf"}
NO_CHECKOUT = shutil.ignore_patterns("__pycache__", "results", "shim")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``pip install`` makes it: the wheel, unpacked."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    for name in ("asperity", *PACKAGES):  # a build writes into its checkout, and takes in what an older one left there
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=NO_CHECKOUT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def test_a_wheel_holds_asperity_with_its_data_and_no_other_package(installed: Path) -> None:
    assert [path.name for path in installed.iterdir() if path.suffix != ".dist-info"] == ["asperity"]
    assert (installed / "asperity/py.typed").is_file()
    wanted = {
        file.relative_to(ROOT)
        for name in PACKAGES
        for file in (ROOT / name).rglob("*")
        if file.suffix in {".py", *DATA} and not {"results", "shim"} & set(file.parts)
    }
    assert {path.suffix for path in wanted} >= {".cu", ".cuh", ".json", ".safetensors", ".py"}
    assert not [str(path) for path in wanted if not (installed / "asperity" / path).is_file()]


def test_an_installed_asperity_is_imported_from_any_folder(installed: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import asperity.client, asperity.testing, asperity.runtime.inspector.desk as desk; print(desk.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == str(installed / "asperity/runtime/inspector/desk.py"), done.stderr
