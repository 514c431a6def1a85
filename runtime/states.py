"""The station's states (OPC 40100-1, OPC UA for Machine Vision) as one table: code, document and test data.

A *request* comes from outside and is refused with a StateError where the table has no row for it. An *event* comes from
inside and has a row for every state, since it can happen at any time. 4, Operational, is the parent of 5 to 8
and never on the wire; 0 means that there is no station.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple

from asperity.runtime.errors import StateError


class State(IntEnum):
    """State of a station, as numbered on the wire."""

    PREOPERATIONAL = 1
    HALTED = 2
    ERROR = 3
    INITIALIZED = 5
    READY = 6
    SINGLE_EXECUTION = 7
    CONTINUOUS_EXECUTION = 8


class Cause(Enum):
    """What may move a station from one state to another."""

    PREPARE_RECIPE = "prepare_recipe"
    UNPREPARE_RECIPE = "unprepare_recipe"
    START_CONTINUOUS = "start continuous"
    START_SINGLE = "start single"
    TRIGGER = "trigger"
    STOP = "stop"
    ABORT = "abort"
    HALT = "halt"
    RESET = "reset"
    SELF_TEST = "self_test"

    CHECKED = "(self-test passed)"
    RECIPE_TAKEN = "(recipe taken over)"
    ANSWERED = "(trigger answered)"
    FAULT = "(fault)"


EVENTS = frozenset({Cause.CHECKED, Cause.RECIPE_TAKEN, Cause.ANSWERED, Cause.FAULT})
REQUESTS = frozenset(Cause) - EVENTS


class Transition(NamedTuple):
    """One row of the table."""

    source: State
    cause: Cause
    target: State
    meaning: str


_PRE, _HALTED, _ERROR = State.PREOPERATIONAL, State.HALTED, State.ERROR
_INIT, _READY, _SINGLE, _CONT = State.INITIALIZED, State.READY, State.SINGLE_EXECUTION, State.CONTINUOUS_EXECUTION

TABLE: tuple[Transition, ...] = (
    Transition(_PRE, Cause.CHECKED, _INIT, "the self-test passed"),
    Transition(_PRE, Cause.RECIPE_TAKEN, _PRE, "noted; changes to Ready once the self-test has passed"),
    Transition(_PRE, Cause.ANSWERED, _PRE, "nothing to do"),
    Transition(_PRE, Cause.FAULT, _ERROR, "the self-test failed or the engine is not responding"),
    Transition(_PRE, Cause.HALT, _HALTED, "out of service"),
    Transition(_PRE, Cause.RESET, _PRE, "the self-test starts again"),
    Transition(_INIT, Cause.PREPARE_RECIPE, _INIT, "the bundle is verified, opened and warmed up"),
    Transition(_INIT, Cause.RECIPE_TAKEN, _READY, "a recipe is active"),
    Transition(_INIT, Cause.SELF_TEST, _PRE, "the self-test starts"),
    Transition(_INIT, Cause.CHECKED, _INIT, "nothing to do"),
    Transition(_INIT, Cause.ANSWERED, _INIT, "nothing to do"),
    Transition(_INIT, Cause.FAULT, _ERROR, "the engine failed"),
    Transition(_INIT, Cause.HALT, _HALTED, "out of service"),
    Transition(_INIT, Cause.RESET, _PRE, "the self-test starts"),
    Transition(_READY, Cause.START_CONTINUOUS, _CONT, "every frame is judged"),
    Transition(_READY, Cause.START_SINGLE, _SINGLE, "the frame of one trigger is judged"),
    Transition(_READY, Cause.PREPARE_RECIPE, _READY, "the next recipe is opened next to the active one"),
    Transition(_READY, Cause.RECIPE_TAKEN, _READY, "the next recipe is active"),
    Transition(_READY, Cause.UNPREPARE_RECIPE, _INIT, "no recipe is active"),
    Transition(_READY, Cause.SELF_TEST, _PRE, "the self-test starts; the recipe stays active"),
    Transition(_READY, Cause.CHECKED, _READY, "nothing to do"),
    Transition(_READY, Cause.ANSWERED, _READY, "nothing to do"),
    Transition(_READY, Cause.FAULT, _ERROR, "the engine failed"),
    Transition(_READY, Cause.HALT, _HALTED, "out of service"),
    Transition(_READY, Cause.RESET, _PRE, "the self-test starts; the recipe stays active"),
    Transition(_SINGLE, Cause.TRIGGER, _SINGLE, "waiting for the one frame; a second trigger is answered BUSY"),
    Transition(_SINGLE, Cause.ANSWERED, _READY, "the one result has been published"),
    Transition(_SINGLE, Cause.RECIPE_TAKEN, _SINGLE, "the next recipe is active"),
    Transition(_SINGLE, Cause.STOP, _READY, "admitted frames are still judged"),
    Transition(_SINGLE, Cause.ABORT, _READY, "admitted frames are answered ABORTED at once"),
    Transition(_SINGLE, Cause.CHECKED, _SINGLE, "nothing to do"),
    Transition(_SINGLE, Cause.FAULT, _ERROR, "the engine failed; admitted frames are answered ENGINE at once"),
    Transition(_SINGLE, Cause.HALT, _HALTED, "as abort, then out of service"),
    Transition(_SINGLE, Cause.RESET, _PRE, "as abort, then the self-test starts"),
    Transition(_CONT, Cause.TRIGGER, _CONT, "the frame of the trigger is judged like any other"),
    Transition(_CONT, Cause.ANSWERED, _CONT, "nothing to do"),
    Transition(_CONT, Cause.PREPARE_RECIPE, _CONT, "the next recipe is opened next to the active one"),
    Transition(_CONT, Cause.RECIPE_TAKEN, _CONT, "becomes active between two frames"),
    Transition(_CONT, Cause.STOP, _READY, "admitted frames are still judged"),
    Transition(_CONT, Cause.ABORT, _READY, "admitted frames are answered ABORTED at once"),
    Transition(_CONT, Cause.CHECKED, _CONT, "nothing to do"),
    Transition(_CONT, Cause.FAULT, _ERROR, "the engine failed; admitted frames are answered ENGINE at once"),
    Transition(_CONT, Cause.HALT, _HALTED, "as abort, then out of service"),
    Transition(_CONT, Cause.RESET, _PRE, "as abort, then the self-test starts"),
    Transition(_ERROR, Cause.RESET, _PRE, "the self-test starts; only start resumes judging"),
    Transition(_ERROR, Cause.HALT, _HALTED, "out of service"),
    Transition(_ERROR, Cause.CHECKED, _ERROR, "only reset leaves Error"),
    Transition(_ERROR, Cause.RECIPE_TAKEN, _ERROR, "noted; only reset leaves Error"),
    Transition(_ERROR, Cause.ANSWERED, _ERROR, "nothing to do"),
    Transition(_ERROR, Cause.FAULT, _ERROR, "already there"),
    Transition(_HALTED, Cause.RESET, _PRE, "back in service: the self-test starts"),
    Transition(_HALTED, Cause.HALT, _HALTED, "already there"),
    Transition(_HALTED, Cause.CHECKED, _HALTED, "only reset leaves Halted"),
    Transition(_HALTED, Cause.RECIPE_TAKEN, _HALTED, "noted; only reset leaves Halted"),
    Transition(_HALTED, Cause.ANSWERED, _HALTED, "nothing to do"),
    Transition(_HALTED, Cause.FAULT, _HALTED, "raised as an alarm"),
)

_TARGETS = {(row.source, row.cause): row.target for row in TABLE}

JUDGING = frozenset({State.SINGLE_EXECUTION, State.CONTINUOUS_EXECUTION})
"""States in which frames are judged; in SINGLE_EXECUTION only the one of the awaited trigger."""
READY_STATES = frozenset({State.READY, State.SINGLE_EXECUTION, State.CONTINUOUS_EXECUTION})
"""The only states in which ``ready`` may be true."""


def step(state: State, cause: Cause) -> State:
    """The state that follows. Raises StateError where the table has no row, naming what is possible instead."""
    target = _TARGETS.get((state, cause))
    if target is None:
        raise StateError(
            f"{cause.value} is not possible in state {state.value} ({state.name}); possible now: "
            f"{', '.join(allowed(state))}"
        )
    return target


def allowed(state: State) -> list[str]:
    """The requests that ``state`` takes."""
    return [row.cause.value for row in TABLE if row.source is state and row.cause in REQUESTS]


ALARMS: dict[str, str] = {
    "AUDIT": "the audit file cannot be written: check the disk; writing is retried",
    "BUILDING": "networks are being built for this GPU, which takes minutes; the active recipe stays",
    "CAMERA": "no camera is connected, or it sends no frames",
    "CAMERA_CONFLICT": "two senders are using this camera name: stop one of them",
    "CLOCK": "a clock is not synchronised, or those of camera and computer disagree: asperity doctor, docs/clocks.md",
    "COUNTERS": "the file of counters has a problem, a restart would lose counts: check the disk",
    "DRIFT": "good parts score differently than during calibration: check light, camera and lens (docs/drift.md)",
    "ENGINE": "several frames in a row failed in the engine: check the log, then reset",
    "ENGINE_LOST": "the engine can score nothing more: prepare the recipe again, or restart the inspector",
    "INSECURE_LAN": "clients on the network are not authenticated: anyone there can send frames and requests",
    "JOURNAL": "the journal of results has a problem: check the file and the disk, then restart the station",
    "KEYS": "the key folder failed its permission check, all connections are refused: asperity doctor names the file",
    "LAW": "received + lost differs from results: keep the log, restart the inspector and report it",
    "OLDER_BUNDLE": "an older bundle of the recipe was opened on request ([engine] allow_older)",
    "RECIPE": "the requested recipe did not open; the last recipe change has the cause",
    "SELF_TEST": "the self-test failed: check the log, then reset",
    "SEQ_JUMP": "the camera's seq jumped: check the sender's counter; counting continues from the new seq",
    "STUCK": "the engine is not responding: the supervisor restarts the inspector, or restart it",
    "THRESHOLD": "an operator changed the threshold; the recipe was proven with another one",
    "THRESHOLD_CHANGE": "a requested threshold was refused; the previous one is active",
    "TIMING_ONLY": "the bundle is for timing only, so every frame is unknown: use one exported without --timing-only",
    "VIEWS": "the recipes of a part's views do not belong together: prepare_recipe at the combined station",
    "UNSYNCED": "announcements and exposures are not synchronized: pause the line for [hard_wired] quiet_ms",
}
"""Each alarm that a state message may show -> what it means and what to do. The event of that code has the details."""


def alarm_text(kind: str) -> str:
    """An alarm for people: its name, and its meaning where this version knows it."""
    return f"{kind}: {ALARMS[kind]}" if kind in ALARMS else kind
