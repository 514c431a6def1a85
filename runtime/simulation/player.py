"""Words played against a real station with the simulated engine: every reason code on demand, as it really arises.

A word is one of the simulated engine (``ok ng shape ... WORD=MS``), one of LINE_WORDS, for what concerns no single
part, or the name of a reason. A reason is produced as on a real line: LOST by leaving out a ``seq``,
RESTARTED by kill -9 and a new start, CAMERA_MOVED by points that preprocessing itself finds moved. No result is made
up. NOT_JUDGED is never a result's reason: it stands in the 64-byte record of a score that no f32 can hold.
"""

from __future__ import annotations

from collections.abc import Callable

from asperity.runtime.engines.simulated import check_word
from asperity.runtime.errors import UsageError
from asperity.runtime.reasons import Reason
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.simulation.line_faults import FAULTS
from asperity.runtime.simulation.scenes import LINE_SCENES, OF_PARTS, SCENES
from asperity.runtime.simulation.simulated_line import SimulatedLine
from asperity.runtime.simulation.wiring import wired
from asperity.runtime.wire import Trigger

ATTEMPTS = 3
"""A computer under load may answer a frame before it could be overtaken, aborted or killed: then once more."""
ALL = "all"
LINE_WORDS = {
    "recipe-fails": "a recipe change fails, then a good part: recipe_change is failed, the previous recipe stays "
    "active",
}
"""Word -> what happens at the line; ``runtime.simulation.scenes`` plays it."""


def words_of(script: str) -> list[str]:
    """The words of a script; ``all`` stands for every reason. Raises UsageError or ConfigError on an unknown one."""
    words: list[str] = []
    for word in script.split():
        if word == ALL:
            words += [reason.name for reason in Reason if reason not in OF_PARTS]
        elif word in {reason.name for reason in OF_PARTS}:
            raise UsageError(f"{word} is a reason of parts with views: --views plays words, which bring it about")
        elif word in Reason.__members__ or word in FAULTS or word in LINE_WORDS:
            words.append(word)
        elif word.isupper():
            raise UsageError(f"{word} is not a reason; use one of: {', '.join(Reason.__members__)}")
        else:
            check_word(word)
            words.append(word)
    if not words:
        raise UsageError("the script is empty; give words, for example: ok ok ng LOST")
    return words


class Simulation(SimulatedLine):
    """A simulated station that plays words."""

    def play(self, word: str, trigger: Trigger | None = None) -> list[str]:
        """Play one word; returns the names of the reasons that were seen meanwhile.

        ``trigger`` is answered by the word's first frame. A reason is waited for; a word of the engine is not, so
        that a stream of them keeps its rate.
        """
        self.summary.words += 1
        self.trigger = trigger
        if word in LINE_WORDS:
            self._serve(self._own)
            self.settle()
            if not LINE_SCENES[word](self) and not self.ended:
                self.summary.missed[word] += 1
            return []
        if word in FAULTS:
            reason, scene = FAULTS[word].reason, FAULTS[word].play
        elif word in Reason.__members__:
            reason, scene = Reason[word], SCENES[Reason[word]]
        else:
            self._serve(self._own)
            self.expose(word)
            return []
        free_run = self._own.station.triggers == "free_run"
        needs_triggers = free_run and reason in (Reason.NO_FRAME, Reason.UNANNOUNCED)
        needs_wire = word in FAULTS or reason in (Reason.AMBIGUOUS, Reason.UNSYNCED)
        self._serve(wired(self._own) if needs_wire or needs_triggers else self._own)
        return self._bring_about(word, reason, scene)

    def _serve(self, config: StationConfig) -> None:
        """Have a station with these triggers, restarted for it; one whose own are hard-wired keeps them."""
        if config.station.triggers == self.mode or self._own.station.triggers == "hard_wired":
            return
        self.settle()
        self.config, self.mode, self.wired = config, config.station.triggers, config.hard_wired
        self.trigger = None
        self.inspector.end()
        self.start_again()

    def _bring_about(self, word: str, reason: Reason, scene: Callable[[Simulation], None]) -> list[str]:
        answers = self.trigger is not None
        for _ in range(ATTEMPTS):
            self.settle()
            self.rest()
            self.seen.clear()
            scene(self)
            self.settle()
            if self.seen[reason] or answers or self.ended:
                break
        if not self.seen[reason]:
            self.summary.missed[word] += 1
        return [each.name for each in self.seen]
