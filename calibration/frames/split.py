"""Which normal frame serves what: fit 65 %, tune 10 %, calibrate 25 % (lsfa 11, "Split").

fit trains adaptors and banks, tune gives the scores' standardisation and fusion, calibrate gives the threshold and
nothing else. Frames of one part never fall into two of them. A split is a function of its arguments alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asperity.calibration.record import HeldOut, SplitName
from asperity.runtime.errors import CalibrationError

CALIBRATE_SHARE = 0.25
TUNE_SHARE = 0.10
MIN_FRAMES = 20
"""Fewer normal frames do not calibrate: their spread could not be determined."""
MIN_TUNE = 3
SEGMENT_FRAMES = 40
"""Without part ids, time is cut into segments of about this length, each split alike, so that drift meets all sets."""


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of normal frames, ascending, disjoint. With leave-one-out, ``calibrate`` equals ``fit``."""

    fit: tuple[int, ...]
    tune: tuple[int, ...]
    calibrate: tuple[int, ...]
    how: str
    """As text, for the report."""
    calibrate_parts: int
    """Parts behind the calibration frames; 0 where frames name none."""

    def name_of(self, index: int) -> SplitName:
        """The set a frame serves in first."""
        return "fit" if index in self.fit else "tune" if index in self.tune else "calibrate"


def split_frames(
    part_ids: Sequence[str], *, validation: Sequence[bool] | None = None, held_out: HeldOut = "split", seed: int = 0
) -> Split:
    """Split frames given in order of time.

    ``part_ids``: one for each frame; when all name one, parts are drawn by ``seed``, else time is cut into contiguous
    blocks. ``validation``: frames of a ``validation/good`` folder; they all go to calibrate, filled up to its share.
    ``held_out="leave_one_out"`` keeps every frame but the tuning ones for the bank (weaker: see ``threshold``).

    Raises CalibrationError when there are fewer than MIN_FRAMES frames or too few parts.
    """
    count = len(part_ids)
    if count < MIN_FRAMES:
        raise CalibrationError(
            f"{count} usable normal frames are too few to calibrate: at least {MIN_FRAMES} are needed, "
            "40 give a first threshold, 200 a good one"
        )
    named = all(part_ids)
    reserved = [i for i in range(count) if validation is not None and validation[i]]
    tune = max(MIN_TUNE, round(TUNE_SHARE * count))
    calibrate = 0 if held_out == "leave_one_out" else max(0, -int(-CALIBRATE_SHARE * count // 1) - len(reserved))
    free = [i for i in range(count) if i not in set(reserved)]
    if len(free) < tune + calibrate + MIN_FRAMES // 2:
        raise CalibrationError(
            f"{len(free)} normal frames besides {len(reserved)} validation frames are too few to learn from: "
            f"at least {tune + calibrate + MIN_FRAMES // 2} are needed"
        )
    sets = _by_part(part_ids, free, tune, calibrate, seed) if named else _by_time(free, tune, calibrate)
    how = "by part" if named else "by contiguous blocks of time (the frames name no parts)"
    if held_out == "leave_one_out":
        fit = tuple(sorted([*sets[0], *reserved]))
        return Split(fit, sets[1], fit, f"leave-one-out, tuning frames {how}", len(set(part_ids)) if named else 0)
    if reserved:
        how += f"; calibrate holds the {len(reserved)} validation frames"
    judged = tuple(sorted([*sets[2], *reserved]))
    return Split(sets[0], sets[1], judged, how, len({part_ids[i] for i in judged}) if named else 0)


Sets = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _by_time(frames: Sequence[int], tune: int, calibrate: int) -> Sets:
    """Segments of time, each cut into fit | tune | calibrate; totals are exact."""
    segments = max(1, len(frames) // SEGMENT_FRAMES)
    wanted = (len(frames) - tune - calibrate, tune, calibrate)
    sets: tuple[list[int], list[int], list[int]] = ([], [], [])
    position = 0
    for segment in range(segments):
        for members, total in zip(sets, wanted, strict=True):
            take = total * (segment + 1) // segments - total * segment // segments
            members.extend(frames[position : position + take])
            position += take
    return tuple(sets[0]), tuple(sets[1]), tuple(sets[2])


def _by_part(part_ids: Sequence[str], frames: Sequence[int], tune: int, calibrate: int, seed: int) -> Sets:
    """Whole parts in random order: calibrate is filled first, then tune; the rest is fit."""
    sizes = Counter(part_ids[i] for i in frames)
    parts = list(sizes)  # in order of first sight
    order = np.random.default_rng(seed).permutation(len(parts))
    place: dict[str, int] = {}
    filled = [0, 0, 0]
    for part in (parts[int(i)] for i in order):
        goal = 2 if filled[2] < calibrate else 1 if filled[1] < tune else 0
        place[part] = goal
        filled[goal] += sizes[part]
    if not filled[0] or not filled[1] or (calibrate and not filled[2]):
        raise CalibrationError(
            f"{len(parts)} parts with {len(frames)} frames are too few to keep parts apart in fit, tune and calibrate: "
            "provide more parts, or send frames without part_id to split them by time"
        )
    sets = [tuple(i for i in frames if place[part_ids[i]] == goal) for goal in range(3)]
    return sets[0], sets[1], sets[2]
