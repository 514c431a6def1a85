"""``asperity run``: the process on the line. Frames in, one result each out, until SIGTERM."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from runtime.config import StationConfig

log = logging.getLogger("asperity.station")


def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="bundle to judge by; without it, wait for prepare_recipe")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="station.toml (docs/station.md)")] = None,
    station: Annotated[str | None, typer.Option(help="[station] name")] = None,
    camera: Annotated[str | None, typer.Option(help="[station] camera")] = None,
    engine: Annotated[str | None, typer.Option(help="[engine] name: cpu, cuda or simulated")] = None,
    script: Annotated[str | None, typer.Option(help="[engine] script of the simulated engine")] = None,
    threads: Annotated[int | None, typer.Option(help="[engine] threads")] = None,
    frames: Annotated[str | None, typer.Option(help="[sockets] frames")] = None,
    results: Annotated[str | None, typer.Option(help="[sockets] results")] = None,
    bulk: Annotated[str | None, typer.Option(help="[sockets] bulk")] = None,
    control: Annotated[str | None, typer.Option(help="[sockets] control")] = None,
    journal: Annotated[Path | None, typer.Option(help="[journal] path")] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="[limits] deadline_ms")] = None,
    max_age_ms: Annotated[int | None, typer.Option(help="[limits] max_age_ms")] = None,
    autostart: Annotated[bool | None, typer.Option(help="[station] autostart")] = None,
    insecure_lan: Annotated[bool | None, typer.Option(help="[sockets] insecure_lan")] = None,
    curve: Annotated[bool | None, typer.Option("--curve/--no-curve", help="[security] curve")] = None,
    keys: Annotated[Path | None, typer.Option(help="[security] keys, the folder of transport keys")] = None,
    log_level: Annotated[str | None, typer.Option(help="[log] level")] = None,
    log_format: Annotated[str | None, typer.Option(help="[log] format: text or json")] = None,
) -> None:
    """Inspect: take frames in over ZeroMQ and give one result for each."""
    overrides: dict[str, dict[str, Any]] = {
        "station": {"name": station, "camera": camera, "autostart": autostart},
        "engine": {"name": engine, "script": script, "threads": threads},
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
    from runtime import log_lines
    from runtime.config import load
    from runtime.errors import AsperityError, UsageError
    from runtime.recipes import recipe_name

    given: dict[str, dict[str, Any]] = {
        section: {key: value for key, value in entries.items() if value is not None}
        for section, entries in overrides.items()
    }
    config = load(config_path, given)
    first_recipe = config.station.recipe
    if bundle is not None:
        first_recipe = recipe_name(bundle)
        given["recipes"] = {first_recipe: str(bundle.absolute())}
        config = load(config_path, given)
    elif config.engine.name == "simulated" and not first_recipe:
        first_recipe = "simulated"
        given["recipes"] = {first_recipe: f"script:{config.engine.script}", **config.recipes}
        config = load(config_path, given)
    elif not config.recipes:
        raise UsageError(
            "nothing to judge by: give a bundle, name some in [recipes] of station.toml, or --engine simulated"
        )
    log_lines.begin(config.log)
    try:
        inspect(config, first_recipe)
    except AsperityError as error:
        if config.log.format != "json":
            raise
        log.error("%s", error, extra={"ids": {"station": config.station.name, "kind": type(error).__name__}})
        raise typer.Exit(error.exit_code) from error


def inspect(config: StationConfig, first_recipe: str) -> None:
    """The inspector of one station until it is told to end. For the main thread. Raises AsperityError."""
    from threadpoolctl import threadpool_limits

    from runtime.config import journal_path
    from runtime.inspector import Inspector
    from runtime.journal import Journal
    from runtime.sockets import DeskSockets

    # The small products outside the engine (maps) lose more to waking a thread pool than they gain; an engine takes the
    # threads it wants while it scores.
    threadpool_limits(limits=1, user_api="blas")
    ring = Journal.open(
        journal_path(config),
        config.station.name,
        slots=config.journal.slots,
        first_id=config.journal.first_id,
        reserve_ids=config.journal.reserve_ids,
    )
    try:
        sockets = DeskSockets(config)
    except BaseException:
        ring.close()
        raise
    inspector = Inspector(config, ring, sockets)

    def end(number: int, frame: FrameType | None) -> None:
        inspector.ending = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    inspector.run(first_recipe)
