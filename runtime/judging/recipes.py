"""Recipes: found by name, verified in a child process, opened next to the active one, shared by stations.

The child protects the line: a bundle that crashes ONNX Runtime must not crash the inspector.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from asperity.runtime.engines import Progress
from asperity.runtime.errors import AsperityError, BundleError, ConfigError
from asperity.runtime.files import shown
from asperity.runtime.frame import EngineInfo
from asperity.runtime.judging.pipeline import Recipe
from asperity.runtime.process import processors, start
from asperity.runtime.process.child import of_ours
from asperity.runtime.settings.cross_checks import check_recipe
from asperity.runtime.settings.loading import restore, save
from asperity.runtime.settings.station_toml import SCRIPT_PREFIX, StationConfig
from asperity.runtime.settings.toml_tables import Name
from asperity.runtime.text.formats import TextRefused, decode_json

if TYPE_CHECKING:
    from asperity.runtime.bundle.reader import Bundle

CHILD_NICE = 10


def describe_engine(config: StationConfig) -> EngineInfo:
    """The configured engine's name, before a recipe is open."""
    if config.engine.name == "simulated":
        from asperity.runtime.engines.simulated import SimulatedEngine

        return SimulatedEngine().describe()
    if config.engine.name == "cuda":
        return EngineInfo("cuda", f"GPU {config.engine.gpu}", config.engine.precision)
    from asperity.runtime.engines.cpu import NAME, PRECISION, processor_name

    threads = config.engine.threads or processors.usable_processors()
    return EngineInfo(NAME, f"{processor_name()}, {threads} threads", PRECISION)


def recipe_name(bundle: Path) -> str:
    """What a bundle calls its recipe. Nothing of it is trusted before ``open_recipe`` has verified the bundle.

    Raises BundleError when the folder holds no manifest with such a name.
    """

    class Named(msgspec.Struct):
        recipe: Name

    from asperity.runtime.bundle.reader import MANIFEST_FILE, read_manifest

    if not os.path.lexists(bundle / MANIFEST_FILE):
        raise BundleError(
            f"there is no bundle at {bundle}; give the folder that `asperity calibrate` or `asperity export` wrote"
        )
    try:
        return decode_json(read_manifest(bundle), Named).recipe
    except TextRefused as error:
        raise BundleError(
            f"{bundle / MANIFEST_FILE} does not name a recipe ({error}); copy the bundle again or export it again"
        ) from error


@dataclass(frozen=True, slots=True)
class Found:
    """A recipe whose bundle is verified and whose engine is not open yet."""

    identity: str
    """Two recipes of one identity are the same bundle."""
    open: Callable[[Progress], Recipe]
    """Opens the engine and proves it on the golden frames. Raises EngineError, or BundleError and its kinds."""
    older: str = ""
    """Why the bundle opens only on request, as text; empty: none newer was served."""
    serve: Callable[[], None] = lambda: None
    """To be called once the station serves the bundle. Raises BundleError where that cannot be remembered."""


def find_recipe(name: str, config: StationConfig) -> Found:
    """Find and verify the recipe that ``[recipes]`` calls ``name``.

    Raises ConfigError when there is none of this name or the bundle calls itself otherwise; BundleError and its kinds
    when the bundle does not open.
    """
    if name not in config.recipes:
        known = ", ".join(config.recipes) or "none"
        raise ConfigError(f"there is no recipe {name}; available in [recipes]: {known}")
    place = config.recipes[name]
    if config.engine.name == "simulated":
        script = place.removeprefix(SCRIPT_PREFIX) if place.startswith(SCRIPT_PREFIX) else config.engine.script
        return Found(f"{name} {script}", lambda progress: _open_simulated(name, script))
    return _find_bundle(name, Path(place), config)


def open_recipe(name: str, config: StationConfig, progress: Progress) -> Recipe:
    """Open the recipe called ``name``, with its engine proven. Raises what ``find_recipe`` and ``Found.open`` raise."""
    return find_recipe(name, config).open(progress)


def _open_simulated(name: str, script: str) -> Recipe:
    from asperity.runtime.engines.simulated import BROKEN_RECIPE, SimulatedEngine, simulated_manifest, warm

    if name == BROKEN_RECIPE:
        raise BundleError(f"recipe {name}: simulated: its bundle is damaged; prepare another recipe")
    engine = SimulatedEngine(script)
    manifest = simulated_manifest(name)
    warm(manifest)
    return Recipe(
        name=name,
        bundle="simulated",
        manifest=manifest,
        decision=manifest.decision,
        engine=engine,
        info=engine.describe(),
        golden_steps=lambda progress: iter(()),
        proven_threshold=manifest.decision.threshold,
        simulated=True,
    )


def _find_bundle(name: str, path: Path, config: StationConfig) -> Found:
    from asperity.runtime.judging.served_bundles import check_age, remember

    bundle = verified_bundle(name, path, config)
    return Found(
        bundle.digest,
        lambda progress: _open_bundle(bundle, config, progress),
        older=check_age(bundle.manifest, config),
        serve=lambda: remember(bundle.manifest, config),
    )


