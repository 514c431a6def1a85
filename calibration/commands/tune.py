"""`asperity tune`: the sweep that chose the adaptation's defaults, once per profile (lsfa 11 row 11)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    sources: Annotated[list[Path], typer.Argument(help="Folders of normal frames, one a product.")],
    profile: Annotated[str, typer.Option(help="lite, edge or paper.")] = "lite",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file of all rows.")] = None,
    limit: Annotated[int | None, typer.Option(min=20, help="Use the first so many frames of each product.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of split, pseudo-defects and adaptation.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="All rows as one JSON array on stdout.")] = False,
) -> None:
    """Try settings of the adaptation against pseudo-defects made from normal frames, and name the best one."""
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from calibration.adaptation_config import default_config
    from calibration.profiles import profile as find_profile
    from calibration.record import CalibrateOptions
    from calibration.tune import Trial, best_config, changes, mean_figure, sweep_configs, try_config
    from calibration.tune_source import read_tune_set

    chosen = find_profile(profile)
    options = CalibrateOptions(profile=profile, limit=limit, seed=seed)
    base = msgspec.structs.replace(default_config(chosen), seed=seed)
    settings = [None, *sweep_configs(base)]
    rows: list[list[Trial]] = [[] for _ in settings]
    with Progress(console=Console(stderr=True), transient=True) as bars:
        whole = bars.add_task("settings", total=len(settings) * len(sources))
        step = bars.add_task("adapt")

        def show(what: str, done: int, total: int) -> None:
            bars.update(step, description=what, completed=done, total=total)

        for source in sources:
            tune_set = read_tune_set(source, chosen, options, show)
            for row, setting in zip(rows, settings, strict=True):
                trial, _ = try_config(tune_set, chosen, setting, show)
                row.append(trial)
                bars.advance(whole)
    everything = [trial for row in rows for trial in row]
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(everything), indent=1))
    if as_json:
        typer.echo(msgspec.json.encode(everything).decode())
        return
    typer.echo(f"{'patch':>7} {'geometry':>8} {'colour':>7} {'image':>7}  setting (AUROC, mean of {len(sources)})")
    for row in sorted(rows, key=mean_figure, reverse=True):
        config = row[0].config
        figures = (mean_figure(row, name) for name in ("patch_auroc", "geometry_auroc", "colour_auroc", "image_auroc"))
        setting_text = "frozen" if config is None else msgspec.json.encode(changes(config, base)).decode()
        typer.echo("{:7.4f} {:8.4f} {:7.4f} {:7.4f}  ".format(*figures) + setting_text)
    typer.echo(f"best: {msgspec.json.encode(best_config(rows)).decode()}")
