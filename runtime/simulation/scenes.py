"""How each reason is produced at a simulated station: a scene for each, played by ``runtime.simulation.player``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from asperity.runtime.engines.simulated import BROKEN_RECIPE, LOOK_DISTANCE_MM, LOOK_SHAPE_PX, TIMING_RECIPE
from asperity.runtime.reasons import Reason
from asperity.runtime.simulation.camera import SimulatedCamera, scene
from asperity.runtime.simulation.inspector_process import RECIPE
from asperity.runtime.simulation.line_faults import FAULTS
from asperity.runtime.simulation.simulated_line import SimulatedLine

NO_FRAME_MS = 50
SCENE_S = 30.0
"""Longest wait for what a scene is about."""
NO_TRIGGER_ID = 4_000_000_000
"""No trigger of this id is ever given."""


def _not_running(line: SimulatedLine) -> None:
    line.ask("stop")
    line.expose(announced=False)
    line.settle()
    line.run_again()


def _frozen_image(line: SimulatedLine) -> None:
    line.expose()
    line.expose(repeat=True)


def _duplicate_seq(line: SimulatedLine) -> None:
    line.expose()
    line.expose(seq=line.camera.seq)


def _seq_jump(line: SimulatedLine) -> None:
    line.expose()
    line.camera.skip(line.config.limits.seq_gap_max + 1)
    line.expose()
    line.expose()  # which confirms it


def _stale(line: SimulatedLine) -> None:
    age_us = (line.config.limits.max_age_ms + 60_000) * 1000
    line.expose(t_exposure_us=time.time_ns() // 1000 - age_us)


def _overload(line: SimulatedLine) -> None:
    line.expose(line.slow)
    for _ in range(line.config.limits.queue_length + 1):
        line.expose(paced=False)


def _lost(line: SimulatedLine) -> None:
    line.expose()
    line.camera.skip()
    line.owe_last()
    line.expose()


def _no_frame(line: SimulatedLine) -> None:
    if line.mode == "hard_wired":
        FAULTS["missed-exposure"].play(line)
        timeout_ms = line.wired.late_ms
    elif line.trigger is not None:
        timeout_ms, line.trigger = line.trigger.timeout_ms, None
    else:
        timeout_ms = NO_FRAME_MS
        line.give_trigger(timeout_ms)
    _await(line, Reason.NO_FRAME, timeout_ms)


def _unannounced(line: SimulatedLine) -> None:
    if line.mode == "hard_wired":
        FAULTS["unannounced-exposure"].play(line)
    else:
        line.expose(announced=False)


def _camera_conflict(line: SimulatedLine) -> None:
    line.expose()
    line.settle()
    frames = line.config.sockets.frames
    with closing(SimulatedCamera(line.camera.camera, frames, station="", results_endpoint="", key=line.key)) as other:
        other.expose()
        _await(line, Reason.CAMERA_CONFLICT, 0)
    ends_s = time.monotonic() + SCENE_S
    while time.monotonic() < ends_s and not line.ended:
        state = line.client.request("get_state").state
        if state is not None and Reason.CAMERA_CONFLICT.name not in state.alarms:
            return
        line.listen(20)


def _await(line: SimulatedLine, reason: Reason, after_ms: int) -> None:
    """Until a result of this reason came that nothing was owed for; bounded."""
    ends_s = time.monotonic() + SCENE_S + after_ms / 1000
    while not line.seen[reason] and time.monotonic() < ends_s and not line.ended:
        line.listen(20)


def _restarted(line: SimulatedLine) -> None:
    line.expose(line.slow)
    line.await_in_work(1)
    line.inspector.kill()
    line.start_again()


def _shutdown(line: SimulatedLine) -> None:
    line.expose(line.slow)
    line.expose(paced=False)
    line.await_in_work(2)
    line.ask("shutdown", station="")
    line.inspector.wait(line.config.timing.shutdown_ms / 1000 + SCENE_S)
    line.start_again()


def _aborted(line: SimulatedLine) -> None:
    line.expose(line.slow)
    line.await_in_work(1)
    line.ask("abort")
    line.run_again()


def _timing_only(line: SimulatedLine) -> None:
    before = line.client.request("get_state").state
    take_recipe(line, TIMING_RECIPE)
    line.expose()
    line.settle()
    take_recipe(line, before.recipe if before is not None else RECIPE)


def take_recipe(line: SimulatedLine, name: str) -> str:
    """Change the active recipe; bounded. Returns the change's status, empty where it is not known."""
    number = line.ask("prepare_recipe", recipe=name).recipe_change
    ends_s = time.monotonic() + SCENE_S + line.config.timing.recipe_ms / 1000
    while number is not None and time.monotonic() < ends_s and not line.ended:
        line.listen(20)
        change = line.client.state.recipe_change if line.client.state is not None else None
        if change is not None and change.number == number and change.status != "under_way":
            return change.status
    return ""


