"""`asperity pretrain-points`: make the small point encoder's weights again, or better ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the weights and their record.")],
    seed: Annotated[int, typer.Option(min=0, help="Of clouds, weights and batches.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; the default made what ships.")] = None,
    clouds: Annotated[int | None, typer.Option(min=16, help="Different clouds to train on.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; results are equal only for equal numbers.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The record as JSON on stdout.")] = False,
) -> None:
    """Train `points_lite` on procedurally made clouds and check it against an untrained encoder."""
    from dataclasses import replace

    import msgspec
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from calibration.point_probe import ProbeConfig
    from calibration.pretrain_points import PretrainConfig
    from calibration.pretrain_run import check_figures, pretrain
    from runtime.errors import CalibrationError

    torch.set_num_threads(threads)
    config = PretrainConfig(seed=seed)
    config = replace(config, steps=steps or config.steps, clouds=clouds or config.clouds)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("clouds", total=config.clouds)
        record = pretrain(
            output, config, ProbeConfig(),
            lambda what, done, total: bars.update(bar, description=what, completed=done, total=total),
        )  # fmt: skip
    if as_json:
        typer.echo(msgspec.json.encode(record).decode())
    else:
        trained, control = record["probe"]["auroc_trained"], record["probe"]["auroc_untrained"]
        typer.echo(f"{'':24}{'trained':>9}{'untrained':>11}")
        for name in ("surface", "metric", "chamfer"):
            row = (record["held_out"][side][name] for side in ("trained", "untrained"))
            typer.echo("{:24}{:>9.4f}{:>11.4f}".format(f"held-out {name} error", *row))
        for kind in trained:
            typer.echo(f"{'AUROC ' + kind:24}{trained[kind]:>9.4f}{control[kind]:>11.4f}")
        typer.echo(f"written to {output}, sha256 {record['sha256']}")
    if faults := check_figures(record):
        raise CalibrationError(f"these weights are not worth shipping: {'; '.join(faults)}. Train longer")
