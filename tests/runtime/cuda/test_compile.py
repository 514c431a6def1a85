"""The kernels compile for GPUs, wherever there is nvcc. That they run is for ``make gpu-check``."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

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


@needs_nvcc
def test_one_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = build_fatbin(["86"], tmp_path / "kernels.fatbin", tmp_path / "build")
    assert out.read_bytes()[:4] == FATBIN_MAGIC
    assert "sm_86" in capsys.readouterr().out


@needs_nvcc
@pytest.mark.foreign
@pytest.mark.timeout(1800)
def test_every_architecture() -> None:
    def make(folder: Path) -> None:
        with (folder / "said").open("w") as said, contextlib.redirect_stdout(said):
            build_fatbin([], folder / "kernels.fatbin", folder / "build")
        shutil.rmtree(folder / "build")

    nvcc = subprocess.run([str(NVCC), "--version"], capture_output=True, check=True).stdout
    made = kept(f"fatbin_{hashlib.sha256(nvcc).hexdigest()[:8]}", make)
    assert (made / "kernels.fatbin").read_bytes()[:4] == FATBIN_MAGIC
    said = (made / "said").read_text()
    wanted = re.search(r'ASPERITY_CUDA_ARCHITECTURES "([^"]+)"', (ROOT / "CMakeLists.txt").read_text())
    assert wanted is not None
    left_out = re.search(r"do not know them|does not know them: (\S+)", said)
    for architecture in wanted.group(1).split(";"):
        assert f"sm_{architecture}" in said or (left_out and architecture in left_out.group(1).split(";"))


@needs_nvcc
def test_an_architecture_that_nvcc_does_not_know_is_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configured = subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-DASPERITY_CUDA_ARCHITECTURES=86;999"],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert "left out, since this nvcc does not know them: 999" in configured
    assert "sm_86" in configured and "code=sm_999" not in configured


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
