"""`asperity tune`: the sweep that chose the adaptation's defaults, once per profile (lsfa 11 row 11)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asperity.calibration.commands.frame_options import Background, Exclude, Invalid, PointUnit, Z


def command(
    sources: Annotated[list[Path], typer.Argument(help="Folders of normal frames, one per product.")],
    profile: Annotated[str, typer.Option(help="Profile: lite, edge or paper (fast has no points to adapt).")] = "lite",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Result file (JSON), written row by row; an unfinished one is continued."),
    ] = None,
    invalid: Invalid = None,
    exclude: Exclude = None,
    limit: Annotated[int | None, typer.Option(min=20, help="Use at most this many frames per product.")] = None,
    unit: PointUnit = None,
    geometry: Background = "auto",
    z: Z = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of split, pseudo-defects and adaptation.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compare settings of the adaptation on normal frames.

    The defects are made from the normal frames.
    """
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from asperity import runtime
    from asperity.calibration.adaptation.settings import default_config
    from asperity.calibration.frames.datasets import check_exclude
    from asperity.calibration.options import chosen_options
    from asperity.calibration.profiles import profile as find_profile
    from asperity.calibration.tuning.source import networks_of, read_tune_set
    from asperity.calibration.tuning.tune import (
        Sweep,
        Trial,
        best_config,
        changes,
        continued,
        keep,
        mean_figure,
        sweep_configs,
        try_config,
    )
    from asperity.runtime.errors import DataError
    from asperity.runtime.vision.missing_points import parse_invalid

    chosen = find_profile(profile)
    options = chosen_options(
        profile=profile, limit=limit, seed=seed, unit=unit, geometry=geometry, z=z,
        invalid=parse_invalid(invalid, none_allowed=True), exclude=tuple(exclude or ()),
    )  # fmt: skip
    check_exclude(options.exclude, len(sources), "give one folder at a time, with a file for each (-o)")
    base = msgspec.structs.replace(default_config(chosen), seed=seed)
    settings = [None, *sweep_configs(base)]
    networks = networks_of(chosen)
    sweep = Sweep(
        asperity=runtime.__version__, profile=profile, weights=networks.origins, seed=seed, limit=limit, base=base,
        invalid=options.invalid, exclude=options.exclude, geometry=geometry, z=z, unit=unit,
    )
    if output is not None:
        sweep = continued(output, sweep)
    rows: list[list[Trial]] = [[] for _ in settings]
    with Progress(console=Console(markup=False, stderr=True), transient=True) as bars:
        whole = bars.add_task("settings", total=len(settings) * len(sources))
        step = bars.add_task("adapt")

        def show(what: str, done: int, total: int) -> None:
            bars.update(step, description=what, completed=done, total=total)

        for source in sources:
            tune_set = None
            for row, setting in zip(rows, settings, strict=True):
                trial = sweep.find(source.absolute().name, setting)
                if trial is None:
                    tune_set = tune_set or read_tune_set(source, chosen, networks, options, show)
                    trial, _ = try_config(tune_set, chosen, setting, show)
                    sweep = sweep.with_row(trial, tune_set)
                    if output is not None:
                        try:
                            keep(output, sweep)
                        except OSError as error:
                            raise DataError(
                                f"{output} cannot be written ({error.strerror}); name another file with -o"
                            ) from error
                row.append(trial)
                bars.advance(whole)
    if as_json:
        typer.echo(msgspec.json.encode(sweep).decode())
        return
    for origin in sweep.weights:
        typer.echo(f"{origin.network}: {'RANDOM' if origin.seeded else origin.sha256[:12]}  {origin.source}")
    typer.echo(f"{'patch':>7} {'geometry':>8} {'colour':>7} {'image':>7}  setting (AUROC, mean of {len(sources)})")
    for row in sorted(rows, key=mean_figure, reverse=True):
        config = row[0].config
        figures = (mean_figure(row, name) for name in ("patch_auroc", "geometry_auroc", "colour_auroc", "image_auroc"))
        setting_text = "frozen" if config is None else msgspec.json.encode(changes(config, base)).decode()
        typer.echo("{:7.4f} {:8.4f} {:7.4f} {:7.4f}  ".format(*figures) + setting_text)
    typer.echo(f"best: {msgspec.json.encode(best_config(rows)).decode()}")
