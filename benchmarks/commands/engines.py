"""``asperity bench engines`` and ``asperity bench precision``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WORK = Path("build/bench/engines")


def engines(
    profiles: Annotated[str, typer.Option(help="lite, edge, paper, with commas")] = "lite,edge,paper",
    library: Annotated[
        str, typer.Option(help="tensorrt-rtx builds without a GPU; tensorrt needs one")
    ] = "tensorrt-rtx",
    frames: Annotated[int, typer.Option(min=1, help="virtual frames that layers are compared on")] = 4,
    work: Annotated[Path, typer.Option(help="folder of derived graphs: taken from there where they are")] = WORK,
    out: Annotated[Path | None, typer.Option(help="result file")] = None,
) -> None:
    """Build real engines of every network in fp32, fp16 and int8, and compare the graphs layer by layer."""
    from rich.console import Console

    from asperity.benchmarks.commands.options import words_of
    from asperity.benchmarks.parts.engines import run_engines
    from asperity.benchmarks.results_tools import reports
    from asperity.export.commands.engines import one_of
    from asperity.runtime.engines.tensorrt.library import LibraryName, load_library

    names = words_of(profiles, ("lite", "edge", "paper"), "--profiles")
    loaded = load_library(one_of("--library", library, LibraryName))
    report = run_engines(names, frames, loaded, work, Console(stderr=True).print)
    if out is not None:
        reports.write(out, report)
    typer.echo(reports.as_text({name: one["totals"] for name, one in report["profiles"].items()}))


def precision(
    bundle: Annotated[Path, typer.Argument(help="bundle of a product of the virtual camera")],
    product: Annotated[str, typer.Option(help="the product it was calibrated for")] = "bracket",
    frames: Annotated[int, typer.Option(min=2, help="virtual frames judged, half of them with a defect")] = 100,
    size_px: Annotated[int, typer.Option(min=64, help="side of their picture, as in calibration")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="of the virtual camera")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    keys: Annotated[Path | None, typer.Option(help="key folder; default the user's")] = None,
    out: Annotated[Path | None, typer.Option(help="result file")] = None,
) -> None:
    """What fp16 and int8 do to a bundle's scores and verdicts, on the CPU by graphs that round where they round."""
    from rich.console import Console

    from asperity.benchmarks.parts.precision import PrecisionBenchmark, run_precision
    from asperity.benchmarks.results_tools import reports
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.security.signing_keys import TrustStore

    options = PrecisionBenchmark(product, frames, size_px, seed, threads)
    report = run_precision(open_bundle(bundle, TrustStore(keys)), options, Console(stderr=True).print)
    if out is not None:
        reports.write(out, report)
    typer.echo(reports.as_text(report["precisions"]))
