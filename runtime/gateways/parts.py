"""Which results a gateway shows and keeps, and which of them are not a pass for what its clients requested.

A trigger whose request was refused or had no answer gives no accept. A result that was there when its trigger was sent
again belongs to the previous part. Results of a recipe other than the last one clients requested are not a pass.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from asperity.runtime.errors import StationError, WireError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.given_up import GIVEN_UP_MAX, TAKEN, GivenUp
from asperity.runtime.gateways.link import Delivered, Item
from asperity.runtime.wire import CODES, ReceivedResult, Reply


class Parts:
    """The shown item and the last results of one gateway. For one thread."""

    def __init__(self, most: int) -> None:
        """``most``: results that are kept, to be asked for by id."""
        self._most = most
        self._kept: OrderedDict[int, Delivered] = OrderedDict()
        self._shown: Item | None = None
        self._given_up = GivenUp()
        self._owed: OrderedDict[int, None] = OrderedDict()  # triggers that were taken, whose result is to come
        self._unanswered: list[tuple[int, Future[Reply]]] = []  # bounded by the link's requests_max
        self.recipe = ""
        """The recipe that a client asked for last: only its results pass. Empty: none was asked for."""

    @property
    def shown(self) -> Item | None:
        """The item whose tags are shown; its ``accept`` is false if it is not a pass."""
        self._settle()
        return self._shown

    def given_again(self, trigger_id: int) -> None:
        """A client gives this trigger: what has come under its id is of another part, and is not a pass from now on."""
        if trigger_id:
            self._refuse(lambda result: result.trigger_id == trigger_id)

    def triggered(self, trigger_id: int, future: Future[Reply]) -> None:
        """The station was asked for this trigger, which is not 0."""
        self.given_again(trigger_id)
        self._unanswered.append((trigger_id, future))
        self._settle()

    def asked_for(self, recipe: str) -> None:
        """A client asked for this recipe."""
        self.recipe = recipe
        self._refuse(self._of_another_recipe)

    def waits(self, item: Item) -> bool:
        """A trigger's result is not shown before its request was answered: it may be that none would come."""
        self._settle()
        asked = {trigger_id for trigger_id, _ in self._unanswered}
        return isinstance(item, Delivered) and item.result.trigger_id in asked

    def show(self, item: Item) -> Item:
        """The next one, in order. What is shown and kept of it."""
        if isinstance(item, Delivered):
            result = item.result
            self._owed.pop(result.trigger_id, None)
            given_up = result.verdict == Verdict.OK and self._given_up.refused(result.trigger_id)
            if given_up or self._of_another_recipe(result):
                item = replace(item, accept=False)
            self._kept[result.result_id] = item
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._shown = item
        return item

    def get(self, result_id: int) -> Delivered | None:
        """One of the kept."""
        self._settle()
        return self._kept.get(result_id)

    def ids(self, first_id: int) -> list[int]:
        """Of the kept, from ``first_id`` on, ascending."""
        return sorted(result_id for result_id in self._kept if result_id >= first_id)

    def _settle(self) -> None:
        """Take over what the station has answered."""
        for asked in [asked for asked in self._unanswered if asked[1].done()]:
            self._unanswered.remove(asked)
            trigger_id, status = asked[0], _status(asked[1])
            if trigger_id in self._owed:
                # Given again before its result came: that one is still to come, and is not this one's.
                self._given_up.answered(trigger_id, "NO_ANSWER")
            self._given_up.answered(trigger_id, status)
            if status in TAKEN:
                self._owed[trigger_id] = None
                while len(self._owed) > GIVEN_UP_MAX:
                    self._owed.popitem(last=False)
            if trigger_id in self._given_up:
                self.given_again(trigger_id)

    def _of_another_recipe(self, result: ReceivedResult) -> bool:
        return self.recipe not in ("", result.recipe)

    def _refuse(self, which: Callable[[ReceivedResult], bool]) -> None:
        """These are no longer a pass, whatever comes."""
        for result_id, item in self._kept.items():
            if item.accept and which(item.result):
                self._kept[result_id] = replace(item, accept=False)
        if isinstance(self._shown, Delivered) and which(self._shown.result):
            self._shown = replace(self._shown, accept=False)


def _status(future: Future[Reply]) -> str:
    """Of a request that has ended, as ``GivenUp`` knows it."""
    try:
        code = future.result(timeout=0).code
    except StationError:
        return "NO_ANSWER"
    except WireError:
        return "BAD_REQUEST"
    return code if code in CODES else "OTHER"
