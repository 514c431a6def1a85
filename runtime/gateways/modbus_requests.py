"""What a PLC asked for by Modbus, and what became of it. Pure: futures and states are handed in, and the time."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

from runtime.errors import StationError, WireError
from runtime.gateways.modbus_table import STATUS_OF_CODE
from runtime.wire import Reply, StationState

GIVEN_UP_MAX = 1024
"""Trigger ids kept of which the PLC was told that no result comes; beyond it the oldest is forgotten."""
TAKEN = frozenset({"OK", "ACCEPTED"})
PERHAPS_DONE = frozenset({"NO_ANSWER", "OTHER", "FAILED", "BASELINE"})
"""Statuses of a request that the station may have carried out all the same; with the others it said that it did not."""


class Request:
    """One kind of request, of which at most one is unanswered, and what became of the last."""

    def __init__(self) -> None:
        self.status = "IDLE"
        """Name of a status code."""
        self.reply: Reply | None = None
        """To the last, if there was one."""
        self._future: Future[Reply] | None = None

    @property
    def unanswered(self) -> bool:
        """No other may be begun."""
        return self._future is not None

    @property
    def open(self) -> bool:
        """What becomes of it is still awaited."""
        return self.unanswered

    def begin(self, future: Future[Reply]) -> None:
        """Follow this one."""
        self._future, self.status = future, "UNDER_WAY"

    def settle(self, status: str) -> None:
        """Nothing is under way, and this is what became of it."""
        self._future, self.status = None, status

    def look(self) -> bool:
        """Has it been answered, or given up, since it was last looked at? ``status`` says how."""
        if self._future is None or not self._future.done():
            return False
        future, self._future, self.reply = self._future, None, None
        try:
            self.reply = future.result(timeout=0)
            self.status = self.reply.code if self.reply.code in STATUS_OF_CODE else "OTHER"
        except StationError:
            self.status = "NO_ANSWER"
        except WireError:
            self.status = "BAD_REQUEST"
        return True


class RecipeRequest(Request):
    """A change of recipe: begun with the reply, ended by a state of the same session that says so."""

    def __init__(self, silent_ms: int) -> None:
        """``silent_ms``: NO_ANSWER when no state has said for so long what becomes of the change."""
        super().__init__()
        self._silent_ms = silent_ms
        self._recipe = self._session = ""
        self._number: int | None = None
        self._heard: StationState | None = None
        self._heard_s: float | None = None  # None: no change is followed

    @property
    def open(self) -> bool:
        return self.unanswered or self._heard_s is not None

    def select(self, future: Future[Reply], recipe: str, state: StationState | None) -> None:
        """Follow the change to ``recipe`` that was asked for when ``state`` was the last heard."""
        self._heard_s = None
        self._recipe, self._session = recipe, "" if state is None else state.session
        self.begin(future)

    def settle(self, status: str) -> None:
        super().settle(status)
        self._heard_s = None

    def follow(self, state: StationState | None, now_s: float) -> None:
        """Look at the reply and at ``state``, the last heard."""
        if self.look() and self.reply is not None and self.status == "ACCEPTED":
            self._number, self._heard, self._heard_s = self.reply.recipe_change, None, now_s
        if self._heard_s is None:
            return
        if state is not None:
            self._session = self._session or state.session
            end = self._end(state)
            if end:
                self.settle(end)
                return
            change = state.recipe_change
            if change is not None and change.number == self._number and state is not self._heard:
                self._heard, self._heard_s = state, now_s
        if (now_s - self._heard_s) * 1000 > self._silent_ms:
            self.settle("NO_ANSWER")

    def _end(self, state: StationState) -> str:
        """What became of the change by this state; empty: it does not say. What is not known to be done is not."""
        if state.session != self._session:
            return "FAILED"
        change = state.recipe_change
        if change is None or self._number is None or change.number < self._number:
            return ""
        if change.number > self._number or change.status == "failed":
            return "FAILED"
        if change.status == "done":
            return "OK" if change.recipe == self._recipe else "FAILED"
        return ""


@dataclass(slots=True)
class _Number:
    owed: int = 0
    """Results of given-up requests of this number that may still come."""
    again: bool = False
    """A later request of this number was taken: a result of it is to come."""


class GivenUp:
    """Numbers of triggers of which the PLC was told that no result comes: one that comes all the same is no pass."""

    def __init__(self, most: int = GIVEN_UP_MAX) -> None:
        self._most = most
        self._numbers: OrderedDict[int, _Number] = OrderedDict()

    def __contains__(self, trigger_id: int) -> bool:
        return trigger_id in self._numbers

    def answered(self, trigger_id: int, status: str) -> None:
        """A request for this trigger ended so.

        One that was taken clears its number where the station itself had said no before. Where it had said nothing,
        the result of the earlier request may still come, under the same number: then the next good one is refused.
        """
        number = self._numbers.pop(trigger_id, None)
        if status in TAKEN:
            if number is not None and number.owed:
                number.again = True
                self._numbers[trigger_id] = number
            return
        number = number or _Number()
        number.owed += number.again + (status in PERHAPS_DONE)
        number.again = False
        self._numbers[trigger_id] = number
        while len(self._numbers) > self._most:
            self._numbers.popitem(last=False)

    def refused(self, trigger_id: int) -> bool:
        """A good result of this trigger has come: is it one of which the PLC was told that it does not come?"""
        number = self._numbers.get(trigger_id)
        if number is None:
            return False
        number.owed = max(0, number.owed - 1)
        if number.again and not number.owed:
            del self._numbers[trigger_id]
        return True
