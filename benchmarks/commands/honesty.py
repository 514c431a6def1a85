"""``asperity bench honesty``: does the stated rate of false rejects hold?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option("--json", help="the result; a picture of the same name goes beside it")],
    product: Annotated[str, typer.Option(help="of the virtual camera: bracket, nameplate or roll")] = "bracket",
    frames: Annotated[int, typer.Option(min=300, help="normal frames drawn")] = 1000,
    splits: Annotated[int, typer.Option(min=20, help="calibrations")] = 200,
    alphas: Annotated[str, typer.Option("--alpha", help="rates asked for, with commas")] = "0.02,0.05,0.1",
    cache: Annotated[Path, typer.Option(help="folder of drawn patches; may be removed")] = Path("build/honesty"),
) -> None:
    """Calibrate again and again on 200 of many normal frames and count how many of the others are rejected."""
    import json
    import shlex
    import sys

    from rich.console import Console
    from rich.table import Table

    from asperity.benchmarks.commands.options import numbers_of
    from asperity.benchmarks.results_tools.machine import commit, machine
    from asperity.benchmarks.studies.honesty import measure, plot

    report = measure(product, frames, splits, numbers_of(alphas, "--alpha"), cache)
    said = {"command": shlex.join(["asperity", *sys.argv[1:]]), "commit": commit(), "machine": machine()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**said, **report}, indent=1) + "\n")
    plot(report, out.with_suffix(".png"))
    names = ("asked", "stated", "observed", "standard_error", "above_bound")
    table = Table("mode", *names, "keeps its word", title=f"{splits} calibrations from 200 frames of {product}")
    for row in report["rows"]:
        table.add_row(row["mode"], *(f"{row[name]:.4f}" for name in names), "yes" if row["keeps_its_word"] else "no")
    Console().print(table)
