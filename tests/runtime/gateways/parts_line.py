"""A line with software triggers and a camera that does not always answer as it should: for tests of part after part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from asperity.runtime.frame import Verdict
from asperity.runtime.simulation.camera import SimulatedCamera
from asperity.testing import CAMERA, PATIENCE_S, STATION, Line

RUNNING = 8
NO_FRAME_MS = 100
WORDS = ["ok"] * 5 + ["ng", "ng", "nan", "shape", "refuse", "lost", "stray", "stray ng", "old", "twice"]
"""What becomes of a part's exposure: the engine's word; or no exposure, another one instead of it or before it."""
GOOD_PART = len(WORDS)


@dataclass(slots=True)
class Truth:
    """What the camera did, by trigger."""

    exposed: dict[int, str] = field(default_factory=dict)
    strays: int = 0

    @property
    def good(self) -> set[int]:
        return {trigger_id for trigger_id, word in self.exposed.items() if word == "ok"}


class Answering:
    """A camera that answers triggers in a thread of its own, as the part's number says; not always as it should."""

    def __init__(self, line: Line) -> None:
        self.truth = Truth()
        self._camera = SimulatedCamera(
            CAMERA, line.ends["frames"], station=STATION, results_endpoint=line.ends["results"]
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        old: dict[str, Any] = {}
        while not self._ended.is_set():
            trigger = self._camera.wait_trigger(20)
            if trigger is None:
                continue
            word = WORDS[int(trigger.part_id) % len(WORDS)]
            ids = {"trigger_id": trigger.trigger_id, "promise": trigger.promise, "part_id": trigger.part_id}
            if word.startswith("stray"):
                self._camera.expose("ok")
                self.truth.strays += 1
            if word == "old" and old:
                self._camera.expose("ok", **old)
            if word == "twice":
                self.truth.exposed[trigger.trigger_id] = "ng"
                self._camera.expose("ng", **ids)
                self._camera.expose("ok", **ids)
            engine_word = word.removeprefix("stray ")
            if engine_word in ("ok", "ng", "nan", "shape", "refuse"):
                self.truth.exposed[trigger.trigger_id] = engine_word
                self._camera.expose(engine_word, **ids)
                old = ids

    def close(self) -> None:
        self._ended.set()
        self._thread.join(PATIENCE_S)
        self._camera.close()


@contextmanager
def answered_line(parts: int = 1) -> Iterator[tuple[Line, Answering]]:
    """It runs, for so many parts and more."""
    sections: dict[str, Any] = {
        "station": {"triggers": "software"},
        "limits": {"deadline_ms": 30_000, "max_age_ms": 30_000, "engine_faults_max": 1000},
        "triggers": {"pending_max": 64},
        "journal": {"slots": max(4096, 4 * parts)},  # every result is looked at in the end
    }
    with Line("ok", **sections) as line:
        line.start()
        line.await_state(RUNNING)
        camera = Answering(line)
        try:
            yield line, camera
        finally:
            camera.close()


def judged_ok(line: Line) -> set[int]:
    """Triggers of which the station's journal says so."""
    return {result.trigger_id for result in line.journal().values() if result.verdict is Verdict.OK}
