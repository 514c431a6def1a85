"""``asperity bench compare``: two result files of one benchmark."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

REGRESSION = 1


def command(
    before: Annotated[Path, typer.Argument(help="Result file of the earlier run.")],
    after: Annotated[Path, typer.Argument(help="Result file of the later run.")],
    regression: Annotated[
        float | None,
        typer.Option(min=0, help="Percent that the later run may be slower; above it, the exit code is 1."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare different machines, bundles or rates.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the comparison to this file too.")] = None,
) -> None:
    """Compare two result files of one benchmark.

    Prints ratios, later over earlier, with 95 % intervals; above 1 the later run is slower.
    """
    from rich.table import Table

    from asperity.benchmarks.results_tools import reports
    from asperity.benchmarks.results_tools.compare import Limits, compare
    from asperity.runtime.commands.tables import print_table

    told = compare(reports.read_result(before), reports.read_result(after), Limits(regression), force=force)
    table = Table("case", "frames", "of", "ratio", "95 % interval", "")
    for case in told["cases"]:
        for name, ratio in case["ratios"].items():
            low, high = ratio["interval_95"]
            word = "REGRESSION" if name in case["regressions"] else "agree" if ratio["agree"] else "differ"
            counts = " / ".join(map(str, case["counts"]))
            table.add_row(case["name"], counts, name, f"{ratio['ratio']:.4f}", f"{low:.4f} to {high:.4f}", word)
    print_table(table)
    for difference in told["forced_past"]:
        print(f"asperity: compared, although the results differ in {difference}", file=sys.stderr)
    if out is not None:
        reports.write_result(out, {"command": shlex.join(["asperity", *sys.argv[1:]]), **told})
    if told["regressions"]:
        print(f"asperity: slower by more than {regression:g} %: {'; '.join(told['regressions'])}", file=sys.stderr)
        raise typer.Exit(REGRESSION)
