"""What a PLC sees of a station through a gateway, the same for every protocol, so that each check is written once."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from asperity.runtime.errors import AsperityError
from asperity.runtime.reasons import Reason
from asperity.runtime.text.part_identity import Batch
from asperity.runtime.wire import StationState

U32 = 0xFFFFFFFF
TAKEN = ("OK", "ACCEPTED")
"""Outcomes of a request that the station does."""


class NoAnswer(AsperityError):
    """The gateway did not answer within the PLC's own timeout: the PLC rejects."""


class Shown(NamedTuple):
    """A result as the protocol shows it. Numbers are cut to 32 bits, as registers have them."""

    number: int
    verdict: int
    reason: str
    trigger_id: int
    part_id: str
    accept: bool
    """When it was read."""
    recipe: str = ""
    lot: str = ""
    order: str = ""
    shift: str = ""
    simulated: bool = False
    missing_before: int = 0
    """Results that the protocol says are missing immediately before it."""


class Reading(NamedTuple):
    """One reading of everything a PLC looks at in a cycle."""

    beat: int
    accept: bool
    quality: bool
    state: int
    session: str
    """Of the inspector, as far as the protocol carries it; empty: none yet."""
    shown: Shown | None
    """The result that ``accept`` is about."""
    new: tuple[Shown, ...] = ()
    """Results that were not in the reading before, in order."""
    recipe_change: str = ""
    """``under_way``, ``done``, ``failed``."""


class Counted(NamedTuple):
    """The station's counters as the protocol shows them."""

    ok: int
    ng: int
    unknown: int
    resets: int


class PlcSide(Protocol):
    """A client of one protocol. For one thread. Every method raises NoAnswer."""

    timeout_s: float
    """Longest wait for an answer; may be changed between two readings."""
    cycle_s: float
    """Pause between two readings."""
    handshake: bool
    """A result is shown until it is acknowledged."""
    users: bool
    """The protocol has users with roles."""

    def read(self) -> Reading:
        """What the gateway shows now."""

    def acknowledge(self, shown: Shown) -> None:
        """The shown result was taken."""

    def trigger(self, trigger_id: int, part_id: str, timeout_ms: int) -> str:
        """Trigger, or announce, a part; the outcome as the station's code."""

    def repeat_trigger(self) -> str:
        """After the gateway's restart: as a PLC that writes its outputs in each cycle. Empty: there are no outputs."""

    def command(self, op: str) -> str:
        """A command without fields; the outcome as the station's code."""

    def set_batch(self, batch: Batch) -> str:
        """Lot, order and shift of all parts from now on."""

    def want_recipe(self, name: str) -> str:
        """Ask for a recipe and keep asking; ``done`` or ``failed``."""

    def counters(self) -> Counted:
        """The counters."""

    def identity(self, state: StationState) -> list[tuple[str, str, str]]:
        """What names the gateway and its station: (what, expected, seen)."""

    def command_without_role(self) -> str:
        """A command from a client without a user; how it was refused. Empty: it was done."""

    def again(self) -> None:
        """The gateway was restarted: begin as a PLC does."""

    def close(self) -> None:
        """End the connection."""


def reason_name(code: int) -> str:
    """Name of a reason; the number where it is unknown, which is a reject."""
    return Reason(code).name if code in Reason.__members__.values() else str(code)


def session_seen(session: str, cut: bool) -> str:
    """A session as a protocol shows it: whole, or the low 32 bits."""
    if not cut:
        return session
    from asperity.runtime.wire.record import session_number

    return str(session_number(session) & U32) if session else ""
