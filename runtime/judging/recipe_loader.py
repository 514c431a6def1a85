"""Opens a station's next recipe on a thread, while the active one serves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asperity.runtime.errors import AsperityError, BundleError
from asperity.runtime.judging.pipeline import Recipe
from asperity.runtime.judging.recipes import OpenRecipes, verified_bundle
from asperity.runtime.settings.station_toml import StationConfig


@dataclass(frozen=True, slots=True)
class Opened:
    """Outcome of opening a recipe: ``recipe``, or why not."""

    name: str
    recipe: Recipe | None = None
    error: AsperityError | None = None


class Loader:
    """Opens one recipe at a time on its own thread. ``opened`` is for the I/O thread."""

    def __init__(
        self, config: StationConfig, make_bell: Callable[[], Callable[[], None]], recipes: OpenRecipes
    ) -> None:
        self._config = config
        self._make_bell = make_bell
        self._recipes = recipes
        self._done: list[tuple[int, Opened]] = []
        self._number = 0
        self._thread: threading.Thread | None = None
        self.building = ""
        """The recipe whose networks are being built for this machine; empty: none."""

    def start(self, name: str, *, in_child_first: bool) -> None:
        """Begin to open ``name``; what an earlier start has not brought to an end is forgotten."""
        self._number += 1
        self._thread = threading.Thread(
            target=self._run, args=(self._number, name, in_child_first), name=f"recipe-{name}", daemon=True
        )
        self._thread.start()

    def end(self, timeout_s: float) -> None:
        """Forget the last start, and wait this long for a running build to end."""
        self.give_up()
        if self._thread is not None and self.building:
            self._thread.join(timeout_s)

    def opened(self) -> Opened | None:
        """Outcome of the last start, returned once."""
        while self._done:
            number, result = self._done.pop(0)
            if number == self._number:
                return result
            if result.recipe is not None:
                self.put_away(result.recipe)
        return None

    def give_up(self) -> None:
        """Forget the last start; should it still open, it is closed again."""
        self._number += 1

    @property
    def patience_ms(self) -> int:
        """Longest time from ``start`` to ``opened``."""
        engine = self._config.engine
        builds = engine.name == "cuda" and engine.build_missing
        return self._recipes.patience_ms(self._config) + (engine.build_s * 1000 if builds else 0)

    def put_away(self, recipe: Recipe) -> None:
        """The station has done with a recipe."""
        self._recipes.put_away(recipe)

    def lose(self, recipe: Recipe) -> None:
        """The recipe's engine is lost."""
        self._recipes.lose(recipe)

    def _run(self, number: int, name: str, in_child_first: bool) -> None:
        ring = self._make_bell()
        try:
            self._build_missing(number, name)
            result = Opened(name, recipe=self._recipes.open(name, self._config, in_child_first=in_child_first))
        except AsperityError as error:
            result = Opened(name, error=error)
        except Exception as error:  # noqa: BLE001 - a recipe that does not open must never end the line
            result = Opened(name, error=BundleError(f"recipe {name}: {type(error).__name__}: {error}"))
        self._done.append((number, result))
        ring()

    def _build_missing(self, number: int, name: str) -> None:
        """With ``[engine] build_missing``: networks that this machine lacks are built while the active engine serves.

        Outside the lock of ``OpenRecipes``, so that other stations' recipes open meanwhile.
        """
        config = self._config
        if config.engine.name != "cuda" or not config.engine.build_missing or name not in config.recipes:
            return
        from asperity.runtime.engines.tensorrt import build
        from asperity.runtime.engines.tensorrt import graphs as trt_graph
        from asperity.runtime.judging.served_bundles import check_age

        bundle = verified_bundle(name, Path(config.recipes[name]), config)
        check_age(bundle.manifest, config)
        if not trt_graph.networks_missing(bundle, config):
            return
        self.building = name
        try:
            build.build_networks(bundle.path, config, lambda: number == self._number)
        finally:
            self.building = ""
