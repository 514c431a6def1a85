"""Triggers whose requests failed: a good result that arrives anyway is not a pass. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

GIVEN_UP_MAX = 1024
"""Trigger ids kept of which the PLC was told that no result comes; beyond it the oldest is forgotten."""
TAKEN = frozenset({"OK", "ACCEPTED"})
PERHAPS_DONE = frozenset({"NO_ANSWER", "OTHER", "FAILED", "BASELINE"})
"""Statuses of a request that the station may have carried out anyway; with the others it said that it did not."""


@dataclass(slots=True)
class _Number:
    owed: int = 0
    """Results of given-up requests of this number that may still come."""
    again: bool = False
    """A later request of this number was taken: a result of it is to come."""


class GivenUp:
    """Numbers of triggers of which the PLC was told that no result comes: one that arrives anyway is not a pass."""

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
