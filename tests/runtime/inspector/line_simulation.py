"""A line with a hard-wired trigger, simulated: parts, exposures, announcements and all that can go wrong with them.

Virtual time. The oracle is the part that was really in front of the camera at each exposure. Used by the tests of
``runtime.inspector.part_matching``; run by itself it counts wrong bindings over many parts:

    python tests/runtime/inspector/line_simulation.py [PARTS]
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from asperity.runtime.clock import MS
from asperity.runtime.inspector.part_matching import DeviceClock, PartMatcher
from asperity.runtime.settings.station_toml import HardWired

PITCH_MS = 400.0
SETTINGS = HardWired(early_ms=20, late_ms=60, arrival_max_ms=80, tolerance_ms=5, pitch_min_ms=400, quiet_ms=1500)
DEVICE_SETTINGS = HardWired(
    early_ms=95, late_ms=60, arrival_max_ms=80, tolerance_ms=5, pitch_min_ms=400, quiet_ms=1500, transit_ms=5
)
NOBODY = -1
"""The picture of no part, and the part of no picture."""

FAULTS = (
    "missed", "lost", "broken", "refused", "late", "bounce", "noise", "unannounced", "announced_late", "lag",
    "announced_twice", "spurious", "camera_restart", "restart", "clock_step", "camera_clock_step", "stall", "no_time",
)  # fmt: skip


@dataclass(slots=True)
class Exposure:
    """One exposure: when, of which part, and what becomes of it on its way."""

    at_ms: float
    part: int
    fate: str = "good"
    transit_ms: float = 10.0


@dataclass(slots=True)
class Line:
    """What happened: exposures, announcements (time, part), camera and inspector restarts, clock steps, stalls."""

    parts: int = 0
    exposures: list[Exposure] = field(default_factory=list)
    announcements: list[tuple[float, int]] = field(default_factory=list)
    camera_restarts: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    clock_steps: list[tuple[float, float]] = field(default_factory=list)
    camera_clock_steps: list[tuple[float, float]] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    times_ms: list[float] = field(default_factory=list)


def make_line(rng: random.Random, parts: int, rate: float, faults: tuple[str, ...] = FAULTS, apart: int = 0) -> Line:
    """A line of ``parts`` parts, each with a fault of a random kind with probability ``rate``.

    ``apart``: at least so many faultless parts lie between two faults, and none comes while announcements lag.
    """
    line, now_ms, last, lag_ms, lagging = Line(parts), 3000.0, -apart - 1, 0.0, 0
    for part in range(parts):
        now_ms += PITCH_MS * rng.uniform(1.0, 1.6)
        if rng.random() < 0.03:
            now_ms += 3 * PITCH_MS + SETTINGS.quiet_ms + 1000
        line.times_ms.append(now_ms)
        fault = ""
        if faults and rng.random() < rate and part - last > apart and not (apart and lagging):
            fault, last = rng.choice(faults), part
            line.faults[part] = fault
        lag_ms, lagging = _happen(line, rng, part, now_ms, fault, lag_ms, lagging)
    return line


def _happen(  # noqa: PLR0912 - a branch per kind of fault
    line: Line, rng: random.Random, part: int, at_ms: float, fault: str, lag_ms: float, lagging: int
) -> tuple[float, int]:
    exposed_ms = at_ms + rng.uniform(0, 3)
    transit_ms = rng.uniform(5, SETTINGS.arrival_max_ms - 5)
    if fault == "lag" and not lagging:
        lag_ms, lagging = rng.uniform(0.5, 2.2) * PITCH_MS, rng.randint(1, 30)
    if fault == "late":
        transit_ms = rng.uniform(SETTINGS.arrival_max_ms, 4 * PITCH_MS)
    fates = {"lost": "lost", "broken": "broken", "refused": "broken", "no_time": "no_time"}
    if fault != "missed":
        line.exposures.append(Exposure(exposed_ms, part, fates.get(fault, "good"), transit_ms))
    if fault == "bounce":
        line.exposures.append(Exposure(exposed_ms + rng.uniform(2, 30), part, "good", rng.uniform(5, 75)))
    if fault == "noise":
        apart_ms = rng.uniform(-PITCH_MS / 2, PITCH_MS / 2)
        seen = part if abs(apart_ms) < 15 else NOBODY
        line.exposures.append(Exposure(exposed_ms + apart_ms, seen, "good", rng.uniform(5, 75)))
    if fault == "camera_restart":
        line.camera_restarts.append(exposed_ms - rng.uniform(0, 100))
    if fault == "restart":
        line.restarts.append(exposed_ms + rng.uniform(-100, 100))
    if fault == "clock_step":
        step = rng.choice([-1, 1]) * rng.choice([7.0, 60.0, PITCH_MS, 3600e3]) * rng.uniform(1, 1.1)
        line.clock_steps.append((exposed_ms + rng.uniform(-200, 200), step))
    if fault == "camera_clock_step":
        step = rng.choice([-1, 1]) * rng.choice([30.0, PITCH_MS, 3600e3])
        line.camera_clock_steps.append((exposed_ms + rng.uniform(-200, 200), step))
    if fault == "stall":
        line.stalls.append((exposed_ms + rng.uniform(-200, 200), rng.uniform(50, 3 * PITCH_MS)))
    announced_ms = at_ms + rng.uniform(-SETTINGS.early_ms + 4, SETTINGS.late_ms - 4)
    if lagging:
        announced_ms, lagging = announced_ms + lag_ms, lagging - 1
    if fault == "announced_late":
        announced_ms += rng.uniform(20, 3 * PITCH_MS)
    if fault != "unannounced":
        line.announcements.append((announced_ms, part))
    if fault == "announced_twice":
        line.announcements.append((announced_ms + rng.uniform(1, PITCH_MS), part))
    if fault == "spurious":
        line.announcements.append((at_ms + rng.uniform(-PITCH_MS, PITCH_MS), NOBODY))
    return lag_ms, lagging


@dataclass(slots=True)
class Outcome:
    """What the matcher said."""

    bound: list[tuple[int, int]] = field(default_factory=list)
    """(part announced, part in the picture)."""
    parts: Counter[str] = field(default_factory=Counter)
    """Reasons of announcements that have no verdict."""
    exposures: Counter[str] = field(default_factory=Counter)
    own: set[int] = field(default_factory=set)
    """Parts that got the verdict of their own picture."""
    of_part: dict[int, str] = field(default_factory=dict)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each key was answered: once each."""

    @property
    def wrong(self) -> list[tuple[int, int]]:
        """Parts that got the verdict of another picture.

        A spurious announcement is of no part: the exposure that it takes is of the part in front of the camera then.
        """
        return [(part, seen) for part, seen in self.bound if part not in (seen, NOBODY)]


