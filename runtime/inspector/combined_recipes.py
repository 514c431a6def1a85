"""The recipe of a part: one of each view, changed together; a change is done only if it is done in every view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asperity.runtime.inspector.event_log import EventLog, Record
from asperity.runtime.inspector.recipe_change import DONE, UNDER_WAY, RecipeChanges
from asperity.runtime.inspector.station import Station
from asperity.runtime.records.audit import ITSELF, Actor
from asperity.runtime.states import Cause, step


class PartRecipe(NamedTuple):
    """A recipe of a part, as results name it."""

    name: str
    bundle: str
    """Empty where the views have different ones."""
    simulated: bool


class PartRecipes:
    """The recipes of one combined station's views."""

    def __init__(
        self, table: Mapping[str, Mapping[str, str]], views: Sequence[Station], notice: EventLog, record: Record
    ) -> None:
        """``table``: by the part's recipe and the view; a recipe that is not there has the same name in every view."""
        self._table = table
        self._views = views
        self.changes = RecipeChanges(notice, record)
        self._begun: dict[str, int] = {}  # view -> number of its change

    @property
    def active(self) -> PartRecipe | None:
        """The recipe by which the views judge; None: one has none, or theirs do not belong together."""
        recipes = {view.name: view.controller.recipe for view in self._views}
        found = [recipe for recipe in recipes.values() if recipe is not None]
        if len(found) < len(recipes):
            return None
        names = {name: recipe.name for name, recipe in zip(recipes, found, strict=True)}
        name = next((part for part, row in self._table.items() if row == names), "")
        if not name and len(set(names.values())) == 1:
            name = found[0].name
        bundles = {recipe.bundle for recipe in found}
        simulated = any(recipe.simulated for recipe in found)
        return PartRecipe(name, bundles.pop() if len(bundles) == 1 else "", simulated) if name else None

    @property
    def mixed(self) -> str:
        """Which recipes of views do not belong together, as text; empty: none, or one is being changed."""
        recipes = {view.name: view.controller.recipe for view in self._views}
        if self.busy or self.active is not None or None in recipes.values():
            return ""
        return ", ".join(f"{name} {recipe.name}" for name, recipe in recipes.items() if recipe is not None)

    @property
    def busy(self) -> str:
        """The change in progress at any view, as text; empty: none."""
        texts = (f"view {view.name}: {view.controller.busy}" for view in self._views if view.controller.busy)
        return next(texts, "a recipe change has not finished" if self.changes.under_way else "")

    def refusal(self, name: str) -> str:
        """Why there is no such recipe of the part; empty: there is."""
        for view in self._views:
            recipe = self._row(name)[view.name]
            if recipe not in view.config.recipes:
                known = ", ".join([*self._table, *view.config.recipes]) or "none"
                return f"there is no recipe {recipe} for view {view.name}; available: {known}"
        return ""

    def prepare(self, name: str, actor: Actor = ITSELF) -> int:
        """Open it in every view. The number of this change. Raises StateError, before anything is begun."""
        for view in self._views:
            step(view.controller.state, Cause.PREPARE_RECIPE)
        row = self._row(name)
        begun = {view.name: view.controller.prepare(row[view.name], actor) for view in self._views}
        return self._begin(name, actor, begun)

    def unprepare(self, actor: Actor = ITSELF) -> int:
        """Put it away in every view that has one. The number of this change. Raises StateError, as ``prepare``."""
        views = [view for view in self._views if view.controller.recipe is not None]
        for view in views:
            step(view.controller.state, Cause.UNPREPARE_RECIPE)
        return self._begin("", actor, {view.name: view.controller.unprepare(actor) for view in views})

    def watch(self) -> None:
        """Whether the change in progress has ended in every view."""
        if not self.changes.under_way:
            return
        ends = {}
        for view in self._views:
            last, number = view.controller.changes.last, self._begun.get(view.name)
            if number is not None and last is not None:
                ends[view.name] = (last.status, last.text) if last.number == number else ("superseded", "")
        if any(status == UNDER_WAY for status, _ in ends.values()):
            return
        bad = [f"view {name}: {text or status}" for name, (status, text) in ends.items() if status != DONE]
        if bad:
            self.changes.failed("; ".join(bad))
        else:
            self.changes.done("it is active in every view")

    def _row(self, name: str) -> Mapping[str, str]:
        return self._table.get(name) or {view.name: name for view in self._views}

    def _begin(self, name: str, actor: Actor, begun: dict[str, int]) -> int:
        self._begun = begun
        return self.changes.begin(name, actor)
