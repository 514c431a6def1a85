"""Which normal frame serves what: fit 65 %, tune 10 %, calibrate 25 % (lsfa 11, "Split").

fit trains adaptors and banks, tune gives the scores' standardisation and fusion, calibrate gives the threshold and
nothing else. Shares and least numbers count parts: frames of one part are one witness (``outcome.threshold``), and
never fall into two sets. A split is a function of its arguments alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asperity.calibration.options import HeldOut
from asperity.calibration.record import SplitName
from asperity.runtime.errors import CalibrationError

CALIBRATE_SHARE = 0.25
TUNE_SHARE = 0.10
MIN_PARTS = 20
"""Fewer normal parts do not calibrate: their spread could not be determined. A frame that names none counts as one."""
MIN_TUNE = 3
SEGMENT_PARTS = 40
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
    """Parts behind the calibration frames; 0 where frames name none and none was found to be shown twice."""

    def name_of(self, index: int) -> SplitName:
        """The set a frame serves in first."""
        return "fit" if index in self.fit else "tune" if index in self.tune else "calibrate"


def split_frames(
    part_ids: Sequence[str], *, validation: Sequence[bool] | None = None, held_out: HeldOut = "split", seed: int = 0,
    by_time: bool | None = None,
) -> Split:  # fmt: skip
    """Split frames given in order of time.

    ``part_ids``: one for each frame; an empty one is a part by itself. When all frames name one, parts are drawn by
    ``seed``, else time is cut into contiguous blocks; ``by_time`` says which where ids were found and not given.
    ``validation``: frames of a ``validation/good`` folder; they and further frames of their parts all go to calibrate,
    filled up to its share. ``held_out="leave_one_out"`` keeps every frame but the tuning ones for the bank (weaker: see
    ``threshold``).

    Raises CalibrationError when there are fewer than MIN_PARTS parts, or too few besides the validation frames'.
    """
    members: dict[str, list[int]] = {}
    for index, part in enumerate(part_ids):
        members.setdefault(part or f"\0{index}", []).append(index)
    parts = list(members.values())  # in order of first sight
    count, shared = len(parts), len(parts) < len(part_ids)
    if count < MIN_PARTS:
        shown = f"{len(part_ids)} usable normal frames" + (f" of {count} part{'s' * (count > 1)}" if shared else "")
        raise CalibrationError(
            f"{shown} are too few to calibrate: at least {MIN_PARTS} {'different parts ' if shared else ''}are needed, "
            "40 give a first threshold, 200 a good one"
        )
    named = all(part_ids) if by_time is None else not by_time
    reserved = [part for part in parts if validation is not None and any(validation[i] for i in part)]
    free = [part for part in parts if validation is None or not any(validation[i] for i in part)]
    tune = max(MIN_TUNE, round(TUNE_SHARE * count))
    calibrate = 0 if held_out == "leave_one_out" else max(0, math.ceil(CALIBRATE_SHARE * count) - len(reserved))
    if len(free) < tune + calibrate + MIN_PARTS // 2:
        what = "parts" if shared else "normal frames"
        raise CalibrationError(
            f"{len(free)} {what} besides {len(reserved)} for validation are too few to learn from: "
            f"at least {tune + calibrate + MIN_PARTS // 2} are needed"
        )
    sets = _drawn(free, tune, calibrate, seed) if named else _by_time(free, tune, calibrate)
    fit, tuned, judged = (sorted(i for part in chosen for i in part) for chosen in sets)
    how = "by part" if named else "by contiguous blocks of time (the frames name no parts)"
    told = named or shared
    if held_out == "leave_one_out":
        both = tuple(sorted([*fit, *(i for part in reserved for i in part)]))
        witnesses = len(sets[0]) + len(reserved) if told else 0
        return Split(both, tuple(tuned), both, f"leave-one-out, tuning frames {how}", witnesses)
    if reserved:
        how += f"; calibrate holds the {sum(validation or ())} validation frames"
        judged = sorted([*judged, *(i for part in reserved for i in part)])
    return Split(tuple(fit), tuple(tuned), tuple(judged), how, len(sets[2]) + len(reserved) if told else 0)


def split_further(
    part_ids: Sequence[str], roles: Sequence[SplitName | None], *, seed: int = 0, by_time: bool = True
) -> tuple[SplitName, ...]:
    """Roles of all frames where those of the earlier ones stay as they are: adaptors and reports rest on them.

    ``roles``: what each frame serves in, None for one that came later. A later frame of an earlier part joins it; the
    other later parts are shared out so that the shares of all parts come out as in ``split_frames``, without a look at
    any score.
    """
    known: dict[str, SplitName] = {}
    for part, role in zip(part_ids, roles, strict=True):
        if role is not None:
            known.setdefault(part, role)
    members: dict[str, list[int]] = {}
    for index, part in enumerate(part_ids):
        if part not in known:
            members.setdefault(part, []).append(index)
    parts, count = list(members.values()), len(known) + len(members)
    have = [list(known.values()).count(name) for name in ("tune", "calibrate")]
    calibrate = min(max(0, math.ceil(CALIBRATE_SHARE * count) - have[1]), len(parts))
    tune = min(max(0, round(TUNE_SHARE * count) - have[0]), len(parts) - calibrate)
    sets = _by_time(parts, tune, calibrate) if by_time else _drawn(parts, tune, calibrate, seed)
    names: tuple[SplitName, ...] = ("fit", "tune", "calibrate")
    found = [role or known.get(part) for part, role in zip(part_ids, roles, strict=True)]
    for name, chosen in zip(names, sets, strict=True):
        for index in (i for part in chosen for i in part):
            found[index] = name
    return tuple(role for role in found if role is not None)


Part = list[int]
"""Indices of its frames."""


def _by_time(parts: Sequence[Part], tune: int, calibrate: int) -> tuple[list[Part], list[Part], list[Part]]:
    """Segments of time, each cut into fit | tune | calibrate; totals are exact. A part stands where it was first."""
    segments = max(1, len(parts) // SEGMENT_PARTS)
    wanted = (len(parts) - tune - calibrate, tune, calibrate)
    sets: tuple[list[Part], list[Part], list[Part]] = ([], [], [])
    position = 0
    for segment in range(segments):
        for members, total in zip(sets, wanted, strict=True):
            take = total * (segment + 1) // segments - total * segment // segments
            members.extend(parts[position : position + take])
            position += take
    return sets


def _drawn(parts: Sequence[Part], tune: int, calibrate: int, seed: int) -> tuple[list[Part], list[Part], list[Part]]:
    """Parts in random order: calibrate is filled first, then tune; the rest is fit."""
    order = [parts[int(i)] for i in np.random.default_rng(seed).permutation(len(parts))]
    return order[calibrate + tune :], order[calibrate : calibrate + tune], order[:calibrate]
