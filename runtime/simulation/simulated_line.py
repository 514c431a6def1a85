"""The simulated line: exposures, announcements, results, the inspector's process."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import StationError
from asperity.runtime.reasons import Reason
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.simulation.camera import Exposed, SimulatedCamera
from asperity.runtime.simulation.inspector_process import StationProcess
from asperity.runtime.simulation.wiring import REST_SLACK_MS, wired
from asperity.runtime.wire import Reply, Trigger

SETTLE_S = 30.0
"""Longest wait for results that are due, beyond the deadline."""
TRIGGERS_MAX = 64
TRIGGER_MS = 10_000
"""A trigger that the simulation gives itself is answered within this time."""
PROBE_MS = 50
SLOW_MS = 400
OWN_TRIGGER_IDS = 4_000_000_000
"""Triggers that the simulation gives itself are numbered from here on, out of a PLC's way."""
F32_MAX = 3.4e38


@dataclass(slots=True)
class Summary:
    """Outcome of a run."""

    exposures: int = 0
    results: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    words: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    """Reasons and words of the line that were asked for and did not come about."""
    gaps: int = 0
    unanswered: int = 0
    restarts: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Results per second."""
        return self.results / self.seconds if self.seconds > 0 else 0.0

    def add(self, other: Summary) -> None:
        """Outcome at another station meanwhile."""
        self.exposures += other.exposures
        self.results += other.results
        self.by_reason += other.by_reason
        self.words += other.words
        self.missed += other.missed
        self.gaps += other.gaps
        self.unanswered += other.unanswered
        self.restarts += other.restarts


class SimulatedLine:
    """Camera, client and inspector of one simulated station. Everything belongs to one thread."""

    def __init__(
        self,
        config: StationConfig,
        inspector: StationProcess,
        camera: SimulatedCamera,
        client: StationClient,
        rate_hz: float,
        ending: Callable[[], bool] = lambda: False,
        process_config: StationConfig | None = None,
        key: Path | None = None,
    ) -> None:
        """``process_config``: what the inspector's process was started with, where it hosts several stations.

        ``key``: the camera's, with CURVE.
        """
        self.key = key
        self._process_config = process_config or config
        self.summary = Summary()
        self.config: StationConfig = config
        """Of the station as it runs now."""
        self._own = config
        self.inspector = inspector
        self.camera = camera
        self.client = client
        self.mode = config.station.triggers
        self.wired = config.hard_wired
        self._period_s = 1.0 / rate_hz
        self._ending = ending
        self._owed: Counter[Exposed] = Counter()
        self._owed_parts: set[int] = set()  # announced by the simulation
        self._rested = False
        self.seen: Counter[Reason] = Counter()
        """Since the present word began."""
        self._window = config.limits.queue_length
        self._due_s = 0.0
        self.trigger: Trigger | None = None
        """What the next exposure answers."""
        self._triggers: deque[Trigger] = deque(maxlen=TRIGGERS_MAX)  # heard while another was awaited
        self._own_triggers = 0
        self.slow = f"ok={min(SLOW_MS, config.limits.deadline_ms * 6 // 10)}"

    @property
    def ended(self) -> bool:
        """Asked to stop."""
        return self._ending()

    def settle(self) -> None:
        """Wait until every exposure has its result, bounded; those without one are counted as unanswered."""
        ends_s = time.monotonic() + SETTLE_S + self.config.limits.deadline_ms / 1000
        while (self._owed or self._owed_parts) and time.monotonic() < ends_s:
            self.listen(5)
        self.summary.unanswered += sum(self._owed.values()) + len(self._owed_parts)
        self._owed.clear()
        self._owed_parts.clear()

    def listen(self, timeout_ms: int) -> None:
        """Receive what the station publishes. Raises StationError when the inspector has ended by itself."""
        for item in self.client.poll(timeout_ms):
            if isinstance(item, Gap):
                self.summary.gaps += 1
                continue
            self.summary.results += 1
            self.summary.by_reason[item.reason.name] += 1
            self.seen[item.reason] += 1
            if item.score is not None and abs(item.score) > F32_MAX:
                self.seen[Reason.NOT_JUDGED] += 1  # so says the record, which holds an f32
            self._owed_parts.discard(item.trigger_id)
            exposed = Exposed(item.camera_session, item.seq)
            if self._owed[exposed] <= 1:
                del self._owed[exposed]
            else:
                self._owed[exposed] -= 1
        self.inspector.check()

    # ------------------------------------------------------------------ exposures

    def expose(self, word: str = "ok", *, paced: bool = True, announced: bool = True, **changes: Any) -> Exposed:
        """Expose a part, of which the engine will say ``word``; announced as the station's triggers ask for."""
        if paced:
            self.pace()
        trigger, self.trigger = self.trigger, None
        if announced and self.mode == "software" and trigger is None and "trigger_id" not in changes:
            trigger = self._own_trigger()
        if trigger is not None and self.mode == "software":
            same = {"trigger_id": trigger.trigger_id, "promise": trigger.promise, "part_id": trigger.part_id}
            changes = same | changes
        elif self.mode == "hard_wired":
            changes = {"part_id": ""} | changes
        self._rested = False
        exposed = self.camera.expose(word, **changes)
        self._owed[exposed] += 1
        self.summary.exposures += 1
        if announced and self.mode == "hard_wired" and trigger is None:
            self.announce()
        return exposed

    def announce(self) -> None:
        """Announce a part, as a PLC whose trigger is hard-wired."""
        self._own_triggers += 1
        trigger_id = OWN_TRIGGER_IDS + self._own_triggers
        self._rested = False
        if self.ask("expect", trigger_id=trigger_id).ok:
            self._owed_parts.add(trigger_id)

    def owe_last(self) -> None:
        """The exposure that the camera counted last needs a result, though nothing was sent."""
        self._owed[Exposed(self.camera.camera_session, self.camera.seq)] += 1

    def give_trigger(self, timeout_ms: int) -> int:
        """Give a trigger of the simulation's own; returns its id, 0 where it was refused."""
        self._own_triggers += 1
        trigger_id = OWN_TRIGGER_IDS + self._own_triggers
        reply = self.ask("trigger", trigger_id=trigger_id, timeout_ms=timeout_ms)
        return trigger_id if reply.ok else 0

    def next_trigger(self, timeout_ms: int) -> Trigger | None:
        """The next trigger from another client, within this time."""
        if self._triggers:
            return self._triggers.popleft()
        trigger = self.camera.wait_trigger(timeout_ms)
        return trigger if trigger is not None and trigger.trigger_id <= OWN_TRIGGER_IDS else None

    def _own_trigger(self) -> Trigger | None:
        trigger_id = self.give_trigger(TRIGGER_MS)
        ends_s = time.monotonic() + TRIGGER_MS / 1000
        while trigger_id and time.monotonic() < ends_s and not self.ended:
            trigger = self.camera.wait_trigger(20)
            if trigger is not None and trigger.trigger_id == trigger_id:
                return trigger
            if trigger is not None:
                self._triggers.append(trigger)
        return None

    def wait_ms(self, ms: float) -> None:
        """Let time pass."""
        ends_s = time.monotonic() + ms / 1000
        while (left_s := ends_s - time.monotonic()) > 0 and not self.ended:
            self.listen(max(1, min(50, round(left_s * 1000))))

    def rest(self) -> None:
        """With hard-wired triggers: a pause after which the first part is matched again."""
        if self.mode == "hard_wired" and not self._rested:
            self.wait_ms(max(self.wired.quiet_ms, 3 * self.wired.pitch_min_ms) + REST_SLACK_MS)
            self._rested = True

    def pace(self) -> None:
        """Wait for the next exposure's time, and for room: more than fit the station's queue are never in flight."""
        ends_s = time.monotonic() + SETTLE_S + self.config.limits.deadline_ms / 1000
        while (left_s := self._due_s - time.monotonic()) > 0 and not self._ending():
            if left_s > 0.001:
                self.listen(min(50, int(left_s * 1000)))
            else:
                time.sleep(left_s)
        self.listen(0)
        while self._owed.total() >= self._window and time.monotonic() < ends_s and not self._ending():
            self.listen(5)
        # What was late is not caught up in a burst.
        pitch_s = self.wired.pitch_min_ms / 1000 if self.mode == "hard_wired" else 0.0
        self._due_s = max(self._due_s + max(self._period_s, pitch_s), time.monotonic() + pitch_s)

    def await_in_work(self, frames: int) -> None:
        """Wait until the station has admitted ``frames`` and not answered them."""
        ends_s = time.monotonic() + self.config.limits.deadline_ms / 1000
        while time.monotonic() < ends_s:
            state = self.client.request("get_state").state
            if state is not None and state.in_flight >= frames:
                return
            self.listen(2)

    def ask(self, op: str, **fields: Any) -> Reply:
        """Ask, and again where the last state received was too old: a crowded machine does not always let us listen."""
        ends_s = time.monotonic() + SETTLE_S
        while (reply := self.client.request(op, **fields)).code == "TOO_OLD" and time.monotonic() < ends_s:
            self.listen(20)
        return reply

    def run_again(self) -> None:
        """After ``stop`` or ``abort``."""
        self.ask("start")

    def start_again(self) -> None:
        """A new inspector on the same journal, until it judges."""
        own = self.mode == self._own.station.triggers
        self.inspector.start(None if own else wired(self._process_config))
        self.summary.restarts += 1
        self.await_running()
        self.await_triggers()

    def await_triggers(self) -> None:
        """Wait until the camera hears triggers: its subscription reaches a new inspector later than the client's."""
        ends_s = time.monotonic() + SETTLE_S
        while self.mode == "software" and time.monotonic() < ends_s and not self.ended:
            trigger_id = self.give_trigger(PROBE_MS)
            self.listen(0)
            trigger = self.camera.wait_trigger(2 * PROBE_MS)
            if trigger is not None and trigger.trigger_id == trigger_id:
                return
            if trigger is not None and trigger.trigger_id <= OWN_TRIGGER_IDS:
                self._triggers.append(trigger)

    def await_running(self) -> None:
        """Wait until the last started inspector is ready to judge (or, without autostart, ready to be started)."""
        before = self.client.state.session if self.client.state is not None else ""
        wanted = (8,) if self.config.station.autostart else (6, 7, 8)
        ends_s = time.monotonic() + SETTLE_S + self.config.timing.recipe_ms / 1000
        while not self._ending():
            self.listen(20)
            state = self.client.state
            if state is not None and state.session != before and state.state in wanted:
                return
            if time.monotonic() > ends_s:
                raise StationError("the simulated station did not become ready; see its log above")
