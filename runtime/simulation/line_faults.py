"""What can go wrong on a line with a hard-wired trigger, by words: each row of the table in docs/wire.md.

The simulation is sensor and PLC at once: it exposes and announces the part itself. A station whose triggers are not
hard-wired is restarted with hard-wired ones for such a word, and with its own afterwards.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from asperity.runtime.reasons import Reason
from asperity.runtime.simulation.simulated_line import SimulatedLine
from asperity.runtime.simulation.wiring import REST_SLACK_MS


def _lost(line: SimulatedLine) -> None:
    line.expose()
    line.camera.skip()
    line.owe_last()
    line.announce()
    line.expose()


def _missed(line: SimulatedLine) -> None:
    line.pace()
    line.announce()


def _broken(line: SimulatedLine) -> None:
    line.expose()
    line.expose("ok", cut_bytes=1)


def _bounced(line: SimulatedLine) -> None:
    line.expose()
    line.expose("ok", paced=False, announced=False)


def _late(line: SimulatedLine) -> None:
    late_ms = (line.wired.arrival_max_ms + line.wired.late_ms) // 2
    line.expose(t_exposure_us=time.time_ns() // 1000 - 1000 * late_ms)


def _unannounced(line: SimulatedLine) -> None:
    line.expose()
    line.expose("ok", announced=False)
    line.expose()


def _announced_late(line: SimulatedLine) -> None:
    line.expose("ok", announced=False)
    line.wait_ms(line.wired.late_ms + 2 * line.wired.tolerance_ms + REST_SLACK_MS)
    line.announce()


def _doubled(line: SimulatedLine) -> None:
    line.expose()
    line.announce()


def _restarted(line: SimulatedLine) -> None:
    line.expose()
    line.camera.camera_session, line.camera.seq = str(uuid.uuid4()), 0
    line.expose()


def _ahead(line: SimulatedLine) -> None:
    line.expose(t_exposure_us=time.time_ns() // 1000 + 1000 * (line.wired.tolerance_ms + REST_SLACK_MS))


def _timeless(line: SimulatedLine) -> None:
    line.expose()
    line.expose(t_exposure_us=0)


class Fault(NamedTuple):
    """Something that goes wrong on a line."""

    meaning: str
    reason: Reason
    """Which it brings about, among others."""
    play: Callable[[SimulatedLine], None]


FAULTS = {
    "lost-exposure": Fault(
        "an exposure is lost in transit: its part NO_FRAME, the next AMBIGUOUS", Reason.AMBIGUOUS, _lost
    ),
    "missed-exposure": Fault("the camera does not expose for an announced part: NO_FRAME", Reason.NO_FRAME, _missed),
    "broken-exposure": Fault("the frame violates the wire protocol: its part AMBIGUOUS", Reason.AMBIGUOUS, _broken),
    "bounced-sensor": Fault("the sensor triggers twice for one part: AMBIGUOUS", Reason.AMBIGUOUS, _bounced),
    "late-frame": Fault("a frame arrives after arrival_max_ms: STALE", Reason.STALE, _late),
    "unannounced-exposure": Fault("it was not announced: UNANNOUNCED, then UNSYNCED", Reason.UNANNOUNCED, _unannounced),
    "late-announcement": Fault(
        "a part is announced after late_ms: UNANNOUNCED, then UNSYNCED", Reason.UNANNOUNCED, _announced_late
    ),
    "doubled-announcement": Fault("two parts are announced for one exposure: AMBIGUOUS", Reason.AMBIGUOUS, _doubled),
    "restarted-camera": Fault("another session of the camera: UNSYNCED", Reason.UNSYNCED, _restarted),
    "clock-ahead": Fault("an exposure in the future: UNSYNCED", Reason.UNSYNCED, _ahead),
    "no-time": Fault("a frame without t_exposure_us: UNSYNCED", Reason.UNSYNCED, _timeless),
}
"""UNSYNCED holds until the line has paused, which the simulation then does."""
