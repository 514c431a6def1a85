"""The kernels compile for GPUs, wherever there is nvcc. That they run is for ``make gpu-check``."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from asperity.runtime.cuda import build
from asperity.runtime.cuda.build import ROOT, build_fatbin
from asperity.runtime.errors import UsageError
from tests.kept import kept

NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(
    NVCC is None or shutil.which("cmake") is None, reason="there is no nvcc or no cmake here"
)
FATBIN_MAGIC = bytes.fromhex("50ed55ba")


KINDS = ("75", "86", "90a")
"""One of each way through the sources (``__CUDA_ARCH__``: below 800, below 900, from 900); PTX of the last."""


@needs_nvcc
def test_an_architecture_of_each_kind() -> None:
    """Compiled when a source or nvcc has changed."""
    known, version = (asked_nvcc(option) for option in ("--list-gpu-code", "--version"))
    chosen = [kind for kind in KINDS if f"sm_{kind.rstrip('a')}" in known.split()]

    def compile_them(folder: Path) -> None:
        with TemporaryDirectory() as objects, redirect_stdout(StringIO()) as said:
            build_fatbin(chosen, folder / "kernels.fatbin", Path(objects))
        (folder / "said").write_text(said.getvalue())

    name = f"kernels_{hashlib.sha256(version.encode()).hexdigest()[:12]}"
    folder = kept(name, compile_them, of=(ROOT / "CMakeLists.txt", ROOT / "runtime" / "cuda", Path(__file__)))
    assert (folder / "kernels.fatbin").read_bytes()[:4] == FATBIN_MAGIC
    assert chosen and all(f"sm_{kind}" in (folder / "said").read_text() for kind in chosen)


def asked_nvcc(option: str) -> str:
    return subprocess.run([str(NVCC), option], capture_output=True, text=True, check=True).stdout


def check_every_architecture(said: str) -> None:
    """Each that CMakeLists.txt names is compiled for, or left out by name."""
    wanted = re.search(r'ASPERITY_CUDA_ARCHITECTURES "([^"]+)"', (ROOT / "CMakeLists.txt").read_text())
    assert wanted is not None
    left_out = re.search(r"do not know them|does not know them: (\S+)", said)
    for architecture in wanted.group(1).split(";"):
        assert f"sm_{architecture}" in said or (left_out and architecture in left_out.group(1).split(";"))


@needs_nvcc
def test_every_architecture_is_chosen_or_left_out_by_name(tmp_path: Path) -> None:
    check_every_architecture(configured(tmp_path))


@needs_nvcc
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = build_fatbin([], tmp_path / "kernels.fatbin", tmp_path / "build")
    assert out.read_bytes()[:4] == FATBIN_MAGIC
    check_every_architecture(capsys.readouterr().out)


@needs_nvcc
def test_an_architecture_that_nvcc_does_not_know_is_left_out_by_name(tmp_path: Path) -> None:
    said = configured(tmp_path, "-DASPERITY_CUDA_ARCHITECTURES=86;999")
    assert "left out, since this nvcc does not know them: 999" in said
    assert "sm_86" in said and "code=sm_999" not in said


def configured(folder: Path, *options: str) -> str:
    """What CMake says."""
    command = ["cmake", "-S", str(ROOT), "-B", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@needs_nvcc
def test_a_source_that_does_not_compile_is_told_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "runtime" / "cuda" / "shim", copy / "runtime" / "cuda" / "shim")
    shutil.copy(ROOT / "CMakeLists.txt", copy)
    (copy / "runtime" / "cuda" / "broken.cu").write_text("this is no kernel\n")
    monkeypatch.setattr(build, "ROOT", copy)
    with pytest.raises(UsageError, match="failed"):
        build_fatbin(["86"], tmp_path / "kernels.fatbin", tmp_path / "build")
    assert not (tmp_path / "kernels.fatbin").exists()


def test_without_nvcc_the_build_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "NVCC_ELSEWHERE", tmp_path / "nvcc")
    with pytest.raises(UsageError, match="no nvcc on PATH"):
        build_fatbin(["86"], tmp_path / "kernels.fatbin", tmp_path / "build")
    assert build.missing_for_simt() is not None
