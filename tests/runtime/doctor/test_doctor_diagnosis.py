"""What the doctor says of machines that are made up: what each engine needs, and the remedy for what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_struct

from asperity.runtime.cuda import environment
from asperity.runtime.doctor.box import Setting
from asperity.runtime.doctor.findings import Engine, State
from asperity.runtime.doctor.gpu import ONNX, PYCUDA, TENSORRT, TENSORRT_RTX
from asperity.runtime.doctor.python import LIBRARIES
from asperity.runtime.doctor.world import Driver, Gpu, Python
from asperity.runtime.engines.tensorrt.plan_cache import PlanCache, PlanKey
from asperity.runtime.judging.recipes import find_recipe, recipe_name
from asperity.runtime.process.kernel_clock import KernelClock
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.text.formats import decode_toml
from tests.bundle_factory import write_toy_bundle
from tests.places import ROOT
from tests.runtime.doctor.made_machine import CPUFREQ, FATBIN, H100, ORIN, Made, jetson, look, setting_in, without_gpu


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return setting_in(tmp_path)


def on_gpu(setting: Setting, index: int) -> Setting:
    station = replace_struct(setting.station, engine=replace_struct(setting.station.engine, gpu=index))
    return replace(setting, station=station)


def test_a_machine_that_has_all_runs_both_engines_and_is_judged_by_cuda(setting: Setting) -> None:
    diagnosis, found = look(Made(), setting)
    assert diagnosis.wanted is Engine.CUDA and diagnosis.runs and "H100" in diagnosis.why
    assert {finding.state for finding in found.values()} <= {State.OK, State.NOTE}
    assert not diagnosis.lacks(Engine.CPU)


def test_no_gpu_is_no_fault_of_the_cpu_engine_and_one_of_cuda(setting: Setting) -> None:
    world = Made()
    without_gpu(world)
    by_default, _ = look(world, setting)
    assert by_default.wanted is Engine.CPU and by_default.runs and "no NVIDIA GPU" in by_default.why
    asked, _ = look(world, setting, Engine.CUDA)
    assert not asked.runs
    assert [lack.name for lack in asked.lacks(Engine.CUDA)] == [
        "driver", "gpu", "kernels", "pycuda", "cuda-bindings", "tensorrt",
    ]  # fmt: skip


def test_pycudas_driver_is_never_imported_without_libcuda(setting: Setting) -> None:
    world = Made(answer=Driver(error="libcuda.so.1: cannot open shared object file"))
    _, found = look(world, setting)
    assert "pycuda" in world.asked and "pycuda.driver" not in world.asked
    assert found["pycuda"].state is State.NOTE


def no_module(name: str) -> Callable[[Made], None]:
    return lambda world: world.loads.pop(name) and None


def at(name: str, value: object) -> Callable[[Made], None]:
    return lambda world: setattr(world, name, value)


def put(name: str, key: str, value: object) -> Callable[[Made], None]:
    return lambda world: getattr(world, name).__setitem__(key, value)


BREAKS: list[tuple[Callable[[Made], None], str, State, str, str]] = [
    (at("python", Python((3, 9, 18), "/usr/bin/python3.9", True, True)), "python", State.MISSING, "3.10", "venv"),
    (at("python", Python((3, 12, 3), "/usr/bin/python3", False, True)), "python", State.NOTE, "not in a venv", "venv"),
    (put("environment", "PYTHONPATH", "/x"), "python", State.NOTE, "/x", ""),
    (no_module("scipy"), "libraries", State.MISSING, "No module named 'scipy'", "'scipy>=1.11'"),
    (no_module("onnxruntime"), "onnxruntime", State.MISSING, "No module", "'onnxruntime>=1.23'"),
    (put("loads", "onnxruntime", "1.19.2"), "onnxruntime", State.MISSING, "1.19.2", "'onnxruntime>=1.23'"),
    (no_module("zmq"), "zeromq", State.MISSING, "No module", "'pyzmq>=26'"),
    (no_module("asperity.runtime.doctor.probes.curve"), "zeromq", State.WARNING, "no CURVE", "--only-binary pyzmq"),
    (at("answer", Driver("CUDA_ERROR_UNKNOWN")), "driver", State.MISSING, "CUDA_ERROR_UNKNOWN", "nvidia"),
    (at("answer", Driver("", (11, 8), (H100,))), "driver", State.MISSING, "11.8", "nvidia"),
    (at("answer", Driver("", (13, 0), ())), "gpu", State.MISSING, "shows none", "nvidia-smi"),
    (at("answer", Driver("", (13, 0), (replace(H100, capability=(7, 0)),))), "gpu", State.MISSING, "7.0", "cpu"),
    (
        at("answer", Driver("", (13, 0), (replace(H100, kernels="CUDA_ERROR_NO_BINARY_FOR_GPU"),))),
        *("kernels", State.MISSING, "NO_BINARY_FOR_GPU", "asperity.runtime.cuda.build"),
    ),
    (lambda world: world.files.pop(str(FATBIN)) and None, "kernels", State.MISSING, "not there", "runtime.cuda.build"),
    (no_module("pycuda"), "pycuda", State.MISSING, "No module", PYCUDA),
    (put("breaks", "pycuda.driver", "undefined symbol: x"), "pycuda", State.MISSING, "undefined symbol", "--force"),
    (no_module("cuda.bindings.driver"), "cuda-bindings", State.MISSING, "No module", "'cuda-bindings>=12.6,<14'"),
    (at("answer", Driver("", (12, 8), (H100,))), "cuda-bindings", State.WARNING, "serves 12", "<13"),
    (no_module("tensorrt"), "tensorrt", State.MISSING, "neither", TENSORRT),
    (no_module("onnx"), "tensorrt", State.WARNING, "cannot be built", ONNX),
    (put("loads", "tensorrt", "8.6.1"), "tensorrt", State.MISSING, "8.6.1", TENSORRT),
    (put("breaks", "tensorrt", "libnvinfer.so.10: cannot open"), "tensorrt", State.MISSING, "libnvinfer", TENSORRT),
    (put("modes", "/var/cache/engines", (0o777, 1000)), "engine cache", State.MISSING, "0777", "chmod -R go-w"),
    (put("modes", "/var/cache/engines/a/b", (0o664, 1000)), "engine cache", State.MISSING, "0664", "chmod -R go-w"),
    (put("modes", "/var/cache/engines/a", (0o600, 1001)), "engine cache", State.MISSING, "uid 1001", "chown -R 1000"),
    (at("free", 2**30), "engine cache", State.WARNING, "1.1 GB free", "XDG_CACHE_HOME"),
    (at("free", 10**6), "journal", State.MISSING, "17.6 MB", "df -h"),
    (at("writable", False), "journal", State.MISSING, "uid 1000", "chown 1000 /var/lib"),
    (put("files", f"{CPUFREQ}/scaling_governor", "powersave"), "cpu frequency", State.WARNING, "powersave", "cpupower"),
    (at("time", KernelClock(False, 0.0, 16_000.0)), "wall clock", State.WARNING, "not synchronised", "set-ntp"),
    (at("time", KernelClock(None, why="not permitted")), "wall clock", State.NOTE, "not permitted", ""),
    (
        put("files", "/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
        *("clock source", State.WARNING, "hpet", "dmesg"),
    ),
    (put("files", "/proc/meminfo", "MemAvailable: 500000 kB"), "memory", State.WARNING, "0.5 GiB", "free"),
    (put("files", "/sys/fs/cgroup/memory.max", str(2**29)), "memory", State.WARNING, "at most 0.5 GiB", "free"),
    (put("said", "systemctl", "disabled inactive"), "supervisor", State.WARNING, "not enabled", "enable --now"),
    (
        lambda world: world.files.pop("/etc/systemd/system/asperity-inspector.service") and None,
        *("supervisor", State.NOTE, "no systemd unit", "deploy/systemd"),
    ),
]


@pytest.mark.parametrize(
    ("break_it", "name", "state", "found", "mend"), BREAKS, ids=[f"{row[1]}-{row[3]}" for row in BREAKS]
)
def test_each_thing_broken_alone_is_named_with_its_remedy(
    break_it: Callable[[Made], None], name: str, state: State, found: str, mend: str, setting: Setting
) -> None:
    world = Made()
    break_it(world)
    _, findings = look(world, setting)
    assert findings[name].state is state, findings[name]
    assert found in findings[name].found
    assert mend in findings[name].mend


@pytest.mark.parametrize("release", ["R36", "R38"])
def test_a_jetson_with_its_own_python_has_all(release: str, setting: Setting) -> None:
    world = Made()
    jetson(release, (3, 10, 12) if release == "R36" else (3, 12, 3))(world)
    diagnosis, _ = look(world, setting)
    assert diagnosis.runs and diagnosis.wanted is Engine.CUDA


def test_a_jetson_venv_that_does_not_see_the_systems_tensorrt_is_told_how_to(setting: Setting) -> None:
    world = Made()
    jetson("R36", (3, 10, 12))(world)
    del world.loads["tensorrt"]
    world.python = replace(world.python, sees_system=False)
    _, found = look(world, setting)
    assert "this venv cannot see" in found["tensorrt"].found
    assert "/usr/bin/python3.10 -m venv --system-site-packages" in found["tensorrt"].mend
    assert "apt-get" not in found["tensorrt"].mend
    del world.files["/usr/lib/python3.10/dist-packages/tensorrt"]
    assert "sudo apt-get install python3-libnvinfer" in look(world, setting)[1]["tensorrt"].mend


def test_a_jetson_with_another_python_is_told_which_tensorrt_wants(setting: Setting) -> None:
    world = Made()
    jetson("R36", (3, 12, 3))(world)
    del world.loads["tensorrt"]
    diagnosis, found = look(world, setting, Engine.CPU)
    assert found["python"].state is State.WARNING and "/usr/bin/python3.10" in found["python"].mend
    assert "for another Python" in found["tensorrt"].found
    assert diagnosis.runs, "the cpu engine is not affected"


def test_an_rtx_card_is_given_tensorrt_rtx(setting: Setting) -> None:
    world = Made(answer=Driver("", (13, 0), (Gpu("RTX 5090", (12, 0), 2**35, "ok"),)))
    del world.loads["tensorrt"]
    assert TENSORRT_RTX in look(world, setting)[1]["tensorrt"].mend
    world.loads["tensorrt_rtx"] = "1.7.1"
    assert look(world, setting)[1]["tensorrt"].state is State.OK


def test_the_gpu_meant_is_the_one_looked_at(setting: Setting) -> None:
    world = Made(answer=Driver("", (13, 0), (H100, replace(ORIN, kernels="CUDA_ERROR_X"))))
    _, found = look(world, on_gpu(setting, 1))
    assert found["gpu"].found.startswith("Orin") and found["kernels"].state is State.MISSING
    assert look(world, on_gpu(setting, 2))[1]["gpu"].state is State.MISSING


def test_keys_that_others_could_touch_are_named_with_the_command(setting: Setting) -> None:
    TrustStore(setting.trust).new_key("here")
    assert look(with_keys(setting), setting)[1]["keys"].state is State.OK
    (setting.trust / "signing.pem").chmod(0o644)
    finding = look(with_keys(setting), setting)[1]["keys"]
    assert finding.state is State.MISSING and finding.mend == f"chmod 600 {setting.trust / 'signing.pem'}"


def with_keys(setting: Setting) -> Made:
    world = Made()
    world.files[str(setting.trust)] = ""
    return world


def with_recipe(setting: Setting, name: str, place: Path, cache: Path) -> Setting:
    engine = replace_struct(setting.station.engine, trust=str(setting.trust), cache=str(cache))
    return replace(setting, station=StationConfig(engine=engine, recipes={name: str(place)}))


def test_a_recipe_whose_bundle_does_not_open_is_named(setting: Setting, tmp_path: Path) -> None:
    assert look(Made(), setting)[1]["recipes"].state is State.NOTE
    diagnosis, found = look(Made(), with_recipe(setting, "plate", tmp_path / "none", tmp_path / "cache"))
    assert found["recipes"].state is State.MISSING and not diagnosis.runs
    assert str(tmp_path / "none") in found["recipes"].found and "asperity inspect" in found["recipes"].mend


def test_networks_must_be_built_for_the_very_gpu(setting: Setting, tmp_path: Path) -> None:
    toy = write_toy_bundle(tmp_path / "toy", TrustStore(setting.trust))
    name = recipe_name(toy.path)
    configured = with_recipe(setting, name, toy.path, tmp_path / "cache")
    digest = find_recipe(name, configured.station).identity
    diagnosis, found = look(Made(), configured)
    assert found["recipes"].state is State.OK, found["recipes"]
    command = f"asperity engines build {toy.path} --precision fp16 --cache {tmp_path / 'cache'}"
    assert found["networks"].mend == command
    assert not diagnosis.lacks(Engine.CPU), "the cpu engine needs none"
    cache = PlanCache(tmp_path / "cache", 10**9)
    for name_, capability, is_there in ((ORIN.name, "8.7", False), (H100.name, "9.0", True)):
        gpu = environment.Gpu(name_, capability, driver="580.1", cuda="13.0")
        cache.store(PlanKey(digest, "fp16", "half", "tensorrt", "10.13.2", gpu), {}, "test")
        assert (look(Made(), configured)[1]["networks"].state is State.OK) == is_there


def test_the_commands_name_what_pyproject_asks_for() -> None:
    project = decode_toml((ROOT / "pyproject.toml").read_bytes())["project"]
    extras = project["optional-dependencies"]
    assert PYCUDA in extras["gpu"] and {TENSORRT, ONNX} <= set(extras["tensorrt"])
    assert {TENSORRT_RTX, ONNX} <= set(extras["tensorrt-rtx"])
    assert {requirement for _, requirement in LIBRARIES} <= set(project["dependencies"])