Make = Callable[[HardWired, int], Any]


def play(
    line: Line,
    make: Make = PartMatcher,
    settings: HardWired = SETTINGS,
    make_device_clock: Callable[[HardWired], Any] | None = None,
    device_drift_ppm: float = 20.0,
) -> Outcome:
    """Play a line against a matcher as a station does: ids and seq as it checks them, clocks as it compares them.

    ``make_device_clock``: the camera has a clock of its own, which drifts; None: it shares the box's wall clock.
    """
    return _Player(line, make, settings, make_device_clock, device_drift_ppm).run()


class _Player:
    def __init__(
        self, line: Line, make: Make, settings: HardWired, device: Callable[[HardWired], Any] | None, ppm: float
    ) -> None:
        self.line, self.make, self.settings, self.make_device, self.ppm = line, make, settings, device, ppm
        self.outcome = Outcome()
        self.pictures: dict[int, int] = {}
        self.announced: dict[int, int] = {}
        self.keys = 0
        self.recent: list[int] = []
        self.wall_offset_ms = 0.0
        self.begin(0.0)

    def begin(self, now_ms: float) -> None:
        self.matcher = self.make(self.settings, round(now_ms * MS))
        self.device = self.make_device(self.settings) if self.make_device else None
        self.session: int | None = None
        self.seq = 0
        self.pictures.clear()
        self.announced.clear()

    def run(self) -> Outcome:
        for at_ms, _, what, value in self.events():
            self.settle(at_ms - 1e-6)
            getattr(self, what)(at_ms, value)
        self.settle(1e12)
        return self.outcome

    def events(self) -> list[tuple[float, int, str, Any]]:
        """Everything in the order in which the station meets it; ties: frames first, as the desk reads them."""
        line = self.line
        found: list[tuple[float, int, str, Any]] = []
        arrived_ms, session, seq = 0.0, 0, 0
        restarts = sorted(line.camera_restarts)
        for exposure in sorted(line.exposures, key=lambda each: each.at_ms):
            while restarts and exposure.at_ms > restarts[0]:
                restarts.pop(0)
                session, seq = session + 1, 0
            seq += 1
            arrived_ms = max(arrived_ms, exposure.at_ms + exposure.transit_ms)  # one connection: in order
            if exposure.fate != "lost":
                found.append((self.held(arrived_ms), 0, "frame", (exposure, session, seq)))
        found += [(self.held(at_ms), 1, "announce", part) for at_ms, part in line.announcements]
        found += [(at_ms, 2, "restart", None) for at_ms in line.restarts]
        found += [(at_ms, 3, "step", step_ms) for at_ms, step_ms in line.clock_steps]
        return sorted(found, key=lambda each: each[:2])

    def held(self, at_ms: float) -> float:
        """While the inspector stands still nothing is read."""
        for from_ms, lasting_ms in self.line.stalls:
            if from_ms <= at_ms < from_ms + lasting_ms:
                return from_ms + lasting_ms
        return at_ms

    def frame(self, now_ms: float, found: tuple[Exposure, int, int]) -> None:
        exposure, session, seq = found
        now_ns = round(now_ms * MS)
        if self.session is not None and session != self.session:
            self.matcher.unsync("another camera session")
            self.seq = seq - 1
            self.device = self.make_device(self.settings) if self.make_device else None
        elif self.session is None:
            self.seq = seq - 1
        self.session = session
        exposed_ns = self.exposed_ns(exposure, now_ns)
        if seq > self.seq + 1:
            self.matcher.missed(now_ns if exposed_ns is None else exposed_ns, now_ns)
        self.seq = seq
        if exposure.fate == "broken":
            self.matcher.missed(now_ns, now_ns)
            return
        self.keys += 1
        self.pictures[self.keys] = exposure.part
        self.matcher.expose(self.keys, exposed_ns, now_ns)

    def exposed_ns(self, exposure: Exposure, now_ns: int) -> int | None:
        if exposure.fate in ("broken", "no_time"):
            return None
        stamp_ms = exposure.at_ms + sum(step for at_ms, step in self.line.camera_clock_steps if exposure.at_ms >= at_ms)
        if self.device is not None:
            stamp_us = round((1e9 + stamp_ms * (1 + self.ppm * 1e-6)) * 1000)
            mapped: int | None = self.device.map(stamp_us, now_ns)
            return mapped
        # The camera stamps with the wall clock as it was then; the station subtracts the age that it sees now.
        wall_then_ms = stamp_ms + sum(step for at_ms, step in self.line.clock_steps if exposure.at_ms >= at_ms)
        age_ms = now_ns / MS + self.wall_offset_ms - wall_then_ms
        return round(now_ns - age_ms * MS)

    def announce(self, now_ms: float, part: int) -> None:
        if part != NOBODY and part in self.recent:
            return  # the station refuses an id that was used a moment ago
        if part != NOBODY:
            self.recent = [*self.recent, part][-64:]
        self.keys += 1
        self.announced[self.keys] = part
        self.matcher.announce(self.keys, round(now_ms * MS))

    def restart(self, now_ms: float, _: Any) -> None:
        self.begin(now_ms)

    def step(self, now_ms: float, step_ms: float) -> None:
        self.wall_offset_ms += step_ms
        if abs(step_ms) > self.settings.tolerance_ms:
            self.matcher.unsync("the clock stepped")

    def settle(self, now_ms: float) -> None:
        for match in self.matcher.settle(round(now_ms * MS)):
            part = self.announced.get(match.part, NOBODY) if match.part is not None else NOBODY
            if match.part is not None:
                self.outcome.answers["part", match.part] += 1
            if match.exposure is not None:
                self.outcome.answers["exposure", match.exposure] += 1
            if match.reason is None:
                seen = self.pictures[match.exposure]
                self.outcome.bound.append((part, seen))
                if part == seen:
                    self.outcome.own.add(part)
                    self.outcome.of_part[part] = "own"
                continue
            if match.part is not None:
                self.outcome.parts[match.reason.name] += 1
                self.outcome.of_part.setdefault(part, match.reason.name)
            else:
                self.outcome.exposures[match.reason.name] += 1


