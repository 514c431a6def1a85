"""The engine thread: the thread that owns the engines. Frames in from the inbox, outcomes out to the I/O thread.

Stations take turns (``judging.inbox``). An engine that takes several frames at once (``Engine.batch_max``) is given
those waiting at that moment, at most one of each station that shares it; no frame waits for a batch to fill.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asperity.runtime.clock import Now, look
from asperity.runtime.engines import Progress
from asperity.runtime.errors import AsperityError, EngineLostError
from asperity.runtime.judging.inbox import Inbox, Item
from asperity.runtime.judging.pipeline import Job, Outcome, Recipe, Turn, inspect_together


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The recipe is active from here on; ``before`` is the one it replaced, to be closed."""

    recipe: Recipe | None
    before: Recipe | None


@dataclass(frozen=True, slots=True)
class Tested:
    """The self-test ended; ``error`` is empty when it passed."""

    error: str
    lost: EngineLostError | None = None
    """The engine can score nothing more."""


@dataclass(frozen=True, slots=True)
class FoundLost:
    """The engine was found lost while no frame was there."""

    lost: EngineLostError


Report = Outcome | TakenOver | Tested | FoundLost


class EngineThread:
    """Scores what the I/O thread admits. ``beat`` is advanced by this thread only, at stage ends and idle ticks."""

    def __init__(
        self,
        stations: int,
        queue_length: int,
        idle_tick_s: float,
        make_bell: Callable[[], Callable[[], None]],
        clock: Callable[[], Now] = look,
    ) -> None:
        """``make_bell`` is called on the engine thread and returns what wakes the I/O thread."""
        self.beat = 0
        self.stage = "idle"
        """Where the engine thread is, for the log when it hangs."""
        self._inbox: Inbox[Job] = Inbox(stations, queue_length)
        self.slots = [StationSlot(self, self._inbox, number) for number in range(stations)]
        self._idle_tick_s = idle_tick_s
        self._make_bell = make_bell
        self._clock = clock
        self._ending = False
        # A daemon, so that an engine that never comes back cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="bench", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End after the frame in work; True if that was within ``timeout_s``."""
        self._ending = True
        self._inbox.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def serve(self, timeout_s: float) -> bool:
        """Handle the next frames or errand; False when none came within ``timeout_s``. For the engine thread."""
        item = self._inbox.take(timeout_s)
        self.progress("idle")
        if item is None:
            return self._idle()
        if item.errand is not None:
            item.errand()
        elif item.job is not None:
            self._inspect([item, *self._beside(item.station)])
        self.progress("idle")
        return True

    def progress(self, stage: str) -> None:
        """A stage has ended: a sign of life."""
        self.stage = stage
        self.beat += 1

    def _idle(self) -> bool:
        """Let the engines use the gap; True when one was found lost or failing, for the first time."""
        found = False
        for slot in self.slots:
            if slot.recipe is None or slot.idle_lost:
                continue
            try:
                slot.recipe.engine.idle()
            except EngineLostError as error:
                slot.idle_lost = found = True
                slot.tell(FoundLost(error))
            except AsperityError as error:  # as a failed self-test: Error until a reset, and the engine thread lives on
                slot.idle_lost = found = True
                slot.tell(Tested(str(error)))
        return found

    def _run(self) -> None:
        ring = self._make_bell()
        while not self._ending:
            if self.serve(self._idle_tick_s):
                ring()

    def _beside(self, station: int) -> list[Item[Job]]:
        """Frames of other stations that the same engine can score at the same time."""
        recipe = self.slots[station].recipe
        if recipe is None or recipe.engine.batch_max <= 1:
            return []
        sharing = {
            slot.number
            for slot in self.slots
            if slot.number != station and slot.recipe is not None and slot.recipe.engine is recipe.engine
        }
        return self._inbox.take_beside(sharing, recipe.engine.batch_max - 1)

    def _inspect(self, items: list[Item[Job]]) -> None:
        slots = [self.slots[item.station] for item in items]
        turns = [
            Turn(item.job, slot.recipe, slot.digest)
            for item, slot in zip(items, slots, strict=True)
            if item.job is not None
        ]
        for slot, (outcome, digest) in zip(slots, inspect_together(turns, self.progress, self._clock), strict=True):
            slot.digest = digest
            slot.tell(outcome)


