"""`asperity pretrain-points`: make the small point encoder's weights again, or better ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the weights and their record.")],
    seed: Annotated[int, typer.Option(min=0, help="Of stations, weights and order.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; the default made what ships.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; results are equal only for equal numbers.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The record as JSON on stdout.")] = False,
) -> None:
    """Train `points_lite` at made-up stations and check it against an untrained encoder and FPFH."""
    from dataclasses import replace

    import msgspec
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from asperity.calibration.pretraining.probe import SCORINGS, ProbeConfig
    from asperity.calibration.pretraining.run import check_figures, pretrain
    from asperity.calibration.pretraining.train import PretrainConfig
    from asperity.runtime.errors import CalibrationError

    torch.set_num_threads(threads)
    config = PretrainConfig(seed=seed)
    config = replace(config, steps=steps or config.steps)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("stations", total=config.steps)
        record = pretrain(
            output, config, ProbeConfig(),
            lambda what, done, total: bars.update(bar, description=what, completed=done, total=total),
        )  # fmt: skip
    if as_json:
        typer.echo(msgspec.json.encode(record).decode())
    else:
        sides = ("trained", "untrained", "fpfh")
        typer.echo(f"{'AUROC':26}" + "".join(f"{side:>11}" for side in sides))
        for scoring in SCORINGS:
            for level in ("patch", "image"):
                for kind in record["probe"]["trained"][scoring][level]:
                    row = "".join(f"{record['probe'][side][scoring][level][kind]:>11.4f}" for side in sides)
                    typer.echo(f"{f'{scoring} {level} {kind}':26}{row}")
        typer.echo(f"written to {output}, sha256 {record['sha256']}")
    if faults := check_figures(record):
        raise CalibrationError(f"these weights are not worth shipping: {'; '.join(faults)}. Train longer")
