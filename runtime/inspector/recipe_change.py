"""The last recipe change that was begun, and its outcome: exactly one of done and failed."""

from __future__ import annotations

from asperity.runtime import wire
from asperity.runtime.inspector.event_log import TEXT_MAX, EventLog, Record
from asperity.runtime.records.audit import ITSELF, Actor

UNDER_WAY, DONE, FAILED = "under_way", "done", "failed"


class RecipeChanges:
    """Counts the changes of one session. Each end is an event, never held back, and an entry of the audit file."""

    def __init__(self, notice: EventLog, record: Record) -> None:
        self.last: wire.RecipeChange | None = None
        """As every state says it; None: none was begun yet."""
        self._notice = notice
        self._record = record
        self._actor = ITSELF

    @property
    def under_way(self) -> bool:
        """One was begun and has not ended."""
        return self.last is not None and self.last.status == UNDER_WAY

    def begin(self, recipe: str, actor: Actor) -> int:
        """The number of the change to ``recipe`` (empty: to none). One still in progress has thereby failed."""
        if self.under_way:
            self.failed("another change was started before this one had finished")
        self._actor = actor
        self.last = wire.RecipeChange(self.last.number + 1 if self.last else 1, recipe, UNDER_WAY)
        return self.last.number

    def done(self, text: str) -> None:
        """The recipe (or none) is active. ``text``: for the event."""
        self._end(DONE, "", text)

    def failed(self, why: str) -> None:
        """The recipe before it stays active."""
        self._end(FAILED, why[:TEXT_MAX], why)

    def _end(self, status: str, why: str, text: str) -> None:
        assert self.last is not None and self.under_way, "a change finished that was not in progress"
        number, recipe = self.last.number, self.last.recipe
        self.last = wire.RecipeChange(number, recipe, status, why)
        failed = status == FAILED
        kind = "RECIPE" if failed else f"RECIPE {recipe}".rstrip()
        text = f"change {number} failed: {text}" if failed else text
        self._notice("alarm" if failed else "info", kind, text, actor=self._actor.text, each=True)
        self._record("recipe_change", self._actor, status, why, refused=False, number=number, recipe=recipe)