def verified_bundle(name: str, path: Path, config: StationConfig) -> Bundle:
    """The bundle of ``find_recipe``, verified and not opened. Raises ConfigError, BundleError and its kinds."""
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.security.signing_keys import TrustStore

    bundle = open_bundle(path, TrustStore(Path(config.engine.trust) if config.engine.trust else None))
    if bundle.manifest.recipe != name:
        raise ConfigError(
            f"[recipes] calls {path} {name!r}, the bundle calls itself {bundle.manifest.recipe!r}; use the same name"
        )
    check_recipe(name, bundle.manifest.geometry, config)
    return bundle


def _open_bundle(bundle: Bundle, config: StationConfig, progress: Progress) -> Recipe:
    from asperity.runtime.engines.opening import open_engine
    from asperity.runtime.engines.parity_gate import gate_steps, prove

    progress("verified")
    engine = open_engine(bundle, config)
    try:
        progress("opened")
        decision = prove(bundle, engine, progress)
        engine.begin_serving()
    except BaseException:
        engine.close()
        raise
    return Recipe(
        name=bundle.manifest.recipe,
        bundle=bundle.wire_id,
        manifest=bundle.manifest,
        decision=decision,
        engine=engine,
        info=engine.describe(),
        golden_steps=lambda progress: gate_steps(bundle, engine, decision, progress),
        proven_threshold=decision.threshold,
    )


@dataclass(slots=True)
class _Opened:
    """A recipe that is open, and how many stations have it."""

    identity: str
    recipe: Recipe
    holders: int = 1
    lost: bool = False


class OpenRecipes:
    """The recipes that are open in this process: stations of one bundle share one engine, with its weights and banks.

    One engine is opened at a time, so that memory need hold but one more than are active. For several threads.
    """

    def __init__(self, stations: int = 1) -> None:
        """``stations``: how many may want one opened at the same time."""
        self._stations = stations
        self._opening = threading.Lock()
        self._table = threading.Lock()
        self._opened: list[_Opened] = []

    def patience_ms(self, config: StationConfig) -> int:
        """How long opening may take, with the wait for those that other stations open."""
        return config.timing.recipe_ms * self._stations

    def open(self, name: str, config: StationConfig, *, in_child_first: bool) -> Recipe:
        """As ``open_recipe``, or the one that is open already if it is the same bundle. May take its time.

        ``in_child_first``: what is not open yet is tried in a child process before. Raises BundleError besides.
        """
        patience_s = self.patience_ms(config) / 1000
        if not self._opening.acquire(timeout=patience_s):
            raise BundleError(f"recipe {name}: other recipes were being opened for {patience_s:.0f} s; try again")
        try:
            found = find_recipe(name, config)
            recipe = self._take(found.identity)
            if recipe is None:
                if in_child_first:
                    verify_in_child(name, config)
                recipe = found.open(lambda stage: None)
                with self._table:
                    self._opened.append(_Opened(found.identity, recipe))
            try:
                found.serve()
            except BaseException:
                self.put_away(recipe)
                raise
            return dataclasses.replace(recipe, older=found.older) if found.older else recipe
        finally:
            self._opening.release()

    def put_away(self, recipe: Recipe) -> None:
        """A station has it no more; the last one closes the engine, on its own thread: it may take its time."""
        with self._table:
            for opened in self._opened:
                if opened.recipe.engine is recipe.engine:
                    opened.holders -= 1
                    if opened.holders > 0:
                        return
                    self._opened.remove(opened)
                    break
        threading.Thread(target=recipe.engine.close, name="put-away", daemon=True).start()

    def lose(self, recipe: Recipe) -> None:
        """Its engine is lost: the next request for the recipe opens it again."""
        with self._table:
            for opened in self._opened:
                opened.lost = opened.lost or opened.recipe.engine is recipe.engine

    def _take(self, identity: str) -> Recipe | None:
        with self._table:
            for opened in self._opened:
                if opened.identity == identity and not opened.lost:
                    opened.holders += 1
                    return opened.recipe
        return None


def verify_in_child(name: str, config: StationConfig) -> None:
    """Open the recipe in a child process and throw it away. Raises BundleError with what the child said."""
    timeout_s = config.timing.recipe_ms / 1000
    try:
        done = subprocess.run(
            of_ours("asperity.runtime.judging.recipes", name),
            input=save(config),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"recipe {name} was not verified within {timeout_s:.0f} s; increase [timing] recipe_ms"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise BundleError(f"recipe {name} did not open: {lines[-1]}")


def _child() -> int:
    """``asperity.runtime.judging.recipes NAME < station.json``, as a program."""
    start.begin(CHILD_NICE)
    try:
        config = restore(sys.stdin.buffer.read())
        # Room for a further recipe was asked for by the process that this one works for.
        config = replace(config, engine=replace(config.engine, recipes_in_memory=1))
        recipe = open_recipe(sys.argv[1], config, lambda stage: None)
    except AsperityError as error:
        print(shown(error), file=sys.stderr)
        return error.exit_code
    recipe.engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(_child())
