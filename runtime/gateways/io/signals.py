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
    """The outputs of one gateway.

    Each part of a result's time lasts from the moment when it was first put out: a process that stood still meanwhile
    puts out a strobe late, and leaves none out.
    """

    def __init__(self, timing: Timing, queue_max: int, may_pass: Callable[[Item], bool]) -> None:
        self._toggle_ms = timing.toggle_ms
        self._one_ms = timing.hold_ms + timing.gap_ms
        rest_ms = timing.hold_ms - timing.setup_ms - timing.strobe_ms
        self._steps = {"setup": timing.setup_ms, "strobe": timing.strobe_ms, "rest": rest_ms, "gap": timing.gap_ms}
        self._queue_max = queue_max
        self._may_pass = may_pass
        self._waiting: deque[Item | None] = deque()  # None: a missing one
        self._shown: Item | None = None
        self._passes = False
        self._left: deque[str] = deque()  # steps of the shown result; the first is put out
        self._since_ms = 0.0

    def put(self, item: Item) -> None:
        """The next result. Raises GatewayError where more wait than there is room for: each must have its strobe."""
        if isinstance(item, Gap):
            self._waiting.extend([None] * min(item.last_id - item.first_id + 1, self._queue_max + 1))
        else:
            self._waiting.append(item)
        if len(self._waiting) > self._queue_max:
            raise GatewayError(
                f"{len(self._waiting)} results wait for the outputs, [io] queue_max is {self._queue_max}: a result "
                f"takes {self._one_ms} ms ([io] hold_ms + gap_ms), so parts come faster, or many are missing; what is "
                "not put out cannot be counted, so the gateway ends"
            )

    def at(self, now_ms: float, *, good: bool, in_flight: bool) -> Mapping[str, bool]:
        """Every output. ``good``: the station is ready and its heartbeat advances."""
        if self._left and now_ms - self._since_ms >= self._steps[self._left[0]]:
            self._left.popleft()
            self._since_ms = now_ms
        if not self._left and self._waiting:
            self._shown, self._passes, self._since_ms = self._waiting.popleft(), True, now_ms
            self._left.extend(step for step, length_ms in self._steps.items() if length_ms)
        step = self._left[0] if self._left else ""
        shown = step in ("setup", "strobe", "rest")
        # Once false it stays false for this part.
        self._passes = shown and self._passes and good and self._shown is not None and self._may_pass(self._shown)
        level = not self._toggle_ms or int(now_ms // self._toggle_ms) % 2 == 0
        return {
            "ready": good,
            "busy": in_flight or shown or bool(self._waiting),
            "accept": self._passes and level,
            "reject": not good or (shown and not self._passes),
            "strobe": step == "strobe",
        }


def all_off() -> dict[str, bool]:
    """What the outputs are before the first news and at the end."""
    return {**dict.fromkeys(OUTPUTS, False), "reject": True}
