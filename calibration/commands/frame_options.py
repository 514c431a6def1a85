"""Options of every command that reads normal frames, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from asperity.runtime.errors import UsageError

if TYPE_CHECKING:
    from asperity.calibration.record import CalibrateOptions

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


def chosen_options(**chosen: Any) -> CalibrateOptions:
    """The options as a command was given them. Raises UsageError for a choice that does not exist."""
    import msgspec

    from asperity.calibration.record import CalibrateOptions

    for option in msgspec.structs.fields(CalibrateOptions):
        allowed = _literals(option.type)
        if allowed and chosen.get(option.name) not in (*allowed, None):
            name = f"--{option.name.replace('_', '-')}"
            raise UsageError(f"{name} {chosen[option.name]!r} is not known; choose one of {', '.join(allowed)}")
    return msgspec.convert(chosen, CalibrateOptions)


def _literals(kind: Any) -> tuple[str, ...]:
    """The values of a Literal, also within a union with None; empty for every other type."""
    found: tuple[str, ...] = ()
    for part in get_args(kind):
        found += (part,) if isinstance(part, str) else _literals(part)
    return found
