"""The bundles that a station is to use, and the networks built from them for its GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asperity.runtime.doctor.findings import CUDA_ONLY, Finding, missing, no_folder, note, ok
from asperity.runtime.doctor.world import World
from asperity.runtime.errors import AsperityError, ConfigError
from asperity.runtime.settings.station_toml import SCRIPT_PREFIX, StationConfig

Digests = Mapping[str, str]
"""Of the bundles that open, by recipe."""


def check_recipes(station: StationConfig) -> tuple[Finding, Digests]:
    """Every bundle of ``[recipes]`` verified, as a station does before it opens one; golden frames are not scored."""
    from asperity.runtime.judging.recipes import find_recipe

    bundles = {name: place for name, place in station.recipes.items() if not place.startswith(SCRIPT_PREFIX)}
    if not bundles:
        return note("recipes", "no bundle is named in [recipes]; check them with --config STATION.toml"), {}
    digests: dict[str, str] = {}
    for name, place in bundles.items():
        try:
            digests[name] = find_recipe(name, station).identity
        except AsperityError as error:
            found = f"{name}: {error}"
            return missing(
                "recipes", found, f"asperity inspect {place}  # shows details and scores the golden frames"
            ), {}
    return ok("recipes", f"{', '.join(f'{name} {digest[:12]}' for name, digest in digests.items())}: verified"), digests


def check_networks(world: World, station: StationConfig, digests: Digests) -> Finding:
    """Built networks of every bundle for the GPU that the station uses. Whether they pass the gate is seen at start."""
    from asperity.runtime.engines.tensorrt.graphs import plan_cache

    gpus = world.driver().gpus[station.engine.gpu : station.engine.gpu + 1]
    if not digests or not gpus:
        why = "no GPU to build them for" if digests else "no bundle to build them of"
        return note("networks", f"not checked: {why}")
    capability = f"{gpus[0].capability[0]}.{gpus[0].capability[1]}"
    try:
        sets, unusable = plan_cache(station).survey()
    except ConfigError as error:
        return no_folder("networks", error, CUDA_ONLY)
    except AsperityError as error:
        return missing("networks", str(error), f"chmod -R go-w {station.engine.cache or 'the cache'}", CUDA_ONLY)
    built = {
        one.record.key.bundle
        for one in sets
        if one.record.key.precision == station.engine.precision
        and one.record.key.gpu is not None
        and (one.record.key.gpu.name, one.record.key.gpu.capability) == (gpus[0].name, capability)
    }
    absent = [name for name, digest in digests.items() if digest not in built]
    if absent:
        cache = f" --cache {station.engine.cache}" if station.engine.cache else ""
        places = " && ".join(
            f"asperity engines build {Path(station.recipes[name])} --precision {station.engine.precision}{cache}"
            for name in absent
        )
        damaged = f" ({len(unusable)} sets cannot be used)" if unusable else ""
        found = f"none of {', '.join(absent)} in {station.engine.precision} for {gpus[0].name}{damaged}"
        return missing("networks", found, places, CUDA_ONLY)
    return ok("networks", f"{', '.join(digests)} in {station.engine.precision} for {gpus[0].name}")
