"""What the outputs are at one moment. Pure: the time is an argument.

    result      accept or reject  ____/~~~~~~~~~~~~~~~~~~~~\\____
                strobe            ________/~~~~~~~~\\_________
                                      setup  strobe   rest   gap

Each result, and each missing one, has one strobe, in order. Accept holds only while the part may pass, and falls within
one cycle when it may not; what waited too long for its strobe is a reject.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import GatewayError
from asperity.runtime.gateways.link import Item

OUTPUTS = ("ready", "busy", "accept", "reject", "strobe")


@dataclass(frozen=True, slots=True)
class Timing:
    """In ms, from the beginning of a result's time."""

    setup_ms: int
    strobe_ms: int
    hold_ms: int
    gap_ms: int
    toggle_ms: int
    """Half a period of accept; 0: a level."""


class Signals:
    """The outputs of one gateway."""

    def __init__(self, timing: Timing, queue_max: int, may_pass: Callable[[Item], bool]) -> None:
        self._timing = timing
        self._queue_max = queue_max
        self._may_pass = may_pass
        self._waiting: deque[Item | None] = deque()  # None: a missing one
        self._shown: Item | None = None
        self._passes = False
        self._began_ms: float | None = None  # of what is shown; None: nothing is
        self._free_ms = 0.0

    def put(self, item: Item) -> None:
        """The next result. Raises GatewayError where more wait than there is room for: each must have its strobe."""
        if isinstance(item, Gap):
            self._waiting.extend([None] * min(item.last_id - item.first_id + 1, self._queue_max + 1))
        else:
            self._waiting.append(item)
        if len(self._waiting) > self._queue_max:
            one_ms = self._timing.hold_ms + self._timing.gap_ms
            raise GatewayError(
                f"{len(self._waiting)} results wait for the outputs, [io] queue_max is {self._queue_max}: a result "
                f"takes {one_ms} ms ([io] hold_ms + gap_ms), so parts come faster, or many are missing; what is not "
                "put out cannot be counted, so the gateway ends"
            )

    def at(self, now_ms: float, *, good: bool, in_flight: bool) -> Mapping[str, bool]:
        """Every output. ``good``: the station is ready and its heartbeat advances."""
        timing = self._timing
        if self._began_ms is not None and now_ms - self._began_ms >= timing.hold_ms:
            self._free_ms, self._began_ms = self._began_ms + timing.hold_ms + timing.gap_ms, None
        if self._began_ms is None and self._waiting and now_ms >= self._free_ms:
            self._shown, self._began_ms, self._passes = self._waiting.popleft(), now_ms, True
        shown = self._began_ms is not None
        # Once false it stays false for this part.
        self._passes = shown and self._passes and good and self._shown is not None and self._may_pass(self._shown)
        elapsed_ms = 0.0 if self._began_ms is None else now_ms - self._began_ms
        level = not timing.toggle_ms or int(now_ms // timing.toggle_ms) % 2 == 0
        return {
            "ready": good,
            "busy": in_flight or shown or bool(self._waiting),
            "accept": self._passes and level,
            "reject": not good or (shown and not self._passes),
            "strobe": shown and timing.setup_ms <= elapsed_ms < timing.setup_ms + timing.strobe_ms,
        }


def all_off() -> dict[str, bool]:
    """What the outputs are before the first news and at the end."""
    return {**dict.fromkeys(OUTPUTS, False), "reject": True}
