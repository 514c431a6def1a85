"""Words played against a real station with the simulated engine: every reason code, on demand, by its own road.

A word is one of the simulated engine (``ok ng shape ... WORD=MS``) or the name of a reason. The latter is brought about
as it comes about on a line: LOST by leaving out a ``seq``, RESTARTED by kill -9 and a new start, CAMERA_MOVED by points
that preprocessing itself finds moved. No result is made up. NOT_JUDGED is no result's reason: it stands in the 64-byte
record of a score that no f32 can hold.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from runtime.cameras.simulated import Exposed, SimulatedCamera, scene
from runtime.client import Station
from runtime.config import StationConfig
from runtime.engines.simulated import LOOK_DISTANCE_MM, LOOK_SHAPE_PX, TIMING_RECIPE, check_word
from runtime.errors import StationError, UsageError
from runtime.ordering import Gap
from runtime.reasons import Reason
from runtime.simulated_station import RECIPE, StationProcess
from runtime.wire import Trigger

SETTLE_S = 30.0
"""Longest wait for results that are due, beyond the deadline."""
NO_FRAME_MS = 50
ATTEMPTS = 3
"""A computer under load may answer a frame before it could be overtaken, aborted or killed: then once more."""
SLOW_MS = 400
OWN_TRIGGER_IDS = 4_000_000_000
"""Triggers that the simulation gives itself are numbered from here on, out of a PLC's way."""
F32_MAX = 3.4e38
ALL = "all"


