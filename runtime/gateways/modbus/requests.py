"""What a PLC requested by Modbus, and the outcome. Pure: futures, states and the time are arguments."""

from __future__ import annotations

from concurrent.futures import Future

from asperity.runtime.errors import StationError, WireError
from asperity.runtime.gateways.modbus.table import STATUS_OF_CODE
from asperity.runtime.wire import Reply, StationState


class Request:
    """One kind of request, of which at most one is unanswered, and the outcome of the last."""

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
        """Its outcome is still pending."""
        return self.unanswered

    def begin(self, future: Future[Reply]) -> None:
        """Follow this one."""
        self._future, self.status = future, "UNDER_WAY"

    def settle(self, status: str) -> None:
        """Nothing is pending, and this is the outcome."""
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
        """``silent_ms``: NO_ANSWER when no state has reported the change's outcome for this long."""
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
        """Follow the change to ``recipe`` that was asked for when ``state`` was the last received."""
        self._heard_s = None
        self._recipe, self._session = recipe, "" if state is None else state.session
        self.begin(future)

    def settle(self, status: str) -> None:
        super().settle(status)
        self._heard_s = None

    def follow(self, state: StationState | None, now_s: float) -> None:
        """Look at the reply and at ``state``, the last received."""
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
        """Outcome of the change according to this state; empty: not reported. What is not known to be done is not."""
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
