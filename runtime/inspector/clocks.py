"""The clocks of computer and camera: what is known of them, whether they may be compared, and the alarm CLOCK.

A camera claims that the computer shares its clock (``ptp``, ``realtime``). Nothing proves that; what contradicts it, or
leaves it open, is found here (docs/decisions/clocks.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from asperity.runtime.clock import MS, Now
from asperity.runtime.frame import Frame
from asperity.runtime.inspector.alarms import Alarms
from asperity.runtime.inspector.event_log import EventLog
from asperity.runtime.judging.pipeline import SHARED_CLOCKS, age_ns
from asperity.runtime.process import kernel_clock
from asperity.runtime.process.kernel_clock import KernelClock
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.reachability import is_loopback
from asperity.runtime.wire.clocks import CameraClock, Clocks, ComputerClock

FRAMES_MIN = 20
"""A window with fewer frames is compared with no other: the least of a few says little."""
STEP_MIN_NS = 1 * MS
"""A wall clock is slewed by less between two looks."""


class ClockWatch:
    """Asks the kernel now and then, on its own thread: the names of programs are files that a look reads."""

    def __init__(self, look_s: float, look: Callable[[], KernelClock] = kernel_clock.look) -> None:
        self._look_s, self._look = look_s, look
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock-watch", daemon=True)
        self.last = KernelClock(None, why="it was not looked at yet")

    def look(self) -> None:
        """Look now."""
        self.last = self._look()

    def start(self) -> None:
        """Look now, and then every ``look_s``."""
        self.look()
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ending.set()

    def _run(self) -> None:
        while not self._ending.wait(self._look_s):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - a look that fails leaves the clock unknown, and is repeated
                self.last = KernelClock(None, why=f"{type(error).__name__}: {error}")


class Least:
    """The least value of the present window and the one before."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._until_ns = 0
        self._before: int | None = None
        self._present: int | None = None
        self._counts = (0, 0)

    @property
    def value(self) -> int | None:
        """None: there is none."""
        return min((value for value in (self._before, self._present) if value is not None), default=None)

    def turn(self, now_ns: int) -> int:
        """The present window may have ended. By how much its least differs from that of the one before; 0: unknown."""
        if now_ns < self._until_ns:
            return 0
        enough = min(self._counts) >= FRAMES_MIN
        jump = self._present - self._before if enough and None not in (self._present, self._before) else 0  # type: ignore[operator]
        kept = now_ns < self._until_ns + self._window_ns
        self._before, self._present = (self._present if kept else None), None
        self._counts = (self._counts[1] if kept else 0, 0)
        self._until_ns = now_ns + self._window_ns
        return jump

    def add(self, value: int) -> None:
        """One more."""
        self._present = value if self._present is None else min(self._present, value)
        self._counts = (self._counts[0], self._counts[1] + 1)


