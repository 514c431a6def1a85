"""The state machine is its table: complete for events, strict for requests."""

from __future__ import annotations

import pytest

from asperity.runtime.errors import StateError
from asperity.runtime.states import (
    EVENTS,
    JUDGING,
    READY_STATES,
    REQUESTS,
    TABLE,
    Cause,
    State,
    allowed,
    step,
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.source.name}-{row.cause.name}")
def test_every_row_is_what_step_does(row: tuple[State, Cause, State, str]) -> None:
    source, cause, target, meaning = row
    assert step(source, cause) is target
    assert meaning


def test_no_row_is_written_twice() -> None:
    assert len({(row.source, row.cause) for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("state", State)
def test_every_event_is_provided_for_in_every_state(state: State) -> None:
    assert {row.cause for row in TABLE if row.source is state} >= EVENTS


@pytest.mark.parametrize("state", State)
def test_a_request_without_a_row_is_refused_and_told_what_is_possible(state: State) -> None:
    possible = {row.cause for row in TABLE if row.source is state}
    refused = REQUESTS - possible
    for cause in refused:
        with pytest.raises(StateError, match=rf"state {state.value} .*reset"):
            step(state, cause)
    assert set(allowed(state)) == {cause.value for cause in possible & REQUESTS}


@pytest.mark.parametrize("state", State)
def test_reset_and_halt_are_callable_everywhere(state: State) -> None:
    assert step(state, Cause.RESET) is State.PREOPERATIONAL
    assert step(state, Cause.HALT) is State.HALTED


def test_judging_is_entered_by_start_alone() -> None:
    entries = {row.cause for row in TABLE if row.target in JUDGING and row.source is not row.target}
    assert entries == {Cause.START_CONTINUOUS, Cause.START_SINGLE}
    assert {row.source for row in TABLE if row.target in JUDGING and row.source not in JUDGING} == {State.READY}


def test_a_fault_ends_judging_in_every_state_but_halted() -> None:
    for state in State:
        expected = State.HALTED if state is State.HALTED else State.ERROR
        assert step(state, Cause.FAULT) is expected


@pytest.mark.parametrize("state", [State.ERROR, State.HALTED])
def test_only_reset_and_halt_leave_error_and_halted(state: State) -> None:
    assert {row.cause for row in TABLE if row.source is state and row.target is not state} <= {Cause.RESET, Cause.HALT}


def test_states_are_numbered_as_in_opc_40100() -> None:
    assert {state.name: state.value for state in State} == {
        "PREOPERATIONAL": 1, "HALTED": 2, "ERROR": 3, "INITIALIZED": 5, "READY": 6, "SINGLE_EXECUTION": 7,
        "CONTINUOUS_EXECUTION": 8,
    }  # fmt: skip
    assert {6, 7, 8} == READY_STATES
