"""Results in order, none twice, none lost without a word: the pure core of ``runtime.client``.

Ids are given to frames as they are admitted, so results may be published out of turn: a refused frame is answered while
the one before it is still in work. And PUB may lose any of them.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from runtime.wire import ReceivedResult, StationState


class Gap(NamedTuple):
    """Results ``first_id`` to ``last_id`` cannot be had, and why. Their parts are rejects."""

    first_id: int
    last_id: int
    why: str


class Ordering:
    """Puts results in order. Pure: told what arrived, it says what is missing and what may be handed on."""

    def __init__(self, since: int | None, held_results: int) -> None:
        """``since``: first id wanted; None: whatever comes after joining."""
        self._next_id = since or 0  # 0: not known before joining
        self._known_id = 0  # highest id that is known to exist
        self._session = ""  # empty: not joined
        self._held: dict[int, tuple[ReceivedResult, float]] = {}
        self._held_results = held_results
        self._out: deque[ReceivedResult | Gap] = deque()

    def __len__(self) -> int:
        """Items ready to be taken."""
        return len(self._out)

    def add(self, result: ReceivedResult, now_s: float) -> None:
        """A result, from the stream or from the journal, that arrived at ``now_s``."""
        if result.result_id < self._next_id:
            return
        self._held.setdefault(result.result_id, (result, now_s))
        self._known_id = max(self._known_id, result.result_id)
        self._release()
        if len(self._held) > self._held_results:
            self.give_up("too many results wait for an older one")

    def observe(self, state: StationState) -> None:
        """A state: joins the first time; later tells of results that never arrived."""
        last_id = state.last_result_id
        if state.session != self._session:
            self._session = state.session
            # Ids are given on admission: what is in work now may be published after higher ones.
            self._next_id = self._next_id or max(1, min([last_id + 1 - state.in_flight, *self._held]))
            if last_id < self._next_id - 1:
                self._out.append(Gap(1, last_id, "the station counts anew: its journal was lost"))
                self._next_id, self._known_id = last_id + 1, last_id
                self._held.clear()
        self._known_id = max(self._known_id, last_id)
        self._release()

    def missing(self) -> tuple[int, int] | None:
        """``(first, last)`` of the oldest run of results to ask the journal for."""
        if not self._session or self._next_id > self._known_id:
            return None
        return self._next_id, min(self._held, default=self._known_id + 1) - 1

    def missed_s(self, now_s: float) -> float:
        """When the oldest missing run was noticed: as the result after it arrived, or now."""
        return self._held[min(self._held)][1] if self._held else now_s

    def answer(self, results: list[ReceivedResult], oldest_id: int | None, settled_id: int, now_s: float) -> None:
        """The journal's answer. What is older than ``oldest_id``, the oldest it holds, is gone; what is absent up to
        ``settled_id``, when nothing was in work, was never given (ids leap after a power cut); the rest may come."""
        missing = self.missing()
        if missing is not None and oldest_id is not None and missing[0] < oldest_id:
            self._skip(min(missing[1], oldest_id - 1), "no longer in the station's journal")
        for result in results:
            self.add(result, now_s)
        while (missing := self.missing()) is not None and missing[0] <= settled_id:
            self._skip(min(missing[1], settled_id), "not in the station's journal")

    def give_up(self, why: str) -> None:
        """Name the oldest missing run a gap and go on."""
        missing = self.missing()
        if missing is not None:
            self._skip(missing[1], why)

    def take(self) -> ReceivedResult | Gap | None:
        """The next item in order, if there is one."""
        return self._out.popleft() if self._out else None

    def _skip(self, last_id: int, why: str) -> None:
        self._out.append(Gap(self._next_id, last_id, why))
        self._next_id = last_id + 1
        self._release()

    def _release(self) -> None:
        while self._session and self._next_id in self._held:
            self._out.append(self._held.pop(self._next_id)[0])
            self._next_id += 1