class StationSlot:
    """A station's place at the engine thread: what it judges by, and what the I/O thread may ask of it.

    ``recipe``, ``digest`` and ``tell`` are the engine thread's, the rest is for the I/O thread.
    """

    def __init__(self, bench: EngineThread, inbox: Inbox[Job], number: int) -> None:
        self.number = number
        self.recipe: Recipe | None = None
        self.digest: int | None = None
        """Of the previous frame, by which a camera that repeats itself is found out."""
        self.idle_lost = False
        """The engine was found lost or failing in a gap and the I/O thread knows; another recipe may use another."""
        self._bench = bench
        self._inbox = inbox
        self._reports: deque[Report] = deque()
        self._test: Iterator[object] = iter(())
        self._test_waits = False
        self._next: deque[Recipe | None] = deque()
        """What the last ``take_over`` wants active, until exactly one of the two threads takes it out."""

    @property
    def beat(self) -> int:
        """The engine thread's: one for all stations, since a stuck engine holds up each of them."""
        return self._bench.beat

    @property
    def stage(self) -> str:
        """The stage that the engine thread is in."""
        return self._bench.stage

    @property
    def frame_p99_ms(self) -> float:
        """How long a frame ahead of ours may take: that of the engine thread's slowest recipe, as calibrated."""
        recipes = [slot.recipe for slot in self._bench.slots]
        return max((recipe.manifest.frame_p99_ms for recipe in recipes if recipe is not None), default=0.0)

    def reports(self) -> list[Report]:
        """Outcomes of frames and errands since the last call."""
        return [self._reports.popleft() for _ in range(len(self._reports))]

    def put(self, job: Job) -> Job | None:
        """Queue a frame; returns the one that it displaced."""
        return self._inbox.put(self.number, job)

    def discard(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Take back waiting frames."""
        return self._inbox.discard(self.number, unwanted)

    def take_over(self, recipe: Recipe | None) -> None:
        """Judge by ``recipe`` (None: by none) all frames of the station that come after those that wait now.

        What an earlier call wanted is active or was withdrawn.
        """
        wanted = self._next = deque([recipe])
        self._inbox.put_errand(self.number, lambda: self._take_over(wanted))

    def withdraw(self) -> bool:
        """Take the last ``take_over`` back; False: too late, the engine thread's report is there or imminent."""
        try:
            self._next.pop()
        except IndexError:
            return False
        return True

    def self_test(self) -> None:
        """Score the golden frames of the active recipe; without a recipe only show that the engine thread is alive.

        One golden frame at a turn, so that the other stations' frames have theirs. Asked for again it begins again, but
        waits in the inbox once: repeated resets while the engine is stuck fill no memory.
        """
        if not self._test_waits:
            self._test_waits = True
            self._inbox.put_errand(self.number, self._begin_test)

    def tell(self, report: Report) -> None:
        """Leave a report for the I/O thread."""
        self._reports.append(report)

    def _take_over(self, wanted: deque[Recipe | None]) -> None:
        try:
            recipe = wanted.popleft()
        except IndexError:  # withdrawn: the station has said that it failed, and so it must not come about
            return
        before, self.recipe = self.recipe, recipe
        self.digest = None
        self.idle_lost = False
        self.tell(TakenOver(recipe, before))

    def _begin_test(self) -> None:
        self._test_waits = False  # before anything else: what is asked for from here on is another test
        recipe = self.recipe
        self._test = _steps(recipe, self._bench.progress)
        self._test_on(self._test, recipe)

    def _test_on(self, test: Iterator[object], recipe: Recipe | None) -> None:
        """The next golden frame, unless another test has begun since; of another recipe it begins again."""
        if test is not self._test:
            return
        if recipe is not self.recipe:
            self._begin_test()
            return
        try:
            if next(test, _PASSED) is _PASSED:
                self.tell(Tested(""))
            else:
                self._inbox.put_errand(self.number, lambda: self._test_on(test, recipe))
        except EngineLostError as problem:
            self.tell(Tested(str(problem), problem))
        except AsperityError as problem:
            self.tell(Tested(str(problem)))
        except Exception as problem:  # noqa: BLE001 - an engine that cannot be tested is an engine that must not judge
            self.tell(Tested(f"{type(problem).__name__}: {problem}"))


_PASSED = object()


def _steps(recipe: Recipe | None, progress: Progress) -> Iterator[object]:
    if recipe is not None:
        yield from recipe.golden_steps(progress)
