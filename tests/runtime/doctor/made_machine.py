"""Machines that are made up, for the doctor to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from asperity.runtime.doctor.box import Setting
from asperity.runtime.doctor.diagnosis import diagnose
from asperity.runtime.doctor.findings import Diagnosis, Engine, Finding
from asperity.runtime.doctor.python import LIBRARIES
from asperity.runtime.doctor.world import Driver, Gpu, Imported, Python
from asperity.runtime.process.kernel_clock import KernelClock
from asperity.runtime.process.processors import Processors
from asperity.runtime.settings.station_toml import StationConfig

HOME = Path("/opt/asperity/lib/python3.12/site-packages")
FATBIN = HOME / "asperity/runtime/cuda/asperity.fatbin"
H100 = Gpu("NVIDIA H100", (9, 0), 80 * 2**30, "ok")
ORIN = Gpu("Orin", (8, 7), 32 * 2**30, "ok")
PYTHON = Python((3, 12, 3), "/opt/asperity/bin/python", True, True)
DRIVER = Driver("", (13, 0), (H100,))
CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"
LOADS = {
    **{module: "9.9" for module, _ in LIBRARIES},
    **{"onnxruntime": "1.32.0", "zmq": "27.3.0", "asperity.runtime.doctor.probes.curve": "4.3.5"},
    **{
        "onnx": "1.23.2",
        "pycuda": "2026.1",
        "pycuda.driver": "2026.1",
        "cuda.bindings.driver": "13.0.1",
        "tensorrt": "10.13.2",
    },
}


@dataclass
class Made:
    """A made-up machine on which everything is well."""

    python: Python = PYTHON
    machine: str = "x86_64"
    environment: Mapping[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(
        default_factory=lambda: {
            str(FATBIN): "",
            "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
            "/proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB",
            f"{CPUFREQ}": "",
            f"{CPUFREQ}/scaling_governor": "performance",
            f"{CPUFREQ}/scaling_cur_freq": "3000000",
            f"{CPUFREQ}/cpuinfo_max_freq": "3200000",
            "/etc/systemd/system/asperity-inspector.service": "",
            "/sys/module/nvidia/version": "580.1",
        }
    )
    modes: dict[str, tuple[int, int]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=lambda: {"systemctl": "enabled active"})
    loads: dict[str, str] = field(default_factory=lambda: dict(LOADS))
    breaks: dict[str, str] = field(default_factory=dict)
    answer: Driver = DRIVER
    free: int = 2**40
    writable: bool = True
    cpus: Processors = field(default_factory=lambda: Processors(8, 8, None))
    time: KernelClock = field(default_factory=lambda: KernelClock(True, 0.01, 0.2, "chrony"))
    asked: list[str] = field(default_factory=list)

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        return path in self.files

    def glob(self, pattern: str) -> list[str]:
        return sorted(path for path in [*self.files, *self.modes] if fnmatch(path, pattern))

    def mode(self, path: str) -> tuple[int, int] | None:
        return self.modes.get(path)

    def uid(self) -> int:
        return 1000

    def processors(self) -> Processors:
        return self.cpus

    def clock(self) -> KernelClock:
        return self.time

    def free_bytes(self, path: str) -> int:
        return self.free

    def may_write(self, path: str) -> bool:
        return self.writable

    def say(self, *command: str) -> str | None:
        return self.said.get(command[0])

    def is_installed(self, module: str) -> bool:
        return module in self.loads or module in self.breaks

    def imported(self, module: str) -> Imported:
        self.asked.append(module)
        if module in self.breaks:
            return Imported(error=self.breaks[module])
        if module not in self.loads:
            return Imported(error=f"No module named {module!r}", is_there=False)
        return Imported(self.loads[module], str(HOME / module.replace(".", "/") / "__init__.py"))

    def library(self, names: Sequence[str]) -> str | None:
        return names[0]

    def driver(self) -> Driver:
        return self.answer


def without_gpu(world: Made) -> None:
    world.answer = Driver(error="libcuda.so.1: cannot open shared object file")
    del world.files[str(FATBIN)]
    for module in ("pycuda", "pycuda.driver", "cuda.bindings.driver", "tensorrt"):
        del world.loads[module]


def jetson(release: str, python: tuple[int, int, int]) -> Callable[[Made], None]:
    def make(world: Made) -> None:
        world.machine, world.answer = "aarch64", Driver("", (12, 6), (ORIN,))
        world.files["/etc/nv_tegra_release"] = f"# {release} (release), REVISION: 4.3, GCID: 1, BOARD: generic"
        world.files["/usr/lib/python3.10/dist-packages/tensorrt"] = ""
        world.loads["cuda.bindings.driver"], world.loads["tensorrt"] = "12.6.2", "10.3.0"
        world.python = Python(python, "/opt/asperity/bin/python", True, True)

    return make


def setting_in(folder: Path) -> Setting:
    """A station of the defaults, its keys in ``folder``."""
    keys = folder / "keys"
    return Setting(StationConfig(), (Path("/var/lib/st1.journal"),), 17_600_000, keys, keys, Path("/var/cache/engines"))


def look(world: Made, setting: Setting, wanted: Engine | None = None) -> tuple[Diagnosis, dict[str, Finding]]:
    diagnosis = diagnose(world, setting, FATBIN, wanted)
    found = {finding.name: finding for finding in diagnosis.findings}
    assert len(found) == len(diagnosis.findings), "names are the table's keys"
    return diagnosis, found