def main() -> None:
    """Count wrong bindings by kind of fault and by mixture."""
    parts = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for title, clock, settings in (("shared clock", None, SETTINGS), ("device clock", DeviceClock, DEVICE_SETTINGS)):
        for name, faults, rate, apart in (
            ("no fault", (), 0.0, 0), ("one fault at a time", FAULTS, 0.12, 6), ("mixed faults", FAULTS, 0.12, 0),
        ):  # fmt: skip
            rng, total, bound, own, wrong = random.Random(7), 0, 0, 0, Counter[tuple[str, ...]]()
            reasons: Counter[str] = Counter()
            while total < parts:
                line = make_line(rng, 60, rate, faults, apart)
                outcome = play(line, settings=settings, make_device_clock=clock)
                total, bound, own = total + line.parts, bound + len(outcome.bound), own + len(outcome.own)
                reasons += outcome.parts
                assert set(outcome.answers.values()) <= {1}
                for part, _ in outcome.wrong:
                    wrong[tuple(line.faults.get(near, "-") for near in range(part - 3, part + 2))] += 1
            text = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            print(f"{title}, {name}: parts {total}, own verdict {own}, wrong {wrong.total()}; {text}")
            for near, count in wrong.most_common(8):
                print("    wrong", count, near)


if __name__ == "__main__":
    main()