@dataclass(slots=True)
class Summary:
    """What became of a run."""

    exposures: int = 0
    results: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    words: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    """Names of reasons that were asked for and did not come."""
    gaps: int = 0
    unanswered: int = 0
    restarts: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Results a second."""
        return self.results / self.seconds if self.seconds > 0 else 0.0

    def add(self, other: Summary) -> None:
        """What came of another station meanwhile."""
        self.exposures += other.exposures
        self.results += other.results
        self.by_reason += other.by_reason
        self.words += other.words
        self.missed += other.missed
        self.gaps += other.gaps
        self.unanswered += other.unanswered
        self.restarts += other.restarts


def words_of(script: str) -> list[str]:
    """The words of a script; ``all`` stands for every reason. Raises UsageError or ConfigError on an unknown one."""
    words: list[str] = []
    for word in script.split():
        if word == ALL:
            words += [reason.name for reason in Reason]
        elif word in Reason.__members__:
            words.append(word)
        elif word.isupper():
            raise UsageError(f"{word} is no reason; there are: {', '.join(Reason.__members__)}")
        else:
            check_word(word)
            words.append(word)
    if not words:
        raise UsageError("the script is empty; give words such as: ok ok ng LOST")
    return words


class Simulation:
    """Camera, client and inspector of one simulated station. Everything belongs to one thread."""

    def __init__(
        self,
        config: StationConfig,
        inspector: StationProcess,
        camera: SimulatedCamera,
        client: Station,
        rate_hz: float,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.summary = Summary()
        self._config = config
        self._inspector = inspector
        self.camera = camera
        self._client = client
        self._period_s = 1.0 / rate_hz
        self._ending = ending
        self._owed: Counter[Exposed] = Counter()
        self._seen: Counter[Reason] = Counter()  # since the present word began
        self._window = config.limits.queue_length
        self._due_s = 0.0
        self._trigger: Trigger | None = None
        self._own_triggers = 0
        # Long enough to be found at work, short enough for the deadline.
        self._slow = f"ok={min(SLOW_MS, config.limits.deadline_ms * 6 // 10)}"

    @property
    def ended(self) -> bool:
        """Told to end."""
        return self._ending()

    def play(self, word: str, trigger: Trigger | None = None) -> list[str]:
        """Play one word; returns the names of the reasons that were seen meanwhile.

        ``trigger`` is answered by the word's first frame. A reason is waited for; a word of the engine is not, so
        that a stream of them keeps its rate.
        """
        self.summary.words += 1
        self._trigger = trigger
        if word not in Reason.__members__:
            self._expose(word)
            return []
        for _ in range(ATTEMPTS):
            self.settle()
            self._seen.clear()
            self.SCENES[Reason[word]](self)
            self.settle()
            if self._seen[Reason[word]] or trigger is not None or self.ended:
                break
        if not self._seen[Reason[word]]:
            self.summary.missed[word] += 1
        return [reason.name for reason in self._seen]

    def settle(self) -> None:
        """Wait until every exposure has its result, bounded; those without one are counted as unanswered."""
        ends_s = time.monotonic() + SETTLE_S + self._config.limits.deadline_ms / 1000
        while self._owed and time.monotonic() < ends_s:
            self.listen(5)
        self.summary.unanswered += sum(self._owed.values())
        self._owed.clear()

    def listen(self, timeout_ms: int) -> None:
        """Take in what the station says. Raises StationError when the inspector has ended by itself."""
        for item in self._client.poll(timeout_ms):
            if isinstance(item, Gap):
                self.summary.gaps += 1
                continue
            self.summary.results += 1
            self.summary.by_reason[item.reason.name] += 1
            self._seen[item.reason] += 1
            if item.score is not None and abs(item.score) > F32_MAX:
                self._seen[Reason.NOT_JUDGED] += 1  # so says the record, which holds an f32
            exposed = Exposed(item.camera_session, item.seq)
            if self._owed[exposed] <= 1:
                del self._owed[exposed]
            else:
                self._owed[exposed] -= 1
        self._inspector.check()

    # ------------------------------------------------------------------ exposures

    def _expose(self, word: str = "ok", *, paced: bool = True, **changes: Any) -> Exposed:
        if paced:
            self._pace()
        if self._trigger is not None:
            changes = {"trigger_id": self._trigger.trigger_id, "part_id": self._trigger.part_id} | changes
            self._trigger = None
        exposed = self.camera.expose(word, **changes)
        self._owed[exposed] += 1
        self.summary.exposures += 1
        return exposed

    def _pace(self) -> None:
        """Wait for the next exposure's time, and for room: more than fit the station's queue are never under way."""
        ends_s = time.monotonic() + SETTLE_S + self._config.limits.deadline_ms / 1000
        while (left_s := self._due_s - time.monotonic()) > 0 and not self._ending():
            if left_s > 0.001:
                self.listen(min(50, int(left_s * 1000)))
            else:
                time.sleep(left_s)
        self.listen(0)
        while self._owed.total() >= self._window and time.monotonic() < ends_s and not self._ending():
            self.listen(5)
        # What was late is not caught up in a burst.
        self._due_s = max(self._due_s + self._period_s, time.monotonic())

    def _await_in_work(self, frames: int) -> None:
        """Until the station has admitted ``frames`` and not answered them."""
        ends_s = time.monotonic() + self._config.limits.deadline_ms / 1000
        while time.monotonic() < ends_s:
            state = self._client.request("get_state").state
            if state is not None and state.in_flight >= frames:
                return
            self.listen(2)

    def _ask(self, op: str, **fields: Any) -> None:
        """Ask, and again where the last state heard was too old: a crowded machine does not always let us listen."""
        ends_s = time.monotonic() + SETTLE_S
        while self._client.request(op, **fields).code == "TOO_OLD" and time.monotonic() < ends_s:
            self.listen(20)

    def _run_again(self) -> None:
        """After ``stop`` or ``abort``."""
        self._ask("start")

    def _start_again(self) -> None:
        """A new inspector on the same journal, until it judges."""
        self._inspector.start()
        self.summary.restarts += 1
        self.await_running()

    def await_running(self) -> None:
        """Until the inspector started last is ready to judge (or, without autostart, ready to be started)."""
        before = self._client.state.session if self._client.state is not None else ""
        wanted = (8,) if self._config.station.autostart else (6, 7, 8)
        ends_s = time.monotonic() + SETTLE_S + self._config.timing.recipe_ms / 1000
        while not self._ending():
            self.listen(20)
            state = self._client.state
            if state is not None and state.session != before and state.state in wanted:
                return
            if time.monotonic() > ends_s:
                raise StationError("the simulated station did not become ready; see its log above")

    # ------------------------------------------------------------------ scenes: how a reason comes about

    def _not_running(self) -> None:
        self._ask("stop")
        self._expose()
        self.settle()
        self._run_again()

    def _frozen_image(self) -> None:
        self._expose()
        self._expose(repeat=True)

    def _duplicate_seq(self) -> None:
        self._expose()
        self._expose(seq=self.camera.seq)

    def _seq_jump(self) -> None:
        self._expose()
        self.camera.skip(self._config.limits.seq_gap_max + 1)
        self._expose()

    def _stale(self) -> None:
        age_us = (self._config.limits.max_age_ms + 60_000) * 1000
        self._expose(t_exposure_us=time.time_ns() // 1000 - age_us)

    def _overload(self) -> None:
        self._expose(self._slow)
        for _ in range(self._config.limits.queue_length + 1):
            self._expose(paced=False)

    def _lost(self) -> None:
        self._expose()
        self.camera.skip()
        self._owed[Exposed(self.camera.camera_session, self.camera.seq)] += 1
        self._expose()

    def _no_frame(self) -> None:
        if self._trigger is not None:
            timeout_ms = self._trigger.timeout_ms
            self._trigger = None
        else:
            self._own_triggers += 1
            timeout_ms = NO_FRAME_MS
            trigger_id = OWN_TRIGGER_IDS + self._own_triggers
            self._ask("trigger", trigger_id=trigger_id, timeout_ms=timeout_ms)
        ends_s = time.monotonic() + SETTLE_S + timeout_ms / 1000
        while not self._seen[Reason.NO_FRAME] and time.monotonic() < ends_s and not self._ending():
            self.listen(20)

    def _restarted(self) -> None:
        self._expose(self._slow)
        self._await_in_work(1)
        self._inspector.kill()
        self._start_again()

    def _shutdown(self) -> None:
        self._expose(self._slow)
        self._expose(paced=False)
        self._await_in_work(2)
        self._ask("shutdown", station="")
        self._inspector.wait(self._config.timing.shutdown_ms / 1000 + SETTLE_S)
        self._start_again()

    def _aborted(self) -> None:
        self._expose(self._slow)
        self._await_in_work(1)
        self._ask("abort")
        self._run_again()

    def _timing_only(self) -> None:
        before = self._client.request("get_state").state
        self._take_recipe(TIMING_RECIPE)
        self._expose()
        self.settle()
        self._take_recipe(before.recipe if before is not None else RECIPE)

    def _take_recipe(self, name: str) -> None:
        """Have another recipe in force; bounded."""
        self._ask("prepare_recipe", recipe=name)
        ends_s = time.monotonic() + SETTLE_S + self._config.timing.recipe_ms / 1000
        while time.monotonic() < ends_s and not self._ending():
            self.listen(20)
            if self._client.state is not None and self._client.state.recipe == name:
                return

    def _another_camera(self) -> None:
        self._expose(camera="another-camera", camera_session=str(uuid.uuid4()), seq=1)

    def _another_size(self) -> None:
        rows, columns = LOOK_SHAPE_PX
        self._expose("look", rgb=np.zeros((rows - 1, columns, 3), np.uint8), xyz=scene()[1:])

    SCENES: ClassVar[dict[Reason, Callable[[Simulation], None]]] = {
        Reason.NOT_JUDGED: lambda self: self._say("huge"),
        Reason.GOOD: lambda self: self._say("ok"),
        Reason.SCORE_ABOVE_THRESHOLD: lambda self: self._say("ng"),
        Reason.SHAPE_OUT_OF_RANGE: lambda self: self._say("shape"),
        Reason.REFUSED_MESSAGE: lambda self: self._say("ok", cut_bytes=1),
        Reason.REFUSED_DATA: _another_size,
        Reason.REFUSED_UNIT: lambda self: self._say("unit", unit=None, xyz=scene(10_000.0, part=False)),
        Reason.TOO_FEW_POINTS: lambda self: self._say("look", xyz=scene(part=False)),
        Reason.WRONG_CAMERA: _another_camera,
        Reason.WRONG_RECIPE: lambda self: self._say("ok", recipe="another-recipe"),
        Reason.CAMERA_MOVED: lambda self: self._say("look", xyz=scene(LOOK_DISTANCE_MM + 20.0)),
        Reason.FROZEN_IMAGE: _frozen_image,
        Reason.DUPLICATE_SEQ: _duplicate_seq,
        Reason.SEQ_JUMP: _seq_jump,
        Reason.TRIGGER_EXPIRED: lambda self: self._say("ok", trigger_id=OWN_TRIGGER_IDS),
        Reason.STALE: _stale,
        Reason.OVERLOAD: _overload,
        Reason.DEADLINE: lambda self: self._say(f"ok={self._config.limits.deadline_ms + 200}"),
        Reason.LOST: _lost,
        Reason.NO_FRAME: _no_frame,
        Reason.NOT_RUNNING: _not_running,
        Reason.ENGINE: lambda self: self._say("raise"),
        Reason.RESTARTED: _restarted,
        Reason.SHUTDOWN: _shutdown,
        Reason.ABORTED: _aborted,
        Reason.TIMING_ONLY: _timing_only,
    }
    """One for each reason; a test holds that none is left out."""

    def _say(self, word: str, **changes: Any) -> None:
        self._expose(word, **changes)
