"""The doctor on this machine: its probes in processes of their own, its command, and where its settings come from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asperity.runtime.doctor.box import Setting
from asperity.runtime.doctor.findings import Engine
from asperity.runtime.doctor.world import Imported, ThisMachine
from asperity.runtime.settings.station_toml import HostedStation, StationConfig
from tests.places import ROOT
from tests.runtime.doctor.made_machine import FATBIN, Made, look, setting_in, without_gpu


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return setting_in(tmp_path)


FAKE_LIBCUDA = """
#include <string.h>
int cuInit(unsigned f) { return 0; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strcpy(s, d ? "old" : "new"); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = 1024; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : 6; return 0; }
static int now;
int cuDevicePrimaryCtxRetain(void **c, int d) { now = d; *c = (void *)8; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuCtxSetCurrent(void *c) { return 0; }
int cuModuleLoadData(void **m, const void *image) { return now ? 209 : 0; }
int cuModuleUnload(void *m) { return 0; }
int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_NO_BINARY_FOR_GPU"; return 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_probe_asks_libcuda_and_says_which_gpu_the_kernels_load_on(tmp_path: Path) -> None:
    source, library, fatbin = tmp_path / "fake.c", tmp_path / "libcuda.so.1", tmp_path / "some.fatbin"
    source.write_text(FAKE_LIBCUDA)
    fatbin.write_bytes(b"kernels")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    probe = ROOT / "runtime/doctor/probes/gpu.py"
    done = subprocess.run(
        [sys.executable, "-I", probe, fatbin],
        env={"LD_LIBRARY_PATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["error"] == "" and told["cuda"] == [12, 6]
    assert [gpu["name"] for gpu in told["gpus"]] == ["new", "old"]
    assert told["gpus"][0]["capability"] == [8, 6] and told["gpus"][0]["memory_bytes"] == 1024
    assert [gpu["kernels"] for gpu in told["gpus"]] == ["ok", "CUDA_ERROR_NO_BINARY_FOR_GPU"]


def test_a_module_that_ends_its_process_is_told_and_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "falls.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (tmp_path / "needs.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "loads.py").write_text("__version__ = '1.2'\nprint('chatter')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    world = ThisMachine(FATBIN)
    assert "signal 11" in world.imported("falls").error
    assert world.imported("loads") == Imported("1.2", str(tmp_path / "loads.py"))
    needs, absent = world.imported("needs"), world.imported("nothing_of_that_name")
    assert needs.error and needs.is_there and not absent.is_there


def test_the_command_on_this_machine(tmp_path: Path) -> None:
    def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "asperity.runtime.cli", "doctor", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip

    config = tmp_path / "station.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/st1.journal"\n[security]\nkeys = "{tmp_path}/none"\n')
    done = doctor("--engine", "cpu", "--json", "--config", str(config))
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["runs"] and told["wanted"] == "cpu", done.stdout
    names = {finding["name"]: finding for finding in told["findings"]}
    assert "numpy" in names["libraries"]["found"] and str(tmp_path) in names["journal"]["found"]
    for finding in told["findings"]:
        assert finding["state"] in ("ok", "note") or finding["mend"]


def test_what_is_missing_ends_with_1(monkeypatch: pytest.MonkeyPatch, setting: Setting) -> None:
    import typer

    from asperity.runtime.commands import doctor

    world = Made()
    without_gpu(world)
    monkeypatch.setattr("asperity.runtime.doctor.world.ThisMachine", lambda fatbin: world)
    monkeypatch.setattr("asperity.runtime.doctor.diagnosis.diagnose", lambda *_: look(world, setting, Engine.CUDA)[0])
    with pytest.raises(typer.Exit) as ended:
        doctor.command(engine=Engine.CUDA, config=None, as_json=True)
    assert ended.value.exit_code == doctor.MISSING_EXIT_CODE


def test_the_settings_come_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from asperity.runtime.commands.doctor import setting_of

    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    seen = setting_of(StationConfig())
    assert seen.engines == Path("/cache/asperity/engines") and seen.journal_nbytes > 4096 * 4096
    two = StationConfig(stations=[HostedStation(name="left", number=1), HostedStation(name="right", number=2)])
    assert [path.name for path in setting_of(two).journals] == ["left.journal", "right.journal"]
