"""``asperity bench knn | points``: single parts of the frame path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from asperity.benchmarks.parts.parts import Shape

Out = Annotated[Path | None, typer.Option(help="Result file; a page is written next to it.")]
Repeats = Annotated[int, typer.Option(min=6, help="Measured calls per step.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads; 0: one per core.")]

MOST_VALUES = 2**28
"""Of each table that a search holds in memory: 1 GiB as float32."""


def knn(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle with the memory banks to search.")] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="Search a random bank of this shape, QUERIESxROWSxCHANNELS; repeatable.")
    ] = None,
    repeats: Repeats = 100,
    threads: Threads = 0,
    out: Out = None,
) -> None:
    """Measure the nearest-neighbour search."""
    from asperity.benchmarks.parts import part_page, parts

    shapes = tuple(_shape(text) for text in shape or ())
    part_page.tell(parts.run_knn(bundle, shapes, repeats, threads or parts.cores()), out)


def points(
    bundle: Annotated[Path, typer.Argument(help="Bundle with the point branch to measure.")],
    folder: Annotated[Path, typer.Argument(help="Frames of the product, in the MVTec 3D-AD layout.")],
    repeats: Repeats = 100,
    threads: Threads = 0,
    out: Out = None,
) -> None:
    """Measure each step of the point branch."""
    from asperity.benchmarks.parts import part_page, parts

    part_page.tell(parts.run_points(bundle, folder, repeats, threads or parts.cores()), out)


def _shape(text: str) -> Shape:
    from asperity.benchmarks.parts.parts import Shape
    from asperity.runtime.errors import UsageError
    from asperity.runtime.text.numbers import whole_number

    sides = [whole_number(piece) or 0 for piece in text.lower().split("x")]
    if len(sides) != 3 or min(sides) < 1:
        raise UsageError(f"--shape {text!r}: give QUERIESxROWSxCHANNELS, for example 784x8192x152")
    queries, rows, channels = sides
    if max(queries * rows, rows * channels, queries * channels) > MOST_VALUES:
        raise UsageError(
            f"--shape {text!r} is too large: of QUERIESxROWS, ROWSxCHANNELS and QUERIESxCHANNELS, which are held in "
            f"memory, none may exceed {MOST_VALUES} values"
        )
    return Shape(*sides)
