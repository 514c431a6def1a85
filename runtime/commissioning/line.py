"""What happens at the line, such as a part, a kill, a pulled cable: done by the simulation, or by a person."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.commissioning.plc_side import U32
from asperity.runtime.errors import StationError, WireError
from asperity.runtime.wire import ReceivedResult, Reply, StationState

ASK_S = 30.0


class NotChecked(Exception):
    """A row that could not be brought about, or that nobody answered. It is never passed."""


class NotNeeded(Exception):
    """A row that this protocol or this line cannot have."""


class Witness(StationClient):
    """The station as its own sockets report it: what a gateway's word is compared with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.published: dict[int, ReceivedResult] = {}
        """Low 32 bits of its id -> result."""

    def poll(self, timeout_ms: int) -> list[ReceivedResult | Gap]:
        """As ``StationClient.poll``; every result is kept."""
        items = super().poll(timeout_ms)
        for item in items:
            if not isinstance(item, Gap):
                self.published[item.result_id & U32] = item
        return items


class LineSide(Protocol):
    """The other side of a check. Every method may raise NotChecked."""

    simulated: bool
    witness: Witness

    def listen(self, timeout_ms: int) -> None:
        """Let time pass, and receive what the station publishes."""

    def place(self, what: str) -> None:
        """A part is about to be triggered: ``ok``, ``ng``, ``none`` for no part at all, or ``slow``."""

    def expose(self, trigger_id: int, word: str) -> None:
        """The camera answers this trigger."""

    def expose_for_nobody(self, trigger_id: int) -> None:
        """The camera exposes for a trigger that nobody gave or that has its result already."""

    def play(self, reason: str) -> None:
        """Bring about a result of this reason."""

    def stand_still(self) -> None:
        """The inspector hangs."""

    def go_on(self) -> None:
        """It goes on."""

    def kill_inspector(self) -> None:
        """As by kill -9."""

    def start_inspector(self) -> None:
        """Until it judges."""

    def kill_gateway(self) -> None:
        """As by kill -9."""

    def start_gateway(self, **settings: Any) -> None:
        """Until it serves, in place of one that runs, with these settings of ``[gateway]`` and else its usual ones."""

    def pull_cable(self) -> None:
        """Between PLC and gateway."""

    def plug_cable(self) -> None:
        """It is back."""

    def audited(self, op: str) -> bool | None:
        """The audit file has an entry of this operation; None: it cannot be read here."""

    def repair(self) -> None:
        """After a row that ended early: everything runs again."""


PLACES = {
    "ok": "Put a good part in place.",
    "ng": "Put a known bad part in place.",
    "none": "Unplug the camera, or its trigger, so that no picture comes.",
}
BY_HAND = {
    "SCORE_ABOVE_THRESHOLD": "Put a known bad part in place and let it be inspected.",
    "TOO_FEW_POINTS": "Let the station inspect without a part in the field of view.",
    "CAMERA_MOVED": "Move the camera or raise the background, and let a part be inspected; then put it back.",
    "NOT_RUNNING": "Stop the station, let a part be inspected, and start the station again.",
    "RESTARTED": "Let parts run, kill the inspector (kill -9) while one is being inspected, and start it again.",
}
"""Reason -> what a person can do at a real line; the others are the simulation's to bring about."""


class AskedLine:
    """A real line: whatever has to happen there is asked of a person."""

    simulated = False

    def __init__(self, witness: Witness, ask: Callable[[str], bool]) -> None:
        """``ask``: have it done; False: it was not. Raises NotChecked where nobody is there."""
        self.witness = witness
        self._ask = ask

    def listen(self, timeout_ms: int) -> None:
        """As ``LineSide.listen``."""
        self.witness.poll(timeout_ms)

    def place(self, what: str) -> None:
        """As ``LineSide.place``."""
        self._have(PLACES.get(what, PLACES["ok"]))

    def expose(self, trigger_id: int, word: str) -> None:
        """As ``LineSide.expose``; the trigger reaches the camera by itself."""

    def expose_for_nobody(self, trigger_id: int) -> None:
        """As ``LineSide.expose_for_nobody``."""
        self._have("Trigger the camera by hand, without a trigger of the PLC.")

    def play(self, reason: str) -> None:
        """As ``LineSide.play``."""
        if reason not in BY_HAND:
            raise NotNeeded(f"{reason} is brought about by --simulated")
        self._have(BY_HAND[reason])

    def stand_still(self) -> None:
        """As ``LineSide.stand_still``."""
        self._have("Stop the inspector where it stands: kill -STOP, as `systemctl kill -s STOP` does.")

    def go_on(self) -> None:
        """As ``LineSide.go_on``."""
        self._have("Let the inspector go on: kill -CONT.")

    def kill_inspector(self) -> None:
        """As ``LineSide.kill_inspector``."""
        self._have("Kill the inspector: kill -9.")

    def start_inspector(self) -> None:
        """As ``LineSide.start_inspector``."""
        self._have("Start the inspector again, and wait until it is running.")

    def kill_gateway(self) -> None:
        """As ``LineSide.kill_gateway``."""
        self._have("Stop the gateway.")

    def start_gateway(self, **settings: Any) -> None:
        """As ``LineSide.start_gateway``."""
        if settings:
            raise NotNeeded("it needs other settings of the gateway; --simulated checks it")
        self._have("Start the gateway again.")

    def pull_cable(self) -> None:
        """As ``LineSide.pull_cable``."""
        self._have("Unplug the network cable between this computer, in place of the PLC, and the gateway.")

    def plug_cable(self) -> None:
        """As ``LineSide.plug_cable``."""
        self._have("Plug the cable in again.")

    def audited(self, op: str) -> bool | None:
        """As ``LineSide.audited``."""
        return None

    def repair(self) -> None:
        """As ``LineSide.repair``; a person was asked for every step."""

    def _have(self, what: str) -> None:
        if not self._ask(what):
            raise NotChecked(f"not done: {what}")


def request(line: LineSide, op: str, **fields: Any) -> Reply:
    """A request to the station, asked again where a crowded machine made it too old. Raises NotChecked."""
    ends_s, why = time.monotonic() + ASK_S, "TOO_OLD"
    while time.monotonic() < ends_s:
        with suppress(WireError):
            try:
                reply = line.witness.request(op, **fields)
            except StationError as error:
                why = str(error)
                break
            if reply.code != "TOO_OLD":
                return reply
        line.listen(20)
    raise NotChecked(f"{op}: {why}")


def state_of(line: LineSide) -> StationState:
    """The station's last state. Raises NotChecked where none was received."""
    if line.witness.state is None:
        raise NotChecked("the station has sent nothing; check --station, --results and --control")
    return line.witness.state
