"""The bench: the thread that owns the engine. Frames in from the inbox, outcomes out to the desk, one at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from runtime.clock import Now, look
from runtime.errors import AsperityError
from runtime.inbox import Inbox
from runtime.pipeline import Job, Outcome, Recipe, inspect


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The recipe is in force from here on; ``before`` is whoever it replaced, to be closed."""

    recipe: Recipe | None
    before: Recipe | None


@dataclass(frozen=True, slots=True)
class Tested:
    """The self-test ended; ``error`` is empty when it passed."""

    error: str


Report = Outcome | TakenOver | Tested


class Bench:
    """Scores what the desk admits. ``beat`` is advanced by this thread alone, at stage ends and idle ticks."""

    def __init__(
        self,
        inbox: Inbox[Job],
        idle_tick_s: float,
        make_bell: Callable[[], Callable[[], None]],
        clock: Callable[[], Now] = look,
    ) -> None:
        """``make_bell`` is called on the bench's thread and returns what wakes the desk."""
        self.beat = 0
        self.stage = "idle"
        """Where the bench is, for the log when it is stuck."""
        self._inbox = inbox
        self._idle_tick_s = idle_tick_s
        self._make_bell = make_bell
        self._clock = clock
        self._reports: deque[Report] = deque()
        self._recipe: Recipe | None = None
        self._digest: int | None = None
        self._ending = False
        # A daemon, so that an engine that never comes back cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="bench", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def reports(self) -> list[Report]:
        """What has come of frames and errands since the last call. For the desk."""
        return [self._reports.popleft() for _ in range(len(self._reports))]

    def take_over(self, recipe: Recipe | None) -> None:
        """Judge by ``recipe`` (None: by none) all frames that come after those that wait now."""
        self._inbox.put_errand(lambda: self._take_over(recipe))

    def self_test(self) -> None:
        """Score the golden frames of the recipe in force; without a recipe only show that the bench is alive."""
        self._inbox.put_errand(self._self_test)

    def stop(self, timeout_s: float) -> bool:
        """End after the frame in work; True if that was within ``timeout_s``."""
        self._inbox.put_errand(self._end)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def serve(self, timeout_s: float) -> bool:
        """See to the next frame or errand; False when none came within ``timeout_s``. For the bench's thread."""
        job, errand = self._inbox.take(timeout_s)
        self._progress("idle")
        if errand is not None:
            errand()
        elif job is not None:
            outcome, self._digest = inspect(job, self._recipe, self._digest, self._progress, self._clock)
            self._reports.append(outcome)
        else:
            return False
        self._progress("idle")
        return True

    def _run(self) -> None:
        ring = self._make_bell()
        while not self._ending:
            if self.serve(self._idle_tick_s):
                ring()

    def _progress(self, stage: str) -> None:
        self.stage = stage
        self.beat += 1

    def _take_over(self, recipe: Recipe | None) -> None:
        before, self._recipe = self._recipe, recipe
        self._digest = None
        self._reports.append(TakenOver(recipe, before))

    def _self_test(self) -> None:
        error = ""
        try:
            if self._recipe is not None:
                self._recipe.prove(self._progress)
        except AsperityError as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001 - an engine that cannot be tested is an engine that must not judge
            error = f"{type(problem).__name__}: {problem}"
        self._reports.append(Tested(error))

    def _end(self) -> None:
        self._ending = True
