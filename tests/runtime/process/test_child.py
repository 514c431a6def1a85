"""Processes that this one starts import what this one imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asperity.runtime.process.child import of_ours


def test_files_of_the_working_folder_take_no_modules_place(tmp_path: Path) -> None:
    for name in ("numpy", "json", "random", "types", "zmq", "runpy", "asperity", "runtime"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is no module of Asperity')")
    done = subprocess.run(
        of_ours("asperity.runtime.cli", "keys", "list", "--keys", "no keys"),
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["numpy.py", "zmq/__init__.py"])
def test_a_file_in_a_modules_place_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    done = subprocess.run(
        [sys.executable, "-m", "asperity.runtime.cli", "keys", "list"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 15
    assert done.stderr == (
        f"asperity: {tmp_path / name} is imported in place of the module of that name; rename it, or start `asperity`\n"
    )
