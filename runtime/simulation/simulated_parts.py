"""Parts with several views at a simulated combined station: a word of the script for each exposure, in turn.

The cameras answer the triggers of the station, which the simulation itself asks for at a rate, or a PLC.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.engines.simulated import check_word
from asperity.runtime.errors import AsperityError, StationError, UsageError
from asperity.runtime.reasons import Reason
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.simulation.camera import SimulatedCamera
from asperity.runtime.simulation.inspector_process import StationProcess
from asperity.runtime.simulation.simulated_line import SETTLE_S, Summary
from asperity.runtime.wire import Trigger

NO_PICTURE = Reason.NO_FRAME.name
"""The word of an exposure that the camera does not make."""
TRIGGER_MS = 3000
"""Of the simulation's own triggers, or ``[triggers] timeout_max_ms`` where that is shorter."""


def check_words(words: Sequence[str]) -> None:
    """Raises UsageError where a word is not one of an exposure."""
    for word in words:
        try:
            if word != NO_PICTURE:
                check_word(word)
        except AsperityError as error:
            raise UsageError(
                f"{word} cannot be played at a part with views; give words of the engine (ok ng shape nan raise ...) "
                f"or {NO_PICTURE}, one for each exposure"
            ) from error


class SimulatedParts:
    """The cameras of all views, and a client of each combined station. Everything belongs to one thread."""

    def __init__(
        self,
        config: StationConfig,
        inspector: StationProcess,
        cameras: Mapping[str, SimulatedCamera],
        clients: Mapping[str, StationClient],
        ended: Callable[[], bool],
    ) -> None:
        """``cameras``: by the station of the view. ``clients``: by combined station."""
        self.summary = Summary()
        self._config = config
        self._rules = {each.name: each for each in config.combined}
        self._wired = {each.name for each in config.stations if each.triggers == "hard_wired"}
        self._inspector = inspector
        self._cameras = cameras
        self._clients = clients
        self._ended = ended
        self._ids = count(1)
        self._owed: set[tuple[str, int]] = set()
        self._to_give: deque[tuple[str, dict[str, Any]]] = deque()  # triggers that the simulation gives next

    def play(self, words: Sequence[str], rate_hz: float, most: int, once: bool, triggered: bool) -> None:
        """Play until ended, after ``most`` exposures, or all words ``once``. ``triggered``: on others' triggers."""
        self._await_running()
        if not triggered:
            for station, camera in self._cameras.items():
                if station not in self._wired:
                    camera.await_triggers(SETTLE_S)
        began_s = due_s = time.monotonic()
        at = 0
        while not self._ended() and not (most and self.summary.exposures >= most) and not (once and at >= len(words)):
            now_s = time.monotonic()
            if not triggered and now_s >= due_s and not self._owed and not self._to_give:
                due_s = max(due_s + 1 / rate_hz, now_s)
                for name in self._clients:
                    self._next_part(name)
            self._give()
            for station, camera in self._cameras.items():
                trigger = camera.wait_trigger(1)
                if trigger is not None:
                    self._answer(station, camera, trigger, words[at % len(words)])
                    at += 1
            self._listen(1)
        ends_s = time.monotonic() + SETTLE_S
        while self._owed and time.monotonic() < ends_s:
            self._listen(20)
        self.summary.unanswered, self.summary.seconds = len(self._owed), time.monotonic() - began_s

    def _next_part(self, name: str) -> None:
        rules, trigger_id = self._rules[name], next(self._ids)
        timeout_ms = min(TRIGGER_MS, self._config.triggers.timeout_max_ms)
        fields = {"trigger_id": trigger_id, "timeout_ms": timeout_ms, "part_id": str(trigger_id)}
        views = range(1, len(rules.views) + 1) if rules.triggered == "one_by_one" else ()
        self._to_give += [(name, {**fields, "view": view}) for view in views] or [(name, fields)]

    def _give(self) -> None:
        """The next trigger of the simulation; one that the station cannot take yet is given again."""
        if not self._to_give:
            return
        name, fields = self._to_give[0]
        op = "expect" if self._rules[name].views[0] in self._wired else "trigger"
        reply = self._clients[name].request(op, **fields)
        if reply.code in ("BUSY", "TOO_OLD"):
            self._listen(5)
            return
        self._to_give.popleft()
        if reply.ok:
            self._owed.add((name, fields["trigger_id"]))

    def _answer(self, station: str, camera: SimulatedCamera, trigger: Trigger, word: str) -> None:
        self.summary.exposures += 1
        self.summary.words += 1
        if word == NO_PICTURE:
            return
        copied = {"trigger_id": trigger.trigger_id, "promise": trigger.promise, "part_id": trigger.part_id}
        camera.expose(word, **({"part_id": ""} if station in self._wired else copied))

    def _listen(self, timeout_ms: int) -> None:
        for name, client in self._clients.items():
            for item in client.poll(timeout_ms):
                if isinstance(item, Gap):
                    self.summary.gaps += 1
                    continue
                self.summary.results += 1
                self.summary.by_reason[item.reason.name] += 1
                self._owed.discard((name, item.trigger_id))
        self._inspector.check()

    def _await_running(self) -> None:
        ends_s = time.monotonic() + SETTLE_S + self._config.timing.recipe_ms / 1000
        for client in self._clients.values():
            while (client.state is None or not client.state.can_judge) and not self._ended():
                self._listen(20)
                if time.monotonic() > ends_s:
                    raise StationError("the simulated combined station did not become ready; see its log above")
