"""The context of one call of the whole-frame benchmark: device, frames, cases, and how much of each is measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from asperity.benchmarks.gpu.cases import LITE_WEIGHTS, TINY, Case, bundle_case, make_bundle, seeded_case, tiny_profile
from asperity.benchmarks.gpu.frames import PackedFrames, open_packed
from asperity.benchmarks.gpu.record import digest_of
from asperity.calibration.profiles import profile
from asperity.runtime.cuda.build import ROOT
from asperity.runtime.errors import DataError
from asperity.runtime.files import put_folder
from asperity.runtime.frame import Frame
from asperity.runtime.process.processors import usable_processors

FRAMES = "frames.zip"
TIMED_FRAMES = 64
"""Number of different frames that timings cycle through."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    profile: str
    """Profile of the calibrated bundle."""
    seeded: dict[str, str]
    """Cases with weights from a seed, and their profiles."""
    agree: int
    latency: int
    open_loop: int
    lanes: tuple[int, ...]
    throughput_s: float
    gaps: tuple[tuple[float, int], ...]
    """Length of a gap in seconds, and the number of frames measured after one."""
    starts: int
    repeats: int
    """Repeats of each stage of the breakdown."""
    warm_up: int


GPU_PLAN = Plan(
    profile="lite", seeded={"edge": "edge", "paper": "paper"}, agree=500, latency=6000, open_loop=4000,
    lanes=(1, 2, 4, 8), throughput_s=5.0, gaps=((0.1, 50), (1.0, 20), (10.0, 6)), starts=3, repeats=30, warm_up=20,
)  # fmt: skip
SHIM_PLAN = Plan(
    profile=TINY, seeded={"tiny-seeded": TINY}, agree=3, latency=3, open_loop=2, lanes=(1, 2), throughput_s=0.0,
    gaps=((0.1, 1),), starts=1, repeats=1, warm_up=1,
)  # fmt: skip
"""Only shows that every stage runs from end to end; its figures mean nothing."""


def plan_of(kind: str, profile: str = "", agree: int = 0) -> Plan:
    """The plan for ``cuda`` or ``cpu-shim``; ``profile``: only a bundle of that one; ``agree``: frames compared."""
    plan = GPU_PLAN if kind == "cuda" else SHIM_PLAN
    if profile:
        plan = replace(plan, profile=profile, seeded={})
    return replace(plan, agree=agree) if agree else plan


@dataclass
class Day:
    """One call's context; ``material``: the folder that ``benchmarks.gpu.material`` filled."""

    kind: str
    material: Path
    work: Path
    plan: Plan
    stations: dict[str, Path] = field(default_factory=dict)
    """More cases by name: folders as ``asperity calibrate -o FOLDER --keys FOLDER/keys`` leaves them."""
    _cases: dict[str, Case] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.plan.profile == TINY:
            tiny_profile()

    @cached_property
    def packed(self) -> PackedFrames:
        """Raises DataError where the file is not there."""
        return open_packed(self.material / FRAMES)

    @cached_property
    def frames(self) -> list[Frame]:
        """The frames that timings cycle through."""
        return list(self.packed.test_frames(TIMED_FRAMES))

    @property
    def station(self) -> Path:
        """Calibration and bundle, named by what they are made of: frames, networks, method. Raises DataError."""
        program = [path for path in (ROOT / "calibration").rglob("*") if path.suffix in (".py", ".safetensors")]
        return self.work / f"{self.plan.profile}-{digest_of([self.packed.path, *program])[:8]}"

    def make_station(self) -> None:
        """Calibrate and export, unless already done. Raises AsperityError."""
        if (self.station / "bundle" / "manifest.json").is_file():
            return
        draft = self.station.with_suffix(".draft")
        weights = self.material / LITE_WEIGHTS
        if not weights.is_file():
            raise DataError(f"{weights} is missing; python -m asperity.benchmarks.gpu.material writes it")
        make_bundle(draft, self.packed, weights, self.plan.profile, usable_processors())
        put_folder(draft, self.station)

    def case(self, name: str) -> Case:
        """One of the plan's cases. Raises AsperityError."""
        if name not in self._cases:
            if name == self.plan.profile:
                self.make_station()
                self._cases[name] = bundle_case(self.station)
            elif name in self.stations:
                self._cases[name] = bundle_case(self.stations[name])
            elif name not in self.plan.seeded:
                raise DataError(f"no such case: {name}; see --list, or name it with --station")
            else:
                geometry = self.case(self.plan.profile).geometry
                chosen = profile(self.plan.seeded[name])
                self._cases[name] = seeded_case(chosen, geometry, self.frames)
        return self._cases[name]
