"""Commands of ``benchmarks``."""

from __future__ import annotations

import typer

from asperity.benchmarks.commands import (
    compare,
    demo,
    evaluate,
    latency,
    paired,
    parts,
    rates,
    rubbish,
    soak,
    wire,
)


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    bench = typer.Typer(name="bench", no_args_is_help=True, help="Measure this machine; results are JSON.")
    bench.command("latency")(latency.command)
    bench.command("compare")(compare.command)
    bench.command("rates")(rates.command)
    bench.command("wire")(wire.command)
    bench.command("knn")(parts.knn)
    bench.command("points")(parts.points)
    bench.command("paired")(paired.command)
    bench.command("rubbish")(rubbish.command)
    bench.command("soak")(soak.command)
    app.add_typer(bench)
    app.command("demo")(demo.command)
    app.command("evaluate")(evaluate.command)
