"""Good frames judged by banks that hold no row of their part: what distances a part has that was never seen before.

The bank's own frames lie nearer to it than any new part, and without their own rows too far: a coreset has a row for
each of their oddities and, these taken out, none near (docs/decisions/fusion.md). So the banks are made again, without
a group of parts at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from asperity.calibration.banks.reference import OwnedBanks

FOLDS = 5
FRAMES_ENOUGH = 60
"""Folds after so many frames were judged are left out: a mean and a spread are known well enough by then."""

T = TypeVar("T")


def part_folds(frames: Sequence[int], parts: Sequence[str]) -> list[list[int]]:
    """Frames in up to FOLDS groups, no part in two of them; parts are dealt out in turn. ``parts``: of each frame."""
    place = {part: number for number, part in enumerate(dict.fromkeys(parts))}
    count = min(FOLDS, len(place))
    folds: list[list[int]] = [[] for _ in range(count)]
    for frame, part in zip(frames, parts, strict=True):
        folds[place[part] % count].append(frame)
    return folds


def judge_folds(
    frames: Sequence[int], parts: Sequence[str], fill: Callable[[list[int]], OwnedBanks],
    judge: Callable[[int, OwnedBanks], T],
) -> dict[int, T]:  # fmt: skip
    """What ``judge(frame, banks)`` says of frames by banks of ``fill(frames of all other folds)``.

    Of all frames, or of whole folds until FRAMES_ENOUGH were judged. Raises what these raise.
    """
    found: dict[int, T] = {}
    folds = part_folds(frames, parts)
    if len(folds) < 2:
        return found
    for fold in folds:
        if len(found) >= FRAMES_ENOUGH:
            break
        held_out = set(fold)
        banks = fill([frame for frame in frames if frame not in held_out])
        found |= {frame: judge(frame, banks) for frame in fold}
    return found