def _recipe_fails(line: SimulatedLine) -> bool:
    failed = take_recipe(line, BROKEN_RECIPE) == "failed"
    line.expose()
    return failed


def _another_camera(line: SimulatedLine) -> None:
    line.expose(announced=False, camera="another-camera", camera_session=str(uuid.uuid4()), seq=1)


def _another_size(line: SimulatedLine) -> None:
    rows, columns = LOOK_SHAPE_PX
    # Another picture each time: a repeated one would be FROZEN_IMAGE when the word is tried again.
    rgb = np.random.default_rng().integers(0, 256, (rows - 1, columns, 3), np.uint8)
    line.expose("look", rgb=rgb, xyz=scene()[1:])


def _say(line: SimulatedLine, word: str, **changes: Any) -> None:
    line.expose(word, **changes)


SCENES: dict[Reason, Callable[[SimulatedLine], None]] = {
    Reason.NOT_JUDGED: lambda line: _say(line, "huge"),
    Reason.GOOD: lambda line: _say(line, "ok"),
    Reason.SCORE_ABOVE_THRESHOLD: lambda line: _say(line, "ng"),
    Reason.SHAPE_OUT_OF_RANGE: lambda line: _say(line, "shape"),
    Reason.REFUSED_MESSAGE: lambda line: _say(line, "ok", cut_bytes=1),
    Reason.REFUSED_DATA: _another_size,
    Reason.REFUSED_UNIT: lambda line: _say(line, "unit", unit=None, xyz=scene(10_000.0, part=False)),
    Reason.TOO_FEW_POINTS: lambda line: _say(line, "look", xyz=scene(part=False)),
    Reason.WRONG_CAMERA: _another_camera,
    Reason.WRONG_RECIPE: lambda line: _say(line, "ok", recipe="another-recipe"),
    Reason.CAMERA_MOVED: lambda line: _say(line, "look", xyz=scene(LOOK_DISTANCE_MM + 20.0)),
    Reason.FROZEN_IMAGE: _frozen_image,
    Reason.DUPLICATE_SEQ: _duplicate_seq,
    Reason.SEQ_JUMP: _seq_jump,
    Reason.TRIGGER_EXPIRED: lambda line: _say(line, "ok", trigger_id=NO_TRIGGER_ID),
    Reason.UNANNOUNCED: _unannounced,
    Reason.AMBIGUOUS: FAULTS["bounced-sensor"].play,
    Reason.UNSYNCED: FAULTS["restarted-camera"].play,
    Reason.CAMERA_CONFLICT: _camera_conflict,
    Reason.STALE: _stale,
    Reason.OVERLOAD: _overload,
    Reason.DEADLINE: lambda line: _say(line, f"ok={line.config.limits.deadline_ms + 200}"),
    Reason.LOST: _lost,
    Reason.NO_FRAME: _no_frame,
    Reason.NOT_RUNNING: _not_running,
    Reason.ENGINE: lambda line: _say(line, "raise"),
    Reason.RESTARTED: _restarted,
    Reason.SHUTDOWN: _shutdown,
    Reason.ABORTED: _aborted,
    Reason.TIMING_ONLY: _timing_only,
}
"""One for each reason; a test holds that none is left out."""
OF_PARTS = frozenset({Reason.VIEW_MISSING, Reason.VIEW_CONFLICT})
"""Reasons of parts with several views (``runtime.simulation.simulated_parts``), which no single station gives."""

LINE_SCENES: dict[str, Callable[[SimulatedLine], bool]] = {"recipe-fails": _recipe_fails}
"""One for each word of the line; false: it did not come about."""
