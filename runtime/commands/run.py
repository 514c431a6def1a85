"""``asperity run``: the process on the line. Frames in, one result each out, until SIGTERM."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

log = logging.getLogger("asperity.station")
SIMULATED_RECIPE = "simulated"
"""What a station of the simulated engine judges by that names no recipe."""


def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to judge with; without it, wait for a recipe change.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file, station.toml.")] = None,
    station: Annotated[str | None, typer.Option(help="Override [station] name.")] = None,
    camera: Annotated[str | None, typer.Option(help="Override [station] camera.")] = None,
    triggers: Annotated[
        str | None, typer.Option(help="Override [station] triggers: free_run, software or hard_wired.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Override [engine] name: cpu, cuda or simulated.")] = None,
    script: Annotated[str | None, typer.Option(help="Override [engine] script, for the simulated engine.")] = None,
    threads: Annotated[int | None, typer.Option(help="Override [engine] threads.")] = None,
    allow_older: Annotated[
        bool | None,
        typer.Option(
            "--allow-older", help="Override [engine] allow_older: open a bundle although a newer one was served."
        ),
    ] = None,
    frames: Annotated[str | None, typer.Option(help="Override [sockets] frames.")] = None,
    results: Annotated[str | None, typer.Option(help="Override [sockets] results.")] = None,
    bulk: Annotated[str | None, typer.Option(help="Override [sockets] bulk.")] = None,
    control: Annotated[str | None, typer.Option(help="Override [sockets] control.")] = None,
    journal: Annotated[Path | None, typer.Option(help="Override [journal] path.")] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="Override [limits] deadline_ms.")] = None,
    max_age_ms: Annotated[int | None, typer.Option(help="Override [limits] max_age_ms.")] = None,
    autostart: Annotated[bool | None, typer.Option(help="Override [station] autostart.")] = None,
    insecure_lan: Annotated[bool | None, typer.Option(help="Override [sockets] insecure_lan.")] = None,
    curve: Annotated[bool | None, typer.Option("--curve/--no-curve", help="Override [security] curve.")] = None,
    keys: Annotated[Path | None, typer.Option(help="Override [security] keys, the folder of transport keys.")] = None,
    log_level: Annotated[str | None, typer.Option(help="Override [log] level.")] = None,
    log_format: Annotated[str | None, typer.Option(help="Override [log] format: text or json.")] = None,
) -> None:
    """Inspect frames from a camera and publish one result for each."""
    overrides: dict[str, dict[str, Any]] = {
        "station": {"name": station, "camera": camera, "triggers": triggers, "autostart": autostart},
        "engine": {"name": engine, "script": script, "threads": threads, "allow_older": allow_older},
        "sockets": {
            "frames": frames,
            "results": results,
            "bulk": bulk,
            "control": control,
            "insecure_lan": insecure_lan,
        },
        "security": {"curve": curve, "keys": str(keys) if keys else None},
        "journal": {"path": str(journal) if journal else None},
        "limits": {"deadline_ms": deadline_ms, "max_age_ms": max_age_ms},
        "log": {"level": log_level, "format": log_format},
    }
    serve(config, overrides, bundle)


def serve(config_path: Path | None, overrides: dict[str, dict[str, Any]], bundle: Path | None) -> None:
    """Run one inspector until SIGTERM, SIGINT or the request ``shutdown``. Raises AsperityError."""
    from asperity.runtime.errors import AsperityError, EngineLostError, UsageError
    from asperity.runtime.inspector.serving import inspect
    from asperity.runtime.judging.recipes import recipe_name
    from asperity.runtime.process.exits import end_at_once
    from asperity.runtime.settings import log_lines
    from asperity.runtime.settings.loading import load
    from asperity.runtime.settings.station_toml import SCRIPT_PREFIX, hosted

    given: dict[str, dict[str, Any]] = {
        section: {key: value for key, value in entries.items() if value is not None}
        for section, entries in overrides.items()
    }
    config = load(config_path, given)
    simulated = config.engine.name == "simulated"
    if bundle is not None:
        name = recipe_name(bundle)
        first_recipes = [name for _ in hosted(config)]
        given["recipes"] = {name: str(bundle.absolute())}
    else:
        first_recipes = [each.station.recipe or (SIMULATED_RECIPE if simulated else "") for each in hosted(config)]
        if simulated and SIMULATED_RECIPE in first_recipes:
            given["recipes"] = {SIMULATED_RECIPE: f"{SCRIPT_PREFIX}{config.engine.script}", **config.recipes}
        elif not config.recipes:
            raise UsageError(
                "there is no recipe to judge with: give a bundle, list bundles in [recipes] of station.toml, or use "
                "--engine simulated"
            )
    listed = config.recipes
    config = load(config_path, given)
    log_lines.begin(config.log)
    for name, place in given.get("recipes", {}).items():
        if listed.get(name, place) != place:
            log.warning("recipe %s is opened from %s, not from %s as [recipes] says", name, place, listed[name])
    try:
        inspect(config, first_recipes)
    except AsperityError as error:
        if config.log.format != "json":
            raise
        names = ", ".join(each.station.name for each in hosted(config))
        log.error("%s", error, extra={"ids": {"station": names, "kind": type(error).__name__}})
        if isinstance(error, EngineLostError):
            end_at_once(error.exit_code)
        raise typer.Exit(error.exit_code) from error
