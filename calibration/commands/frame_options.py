"""Options of every command that reads normal frames."""

from __future__ import annotations

from typing import Annotated

import typer

Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Leave out the normal frame of this name; repeatable (of one product)."),
]
PointUnit = Annotated[
    str | None, typer.Option(help="Unit of the points: m, mm or um; default: inferred from the depth.")
]
Invalid = Annotated[
    list[str] | None,
    typer.Option(help="Missing points as stored: Z, or X,Y,Z with * for any; repeatable. none: there are none."),
]
Background = Annotated[
    str, typer.Option(help="Background removal: auto, plane, published or none (a part that fills the view).")
]
Z = Annotated[str, typer.Option(help="What z is: auto, distance (from the camera) or height (above a table).")]
