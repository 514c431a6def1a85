"""Normal frames with points that look like missing ones: named with value, share and frames before any is learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asperity.calibration.frames.datasets import Item
from asperity.runtime.errors import CalibrationError, FrameRefused
from asperity.runtime.frame import MissingPoint, Unit
from asperity.runtime.vision.missing_points import (
    LEAST_POINTS,
    LEAST_SHARE,
    Suspect,
    find_suspects,
    option_of,
    scattered_points,
)
from asperity.runtime.vision.units import check_measured

SHOWN = 3
"""At most this many values, and names of frames for each, are listed."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


def refuse_undeclared(items: Sequence[Item], unit: Unit | None, progress: Progress, declare: str = "add") -> None:
    """Look at every frame. Raises CalibrationError where points look like missing ones and are not declared, or lie
    scattered far from the scene; DataError for unreadable files. Frames that cannot be used are left to ``prepare``.

    ``declare``: what to do with an option of `asperity calibrate`.
    """
    values: dict[MissingPoint, list[tuple[str, Suspect]]] = {}
    scattered: list[tuple[str, float]] = []
    for index, item in enumerate(items):
        frame = item.frame(seq=index)
        try:
            check_measured(frame)
            for one in find_suspects(frame, unit):
                values.setdefault(one.value, []).append((item.name, one))
            count, points = scattered_points(frame, unit)
        except FrameRefused:
            continue
        if count >= max(LEAST_POINTS, LEAST_SHARE * points):
            scattered.append((item.name, count / points))
        progress("look for missing points", index + 1, len(items))
    if values:
        ranked = sorted(values.items(), key=lambda entry: -sum(one.count for _, one in entry[1]))
        said = "; ".join(_said(found, len(items)) for _, found in ranked[:SHOWN])
        more = f"; and {len(ranked) - SHOWN} more values" if len(ranked) > SHOWN else ""
        options = " ".join(f"--invalid {option_of(value)}" for value, _ in ranked[:SHOWN])
        raise CalibrationError(
            f"points far from all others look like missing ones: {said}{more}. "
            f"If the camera means missing points, {declare} {options}; if they are measured, --invalid none"
        )
    if scattered:
        share = max(share for _, share in scattered)
        names = _names([name for name, _ in scattered], len(items))
        raise CalibrationError(
            f"up to {share:.2%} of the points lie scattered, half a view or more from every depth of the scene, "
            f"{names}; let the camera filter them, leave the frames out with --exclude, or, if they are measured, "
            f"{declare} --invalid none"
        )


def _said(found: Sequence[tuple[str, Suspect]], frames: int) -> str:
    worst = max((one for _, one in found), key=lambda one: one.count / one.points)
    return f"up to {worst}, {_names([name for name, _ in found], frames)}"


def _names(names: Sequence[str], frames: int) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"in {len(names)} of {frames} frames ({', '.join(names[:SHOWN])}{more})"
