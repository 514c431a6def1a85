"""The blocks of the Structured Text as fixtures."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from asperity.runtime.gateways.modbus.table import STATUS_WORDS
from tests.examples.plc_blocks import HARNESS, MAIN, SOURCES, Plc, TranslatedPlc


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    matiec = os.environ.get("MATIEC")
    if not matiec:
        pytest.skip("no Structured Text compiler: set MATIEC to the folder of a built matiec")
    folder = tmp_path_factory.mktemp("st")
    (folder / "all.st").write_text("".join(path.read_text() for path in SOURCES) + MAIN)
    compiler, library = Path(matiec) / "iec2c", Path(matiec) / "lib"
    subprocess.run([str(compiler), "-I", str(library), "-T", str(folder), str(folder / "all.st")], check=True)
    (folder / "harness.c").write_text(HARNESS)
    flags = ["-O1", "-w", f"-DSTATUS_WORDS={STATUS_WORDS}", f"-I{library / 'C'}", f"-I{folder}"]
    subprocess.run(["cc", *flags, str(folder / "harness.c"), "-lm", "-o", str(folder / "plc")], check=True)
    return folder / "plc"


@pytest.fixture
def compiled(program: Path) -> Iterator[Plc]:
    made = Plc(program)
    yield made
    made.close()


@pytest.fixture(params=["translated", pytest.param("compiled", marks=pytest.mark.foreign)])
def plc(request: pytest.FixtureRequest) -> TranslatedPlc | Plc:
    made: TranslatedPlc | Plc = (
        TranslatedPlc() if request.param == "translated" else request.getfixturevalue("compiled")
    )
    return made
