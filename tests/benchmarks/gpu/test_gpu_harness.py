"""The GPU check and benchmark, end to end on the CPU stand-in: they must fail where something is wrong or missing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asperity.benchmarks.gpu import bench as gpu_bench
from asperity.benchmarks.gpu import check as gpu_check
from asperity.benchmarks.gpu import harness
from asperity.benchmarks.gpu import record as record_module
from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape, registry
from asperity.runtime.cuda.launch import Device
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError


@pytest.fixture(scope="module")
def shim() -> ShimDevice:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    return ShimDevice()


@pytest.fixture
def results(tmp_path: Path, shim: ShimDevice, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "open_device", lambda kind: shim)
    return tmp_path / "kernels.json"


def check(results: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = gpu_check.main(["--device", "cpu-shim", "--results", str(results), *arguments])
    return code, json.loads(results.read_text())


class Fake:
    """A kernel that is right, wrong or breaks the device."""

    def __init__(self, told: str | None) -> None:
        self.work, self.told = Cost(flop=1, bytes=1), told

    def enqueue(self) -> None:
        if self.told == "break":
            raise EngineError("an illegal memory access was encountered")

    def problems(self) -> list[str]:
        return [self.told] if self.told else []

    def figures(self) -> dict[str, float]:
        return {}


def fake(told: str | None) -> KernelEntry:
    def prepare(device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> Fake:
        return Fake(told)

    return KernelEntry("fake", "fake", prepare, ({"n": 1},), ({"n": 1}, {"n": 2}), ("random", "nan"))


def test_on_a_gpu_every_stage_has_a_process_of_its_own(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[list[str]] = []

    def died(command: list[str], limit_s: float) -> int:
        begun.append(command)
        return 139 if command[-1] == "other" else 0

    monkeypatch.setattr(harness, "in_own_process", died)
    monkeypatch.setattr(gpu_check, "registry", lambda: (fake(None), replace(fake(None), name="other")))
    asked = ["--results", str(results), "--fresh"]
    assert gpu_check.main(asked) == 1
    module = ["-m", "asperity.benchmarks.gpu.check"]
    assert [command[1:] for command in begun] == [
        [*module, *asked, "--stage", stage] for stage in ("fake", "other", "sanitizer")
    ]
    assert "2 of 3 stages passed; not: other" in capsys.readouterr().out
    begun.clear()
    assert gpu_check.main([*asked, "--only", "fake"]) == 0 and len(begun) == 1
    assert gpu_check.main([*asked, "--stage", "fake"]) == 0 and len(begun) == 1, "it is that process"
    assert json.loads(results.read_text())["commands"] == [f"python {' '.join([*module, *asked])}"]


def test_a_stage_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    with os.fdopen(os.open(alive, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as held:
        assert harness.in_own_process(["sh", "-c", f"sleep 600 > {alive} & wait"], 1.0) == harness.TIMED_OUT
        os.set_blocking(held.fileno(), True)
        assert held.read(1) == b"", "this waits as long as anybody holds the pipe"
    assert harness.in_own_process(["sh", "-c", "exit 3"], 60) == 3


@pytest.mark.parametrize("module", [gpu_check, gpu_bench])
def test_without_a_gpu_they_fail_and_write_nothing(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(library: str = "") -> None:
        raise EngineError("there is no NVIDIA driver here")

    monkeypatch.setattr("asperity.runtime.cuda.driver.check_driver", absent)
    out = tmp_path / "kernels.json"
    assert module.main(["--results", str(out)]) == 1
    assert not out.exists()
    assert "no NVIDIA driver" in capsys.readouterr().err


def test_every_kernel_of_the_registry_is_right_on_the_stand_in(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One small shape of each, with every kind of input; the kernels' own tests have the others.
    entries = tuple(replace(entry, small=entry.small[-1:]) for entry in registry())
    monkeypatch.setattr(gpu_check, "registry", lambda: entries)
    code, said = check(results)
    assert code == 0
    assert said["is_gpu"] is False
    assert set(said["states"]) == {entry.name for entry in entries}
    for entry in entries:
        assert len(said["sections"][f"check:{entry.name}"]) == len(entry.kinds)


def test_degenerate_inputs_have_shapes_of_their_own() -> None:
    small, large, hard = ({"n": 1},), ({"n": 9}, {"n": 10}), ({"n": 5},)
    entry = replace(fake(None), small=small, shapes=large, hard=hard)
    whole = list(gpu_check.cases(entry, small_only=False))
    assert [shape["n"] for shape, kind in whole if kind == "random"] == [1, 9, 10]
    assert [shape["n"] for shape, kind in whole if kind == "nan"] == [1, 5]
    assert [shape["n"] for shape, _ in gpu_check.cases(entry, small_only=True)] == [1, 1]


def test_a_kernel_for_other_chips_is_named_and_not_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(fake("off by 3 mm"), least=(9, 1))
    monkeypatch.setattr(gpu_check, "registry", lambda: (entry,))
    code, said = check(results)
    assert code == 0 and said["states"] == {"fake": "other chip"}


def test_a_wrong_kernel_fails_the_check(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "registry", lambda: (fake("off by 3 mm"),))
    code, said = check(results)
    assert code == 1 and said["states"] == {"fake": "failed"}


def test_after_a_device_error_the_stage_stops(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "registry", lambda: (fake("break"),))
    code, said = check(results)
    assert code == 1 and len(said["sections"]["check:fake"]) == 1


def test_a_stage_that_ran_out_of_time_is_not_passed_and_goes_on(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "registry", lambda: (fake(None),))
    code, said = check(results, "--limit-s", "-1")
    assert code == 1 and said["states"] == {"fake": "unfinished"}
    code, said = check(results)
    assert code == 0
    seeds = {name: case["seed"] for name, case in said["sections"]["check:fake"].items()}
    code, said = check(results)
    assert code == 0 and seeds == {name: case["seed"] for name, case in said["sections"]["check:fake"].items()}
    code, said = check(results, "--fresh")
    assert code == 0 and seeds != {name: case["seed"] for name, case in said["sections"]["check:fake"].items()}


def test_other_sources_make_old_results_void(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "registry", lambda: (fake(None),))
    check(results)
    monkeypatch.setattr(record_module, "sources_digest", lambda: "other")
    _, said = check(results, "--limit-s", "-1")
    assert said["sections"]["check:fake"] == {}


def test_a_stage_that_does_not_exist_is_refused(results: Path) -> None:
    assert gpu_check.main(["--device", "cpu-shim", "--only", "absent"]) == 2
    assert gpu_bench.main(["--device", "cpu-shim", "--only", "absent"]) == 2


def test_the_benchmark_runs_from_end_to_end(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = ("rates", "nearest_tensor", "nearest_product", "nearest_float32", "rivals", "choice")
    chosen = [argument for stage in stages for argument in ("--only", stage)]
    folder = tmp_path / "choice"
    code = gpu_bench.main(["--device", "cpu-shim", "--results", str(results), "--choice-folder", str(folder), *chosen])
    assert code == 0
    said = json.loads(results.read_text())["sections"]
    for case in said["time:nearest_tensor"].values():
        assert case["problems"] == [] and case["median_us"] > 0 and set(case["part_us"]) == {
            "prepare", "rank", "settle", "exact"
        }  # fmt: skip
    assert all(timed["as_ours"] > 0.9 for case in said["rivals"].values() for timed in case["rivals"].values())
    assert json.loads((folder / "cpu-shim.json").read_text())["paths"] == said["choice"]
    assert "torch.cdist + min" in capsys.readouterr().out


def test_the_benchmark_fails_where_what_it_timed_is_wrong(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_bench, "registry", lambda: (fake("off by 3 mm"),))
    assert gpu_bench.main(["--device", "cpu-shim", "--results", str(results), "--only", "fake"]) == 1
