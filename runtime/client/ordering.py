"""Results in order, none twice, every loss reported: the pure core of ``runtime.client.station_client``.

Frames get their ids as they are admitted, so results may be published out of order: a refused frame is answered while
the previous one is still in work. And PUB may lose any of them.

The journal is asked, over another socket, for ids that are *settled* only: the stream itself has shown that they were
published. Then no answer can come before the true result, whatever its source.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from asperity.runtime.wire import ReceivedResult, StationState

RECOVERED_KEPT = 1024
"""Answers of the journal that are compared with what still comes on the stream."""

MARKS_KEPT = 64
"""States whose ids are not settled yet; of more than that in ``beat_timeout_ms`` some are passed over."""


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
        self.earlier_id = 0
        """Ids up to this one were given in an earlier session than the present."""
        self._known_id = 0  # highest id that is known to exist
        self._settled_id = 0  # up to here every id was given to a result that is out, or to none
        self._session_id = 0  # highest id that is known to be of the present session, or of one before
        self._marks: deque[tuple[int, int]] = deque()  # last_result_id and uptime_ms of states that are not settled
        self._recovered: OrderedDict[int, ReceivedResult] = OrderedDict()
        self._session = ""  # empty: not joined
        self._held: dict[int, tuple[ReceivedResult, float]] = {}
        self._held_results = held_results
        self._out: deque[ReceivedResult | Gap] = deque()

    def __len__(self) -> int:
        """Items ready to be taken."""
        return len(self._out)

    def add(self, result: ReceivedResult, now_s: float) -> bool:
        """A result of the stream that arrived at ``now_s``. False: it is another than the journal's answer was."""
        if result.session == self._session:
            self._session_id = max(self._session_id, result.result_id)
        self._take_in(result, now_s)
        recovered = self._recovered.get(result.result_id, result)
        return recovered == result or recovered.session != result.session

    def observe(self, state: StationState) -> None:
        """A state: joins the first time; later tells of results that never arrived."""
        last_id = state.last_result_id
        if state.session != self._session:
            self.earlier_id = self._session_id if self._session else 0
            self._session = state.session
            self._marks.clear()
            # Ids are given on admission: what is in work now may be published after higher ones.
            self._next_id = self._next_id or max(1, min([last_id + 1 - state.in_flight, *self._held]))
            if last_id < self._next_id - 1:
                self._out.append(Gap(1, last_id, "the station restarted its result numbering: its journal was lost"))
                self._next_id, self._known_id = last_id + 1, last_id
                self.earlier_id = self._settled_id = self._session_id = last_id
                self._held.clear()
                self._recovered.clear()
        self._known_id, self._session_id = max(self._known_id, last_id), max(self._session_id, last_id)
        self._settle(state)
        self._release()

    def missing(self) -> tuple[int, int] | None:
        """``(first, last)`` of the oldest run of results to ask the journal for."""
        if not self._session or self._next_id > self._known_id:
            return None
        return self._next_id, min(self._held, default=self._known_id + 1) - 1

    def to_ask(self) -> tuple[int, int] | None:
        """The first and last settled ids of ``missing``; None: none is settled yet."""
        missing = self.missing()
        if missing is None or missing[0] > self._settled_id:
            return None
        return missing[0], min(missing[1], self._settled_id)

    def missed_s(self, now_s: float) -> float:
        """When the oldest missing run was noticed: as the result after it arrived, or now."""
        return self._held[min(self._held)][1] if self._held else now_s

    def answer(self, results: list[ReceivedResult], oldest_id: int | None, looked_to: int, now_s: float) -> None:
        """The journal's answer, taken of settled ids only. What is older than ``oldest_id``, the oldest it holds, is
        gone; what is absent up to ``looked_to`` was never given (ids leap after a power cut)."""
        asked = self.to_ask()
        if asked is not None and oldest_id is not None and asked[0] < oldest_id:
            self._skip(min(asked[1], oldest_id - 1), "no longer in the station's journal")
        for result in results:
            if self._next_id <= result.result_id <= self._settled_id and result.result_id not in self._held:
                self._recovered[result.result_id] = result
                while len(self._recovered) > RECOVERED_KEPT:
                    self._recovered.popitem(last=False)
                self._take_in(result, now_s)
        while (asked := self.to_ask()) is not None and asked[0] <= looked_to:
            self._skip(min(asked[1], looked_to), "not in the station's journal")

    def give_up(self, why: str) -> None:
        """Name the oldest missing run a gap and go on."""
        missing = self.missing()
        if missing is not None:
            self._skip(missing[1], why)

    def take(self) -> ReceivedResult | Gap | None:
        """The next item in order, if there is one."""
        return self._out.popleft() if self._out else None

    def _take_in(self, result: ReceivedResult, now_s: float) -> None:
        if result.result_id < self._next_id:
            return
        self._held.setdefault(result.result_id, (result, now_s))
        self._known_id = max(self._known_id, result.result_id)
        self._release()
        if len(self._held) > self._held_results:
            self.give_up("too many results are waiting for an older one")

    def _settle(self, state: StationState) -> None:
        """Ids up to which nothing can be in work any more: at once where nothing is, else after the longest time that
        a frame may be in work, which is no longer than ``beat_timeout_ms``, by the station's own clock."""
        if state.in_flight == 0:
            self._settled_id = max(self._settled_id, state.last_result_id)
        while self._marks and state.uptime_ms > self._marks[0][1] + state.beat_timeout_ms:
            self._settled_id = max(self._settled_id, self._marks.popleft()[0])
        if len(self._marks) < MARKS_KEPT:
            self._marks.append((state.last_result_id, state.uptime_ms))

    def _skip(self, last_id: int, why: str) -> None:
        self._out.append(Gap(self._next_id, last_id, why))
        self._next_id = last_id + 1
        self._release()

    def _release(self) -> None:
        while self._session and self._next_id in self._held:
            self._out.append(self._held.pop(self._next_id)[0])
            self._next_id += 1