class StationClocks:
    """Of one station. For the I/O thread."""

    def __init__(self, config: StationConfig, watch: ClockWatch, notice: EventLog, now: Now) -> None:
        self._settings = config.clocks
        self._watch = watch
        self._notice = notice
        self.tolerance_ns = config.hard_wired.tolerance_ms * MS
        """By how much the clocks of camera and computer may differ."""
        self._tolerance_us = self.tolerance_ns // 1000
        self._age_max_us = config.limits.max_age_ms * 1000
        self._from_elsewhere = not (config.sockets.frames.startswith("ipc://") or is_loopback(config.sockets.frames))
        self._offset_ns = now.wall_us * 1000 - now.ns
        self._clock = ""
        self._jumps = 0
        self._measure()

    def _measure(self) -> None:
        """From the beginning."""
        self._all, self._near = Least(self._settings.window_s * 1000 * MS), Least(self._settings.window_s * 1000 * MS)

    def on_frame(self, frame: Frame, now: Now) -> None:
        """A frame of the camera arrives."""
        self._look_for_step(now)
        if frame.clock != self._clock:
            self._clock = frame.clock
            self._measure()
        self._turn(now)
        if frame.clock not in SHARED_CLOCKS or frame.t_exposure_us == 0:
            return
        delay_us = now.wall_us - frame.t_exposure_us
        self._all.add(delay_us)
        if abs(delay_us) <= self._age_max_us:  # by any other one a single false time would make all frames stale
            self._near.add(delay_us)

    def age_ns(self, frame: Frame, wall_us: int) -> int:
        """How old an exposure is on arrival, at the least: a clock that was seen to run ahead makes it look newer."""
        age = age_ns(frame, wall_us)
        return age + 1000 * max(0, -(self._near.value or 0)) if frame.clock in SHARED_CLOCKS else age

    def comparable(self, clock: str) -> bool:
        """Camera and computer differ by ``tolerance_ms`` at most, as the kernel reports and no frame contradicts."""
        computer = self._watch.last
        if clock not in SHARED_CLOCKS or not computer.synchronised or self._ahead_us > self._tolerance_us:
            return False
        errors = (computer.offset_ms, computer.error_ms)
        return all(error is not None and abs(error) * 1000 <= self._tolerance_us for error in errors)

    def doubtful(self, clock: str) -> bool:
        """It may be another clock than the computer's: any that is not known to agree, but ``realtime`` from here."""
        own = clock == "realtime" and not self._from_elsewhere and self._ahead_us <= self._tolerance_us
        return not own and not self.comparable(clock)

    @property
    def _ahead_us(self) -> int:
        return -(self._all.value or 0)

    def watch(self, now: Now, alarms: Alarms) -> None:
        """Show the alarm CLOCK, or show it no more."""
        self._look_for_step(now)
        self._turn(now)
        alarms.hold("CLOCK", self.problem(), "warning", ("CLOCK_BACK", "the clocks are as they must be again"))

    def problem(self) -> str:
        """What the alarm CLOCK says; empty: nothing."""
        found, computer, settings = [], self._watch.last, self._settings
        claim = self._clock == "ptp" or (self._clock == "realtime" and self._from_elsewhere)
        said = f", and the camera's times rely on it ({self._clock})" if claim else ""
        if computer.synchronised is None and settings.require_synchronised:
            found.append(f"it is not known whether this computer's clock is synchronised: {computer.why}")
        elif computer.synchronised is False and (settings.require_synchronised or claim):
            found.append(f"this computer's clock is not synchronised{said}")
        elif (settings.require_synchronised or claim) and abs(computer.offset_ms or 0.0) > settings.offset_max_ms:
            found.append(f"this computer's clock is off by {computer.offset_ms:.3f} ms{said}")
        if self._ahead_us > self._tolerance_us:
            found.append(f"a frame arrived {self._ahead_us / 1000:.1f} ms before its exposure by the camera's clock")
        return "; ".join(found)

    def message(self) -> Clocks:
        """For the state."""
        computer, least_us = self._watch.last, self._all.value
        return Clocks(
            computer=ComputerClock(
                synchronised=computer.synchronised, source=computer.source[:64], offset_ms=computer.offset_ms,
                error_ms=computer.error_ms,
            ),
            camera=CameraClock(
                clock=self._clock, offset_ms=None if least_us is None else least_us / 1000, jumps=self._jumps
            ),
        )  # fmt: skip

    def _turn(self, now: Now) -> None:
        jump_us = self._all.turn(now.ns)
        self._near.turn(now.ns)
        if abs(jump_us) > self._tolerance_us:
            self._jumps += 1
            went = f"{abs(jump_us) / 1000:.1f} ms {'back' if jump_us > 0 else 'ahead'}"
            text = f"the camera's clock went {went}, or its frames take another time to arrive"
            self._notice("info", "CLOCK_JUMP", text)

    def _look_for_step(self, now: Now) -> None:
        """What was measured before the computer's clock was set does not hold any more."""
        offset_ns, before_ns = now.wall_us * 1000 - now.ns, self._offset_ns
        self._offset_ns = offset_ns
        if abs(offset_ns - before_ns) > max(self.tolerance_ns, STEP_MIN_NS):
            step_ms = (offset_ns - before_ns) / MS
            self._notice("info", "CLOCK_STEP", f"this computer's clock was set by {step_ms:.0f} ms")
            self._measure()
