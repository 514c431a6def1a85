"""A line for tests: an inspector, and what its stations publish, recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from asperity.runtime import wire
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import StationError
from asperity.runtime.frame import Result
from asperity.runtime.simulation.camera import Exposed
from asperity.runtime.wire import ReceivedResult, StationState
from asperity.testing.camera import Camera
from asperity.testing.recorder import Recorder
from asperity.testing.site import PATIENCE_S, Site

L = TypeVar("L", bound="Line")


class Line(Site):
    """A site with a recorder per station, which listens from the beginning of the ``with`` on."""

    @cached_property
    def heard_of(self) -> dict[str, Recorder]:
        """Station's name -> what it has published, as far as it was read: every wait reads."""
        key = self.keys.get("recorder")
        return {name: Recorder(self.ends["results"], key, station=name) for name in self.all_names}

    @property
    def heard(self) -> Recorder:
        """What the first station has published."""
        return self.heard_of[self.names[0]]

    def __enter__(self: L) -> L:
        self.listen(0)  # from here on, no matter which process starts the station
        return self

    def await_running(self, timeout_s: float = PATIENCE_S) -> list[StationState]:
        """Wait until every station judges and its state was received."""
        states = super().await_running(timeout_s)
        for state in states:
            # Of this session: a state that an inspector published before it was killed says nothing.
            heard, session = self.heard_of[state.station].states, state.session
            self.wait(lambda: any(each.session == session for each in heard[-3:]), "a state of this session")  # noqa: B023
        return states

    def await_state(self, number: int, session: str = "", station: str = "") -> StationState:
        """The first state message in this state (of a session other than ``session``), of the first station or one."""
        found: list[StationState] = []

        def come() -> bool:
            for state in self.heard_of[station or self.names[0]].states[-3:]:
                if state.state == number and state.session != session:
                    found.append(state)
            return bool(found)

        self.wait(come, f"state {number}")
        return found[-1]

    def listen(self, timeout_ms: int) -> None:
        """Receive what the stations publish."""
        self.heard.listen(timeout_ms)
        for recorder in self.heard_of.values():
            recorder.listen(0)

    def result_of(self, exposed: Exposed, station: str = "") -> ReceivedResult:
        """The published result of an exposure."""
        results = self.heard_of[station or self.names[0]].results
        found: list[ReceivedResult] = []

        def come() -> bool:
            found.extend(result for result in results if (result.camera_session, result.seq) == exposed)
            return bool(found)

        self.wait(come, f"the result of seq {exposed.seq}")
        return found[0]

    def stream(self, camera: Camera, count: int, interval_ms: int, until: Callable[[], bool] | None = None) -> None:
        """Send ``count`` frames, or until a condition holds, listening to the results meanwhile."""
        for _ in range(count):
            if until is not None and until():
                return
            camera.deliver()
            ends_s = time.monotonic() + interval_ms / 1000
            while (left_s := ends_s - time.monotonic()) > 0:
                self.listen(round(1000 * left_s))

    def ask(self, op: str, station: str = "", **fields: Any) -> wire.Reply:
        """One request to a station, the first unless one is named."""
        with self.client(station=station) as client:
            return client.request(op, **fields)

    def journal(self, station: str = "") -> dict[int, Result]:
        """Every result that a station's journal has, of the running inspector, by ``result_id``."""
        with self.client(station=station) as client:
            return _journal(client)

    def settle(self, camera: Camera) -> dict[int, Result]:
        """Wait until the camera's last frame is answered; its station's journal then.

        The last frame must have been sent: an unsent one is not noticed before the next. One connection asks a
        few times per second, which every limit allows.
        """
        results: dict[int, Result] = {}
        states = self.heard_of[camera.station].states
        with self.client(station=camera.station) as client:

            def answered() -> bool:
                time.sleep(0.1)
                results.update(_journal(client))
                return any((r.camera_session, r.seq) == (camera.camera_session, camera.seq) for r in results.values())

            self.wait(answered, "the last frame's result")
        self.wait(lambda: states[-1].last_result_id >= max(results), "a state that has counted it")
        self.wait(lambda: states[-1].in_flight == 0, "the results of the others")
        return self.journal(camera.station)

    def close(self) -> None:
        """End every process, close every socket, remove the folder."""
        super().close()
        for recorder in self.heard_of.values():
            recorder.close()


def _journal(client: StationClient) -> dict[int, Result]:
    results: dict[int, Result] = {}
    next_id: int | None = 1
    while next_id is not None:
        reply = client.request("get_result", from_=next_id)
        if not reply.ok:
            raise StationError(f"the journal was not read: {reply.code}")
        for result in wire.reply_results(reply):
            results[result.result_id] = result
        next_id = reply.next_result_id
    return results
