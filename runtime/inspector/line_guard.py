"""With a hard-wired trigger: parts and exposures are matched; while that is not certain, every part is unknown."""

from __future__ import annotations

from collections.abc import Callable

from asperity.runtime.clock import Now
from asperity.runtime.inspector.controller import Controller
from asperity.runtime.inspector.event_log import EventLog
from asperity.runtime.inspector.hard_wired_line import WiredLine
from asperity.runtime.inspector.part_matching import Match
from asperity.runtime.reasons import Reason
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from asperity.runtime.states import JUDGING


class LineGuard:
    """Asks a station's line for matches, and shows the alarm UNSYNCED while parts and exposures are not matched."""

    def __init__(
        self,
        line: WiredLine,
        sockets: InspectorSockets,
        controller: Controller,
        notice: EventLog,
        on_match: Callable[[Match], None],
    ) -> None:
        """``on_match``: it is known which part an exposure is of, or that one of the two has no other."""
        self._line = line
        self._sockets = sockets
        self._controller = controller
        self._notice = notice
        self._on_match = on_match
        self._was_judging = False

    def watch(self, now: Now) -> None:
        """Which exposure is which part's, where that shows with time."""
        judging = self._controller.state in JUDGING
        if judging and not self._was_judging:
            self._line.unsync("judging has started")
        self._was_judging = judging
        self._line.look(now)
        for match in self._line.settle(now, self._sockets.read_up_to_ns):
            self._on_match(match)
            if match.reason is None and (text := self._line.punctuality.add(match)):
                self._notice("info", "LINE_TIMES", text)
        text = f"{self._line.why}; {Reason.UNSYNCED.remedy}" if judging and not self._line.synced else ""
        gone = ("SYNCED", "parts and exposures are synchronized again") if self._line.synced else None
        self._controller.alarms.hold(Reason.UNSYNCED.name, text, "warning", gone)
