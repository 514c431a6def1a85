"""``asperity evaluate``: what a method finds on a data set with known defects."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asperity.calibration.commands.frame_options import Background, Exclude, Invalid, PointUnit, Z

TABLE_COLUMNS = 120
"""A narrower terminal wraps the table rather than cutting its numbers."""

if TYPE_CHECKING:
    from asperity.benchmarks.accuracy.evaluate import Report
    from asperity.benchmarks.accuracy.material import Material
    from asperity.benchmarks.accuracy.trial import Judged


def command(
    data: Annotated[
        Path,
        typer.Argument(help="Folder of a product in the MVTec 3D-AD or Eyecandies layout, or a folder of products."),
    ],
    out: Annotated[Path, typer.Option("--json", help="Result file; an unfinished one is continued.")],
    profile: Annotated[str, typer.Option(help="Profile: lite, fast, edge or paper.")] = "lite",
    method: Annotated[
        str, typer.Option(help="Method: frozen, ifc, clc, lsfa or another row of the ablation table.")
    ] = "lsfa",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0.")] = 3,
    category: Annotated[list[str] | None, typer.Option(help="Evaluate only this product; repeatable.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Set a field of the adaptation, FIELD=VALUE; repeatable.")
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Few-shot: use only this many normal frames.")] = None,
    alpha: Annotated[float, typer.Option(help="False-reject rate of the calibrated threshold.")] = 0.05,
    aupro_thresholds: Annotated[
        int | None, typer.Option(min=2, help="Thresholds of the AUPRO (M3DM: 100); default: all, exact.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=20, help="Use at most this many normal frames per product.")] = None,
    exclude: Exclude = None,
    unit: PointUnit = None,
    invalid: Invalid = None,
    geometry: Background = "auto",
    z: Z = "auto",
    rgb_weights: Annotated[Path | None, typer.Option(help="Weights of the colour network (profile paper).")] = None,
    point_weights: Annotated[Path | None, typer.Option(help="Weights of the point network (profile paper).")] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Run the method on random weights.")] = False,
    point_bn: Annotated[
        str | None, typer.Option(help="Statistics of the mini-PointNet (profile paper): batch, running or station.")
    ] = None,
    modalities: Annotated[
        str | None,
        typer.Option(
            help="Modalities: rgb and some of points,geometry,height,descriptor, or auto; default: the profile's."
        ),
    ] = None,
    control: Annotated[bool, typer.Option(help="Run the control with random weights too.")] = True,
    pixels: Annotated[
        bool, typer.Option(help="Compute pixel figures too; without them, only image figures (faster).")
    ] = True,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for images of the best, worst and borderline frames.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Print the difference from another evaluation of the same frames, with its interval."),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder of embedded frames; can be deleted.")] = Path("build/evaluate"),
) -> None:
    """Measure how well the defects of a labelled data set are found.

    Runs a method over seeds and products, and a control with random weights. The figures are written to a JSON file.
    """
    from typing import cast, get_args

    from rich.console import Console
    from rich.progress import Progress

    from asperity.benchmarks.accuracy.compare import difference, read_report
    from asperity.benchmarks.accuracy.evaluate import EvaluateOptions, evaluate
    from asperity.benchmarks.accuracy.pictures import write_sheets
    from asperity.calibration.networks.point_mae import PointBn
    from asperity.calibration.options import chosen_options
    from asperity.runtime.errors import UsageError
    from asperity.runtime.vision.missing_points import parse_invalid

    frames = chosen_options(
        profile=profile, limit=limit, unit=unit, geometry=geometry, z=z,
        invalid=parse_invalid(invalid, none_allowed=True), exclude=tuple(exclude or ()),
    )  # fmt: skip
    if point_bn is not None and point_bn not in get_args(PointBn):
        raise UsageError(f"--point-bn {point_bn!r} is not known; give one of {', '.join(get_args(PointBn))}")
    if not 0 < alpha < 1:
        raise UsageError(f"--alpha {alpha} is not a false-reject rate; give a value between 0 and 1, such as 0.05")
    options = EvaluateOptions(
        source=data, profile=profile, method=method, seeds=seeds, categories=tuple(category or ()),
        overrides=_changes(changes or []), shots=shots, alpha=alpha, thresholds=aupro_thresholds, limit=limit,
        unit=frames.unit, invalid=frames.invalid, exclude=frames.exclude, geometry=frames.geometry, z=frames.z,
        rgb_weights=rgb_weights,
        point_weights=point_weights, control=control, pixels=pixels, random_weights=random_weights, cache=cache,
        point_bn=cast(PointBn | None, point_bn),
        modalities=None if modalities is None else tuple(modalities.replace(" ", "").split(",")),
    )  # fmt: skip
    with Progress(console=Console(markup=False, stderr=True), transient=True) as bars:
        bar = bars.add_task("evaluate", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=total)

        def draw(material: Material, seed: int, judged: Judged) -> None:
            if pictures is not None and seed == 0 and judged.maps:
                write_sheets(pictures, data, material, judged)

        said = shlex.join(["asperity", *sys.argv[1:]])
        report = evaluate(options, out, said, show, draw)
    _print(report)
    if against is not None:
        gap = difference(read_report(against), report)
        typer.echo(f"I-AUROC fg minus {against.stem}: {gap.mean:+.4f}, 95 % interval {gap.low:+.4f} to {gap.high:+.4f}")


def _changes(given: list[str]) -> dict[str, Any]:
    """``temperature=0.2`` as a field and its value. Raises UsageError."""
    from asperity.runtime.errors import UsageError
    from asperity.runtime.text.formats import TextRefused, decode_json

    fields: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"--set {text!r}: write FIELD=VALUE, for example temperature=0.2")
        try:
            fields[name] = decode_json(value.encode(), object)
        except TextRefused:
            fields[name] = value
    return fields


def _print(report: Report) -> None:
    from rich.table import Table

    from asperity.runtime.commands.tables import print_table

    names = ("i_auroc", "i_auroc_fg", "p_auroc_fg", "aupro30", "aupro30_fg", "aupro05_fg", "ap", "detected_at_5")
    table = Table("product", *names, title=f"{report.method}, {report.profile}: mean over {len(report.runs)} seeds")

    def cells(values: list[float | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{sum(known) / len(known):.4f}" if known else "-"

    for product in sorted({name for run in report.runs for name in run.products}):
        rows = [run.products[product] for run in report.runs if product in run.products]
        table.add_row(product, *(cells([getattr(row, name) for row in rows]) for name in names))
    table.add_row("mean", *(f"{report.mean[n]:.4f}" if n in report.mean else "-" for n in names))
    table.add_row("± over seeds", *(f"{report.spread[n]:.4f}" if n in report.mean else "-" for n in names))
    if report.control is not None and report.control.products:
        found = list(report.control.products.values())
        table.add_row("random weights", *(cells([getattr(row, name) for row in found]) for name in names))
    print_table(table, TABLE_COLUMNS)
