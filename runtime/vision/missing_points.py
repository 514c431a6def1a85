"""Missing points that a camera writes as a number: (x, y, 0), (-1, -1, -1), -32768, 65535, a far plane.

Such a value is declared (``--invalid``, the stream's ``invalid``) and never guessed. What looks like one and was not
declared is named: calibration refuses to learn from it, a station refuses the frame.

The rule (docs/decisions/missing-points.md). A flat part of a camera that rounds to whole millimetres also has one
depth in thousands of points, so that a value is not suspicious for being frequent. It is, when at least
``LEAST_SHARE`` of the points have it and

- as z: they lie farther from every other depth than half the diagonal of the view (``FAR``); or
- as x or y: they lie outside the view, a whole diagonal away from all others; or
- as x = y = z: at pixels too far apart to be neighbours that were rounded to one point; and any point that more than
  half of such pixels share, since then nothing says how wide the view is; or
- as z: it is the limit of an integer type and the lowest or highest depth (``LIMITS``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import FrameRefused, UsageError
from asperity.runtime.frame import MM_PER_UNIT, BoolArray, FloatArray, Frame, MissingPoint, Unit
from asperity.runtime.manifest import Geometry
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.units import check_measured, depth_mm, infer_unit, median_depth, points_mm

FAR = 0.5
"""A depth this share of the view's diagonal away from all others is not part of the scene."""
OUTSIDE = 1.0
"""The same for x and y, which never leave the view."""
LIMITS = tuple(
    number * scale for number in (-(2**15), 2**15 - 1, 2**16 - 1, -(2**31), 2**31 - 1, 2**32 - 1)
    for scale in (1.0, 1e-3, 1e-6)
)  # fmt: skip
"""What is stored where a depth does not fit, as it is or in a larger unit. Among heights of a few mm it lies near."""
NEAR_A_LIMIT = 0.02
"""A limit with other depths this near, as a share of the view's diagonal, may be measured."""
FEW_VALUES = 4
ALL_OF_THEM = 0.95
"""A group of points is a few values (a camera may have a number for each cause) when this share of it has them."""
LEAST_SHARE = 0.0002
LEAST_POINTS = 5
FEWEST_PAIRS, MOST_PAIRS = 50, 1000
"""Pairs of pixels that the size of the view is taken from."""
APART_SHARE = 0.05
APART_PX = 8
"""Rounded neighbours share a point; pixels farther apart than both of these do not."""
SAMPLE_POINTS = 20_000
"""A station looks at up to this many points of a frame, evenly spread: the check must not cost a deadline."""
DENSE_SHARE = 0.01
"""Depths with this share of the points in a quarter of the view's diagonal are part of the scene."""
MOST_VALUES = 16
NONE = "none"
ANY = "*"
WIDEST_UNIT: Unit = "um"
"""Where the unit cannot be derived: the one in which fewest points are beyond 100 m, and so missing anyway."""

Values = tuple[MissingPoint, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A value that looks like a missing point and was not declared."""

    value: MissingPoint
    count: int
    points: int
    """Points looked at that are not missing otherwise."""

    @property
    def option(self) -> str:
        """As ``--invalid`` takes it: ``-1``, ``-1,-1,-1`` or ``65535,*,*``."""
        return option_of(self.value)

    def __str__(self) -> str:
        numbers = zip("xyz", self.value, strict=True)
        named = [f"{axis} = {_text(number)}" for axis, number in numbers if number is not None]
        return f"{self.count / self.points:.2%} of the points have {', '.join(named)}"


def option_of(value: MissingPoint) -> str:
    """A value as ``--invalid`` takes it."""
    if value[0] is None and value[1] is None and value[2] is not None:
        return _text(value[2])
    return ",".join(ANY if number is None else _text(number) for number in value)


def parse_invalid(
    texts: Sequence[str] | None, *, none_allowed: bool = False, several: str = "repeat --invalid for several values"
) -> Values | None:
    """``--invalid``, repeated: ``Z`` or ``X,Y,Z`` with ``*`` for any; None when it was not given.

    ``none`` alone says that every point is measured (an empty tuple). Raises UsageError.
    """
    if not texts:
        return None
    form = f"give one number (z) or three (x,y,z; * for any), as stored, and {several}"
    if len(texts) > MOST_VALUES:
        raise UsageError(f"--invalid was given {len(texts)} times and may be at most {MOST_VALUES} times")
    if NONE in texts:
        if not none_allowed:
            raise UsageError("--invalid none is for calibration; here the bundle says which points are missing")
        if len(texts) > 1:
            raise UsageError("--invalid none says that no value means missing; give it alone, or the values without it")
        return ()
    values: list[MissingPoint] = []
    for text in texts:
        pieces = [piece.strip() for piece in text.split(",")]
        if len(pieces) not in (1, 3):
            raise UsageError(f"--invalid {text!r} has {len(pieces)} numbers; {form}")
        numbers = [None if piece == ANY and len(pieces) == 3 else _number(piece, text, form) for piece in pieces]
        if all(number is None for number in numbers):
            raise UsageError(f"--invalid {text!r} would make every point missing; {form}")
        x, y, z = (None, None, *numbers) if len(numbers) == 1 else numbers
        values.append((x, y, z))
    return tuple(dict.fromkeys(values))


def without_missing(frame: Frame, values: Sequence[MissingPoint]) -> Frame:
    """The frame with (0, 0, 0) or depth 0 where the stored numbers are one of ``values``; a copy if there are any."""
    if frame.xyz is not None:
        missing = np.zeros(frame.xyz.shape[:2], dtype=bool)
        for value in values:
            missing |= _equals(frame.xyz, value)
        return replace(frame, xyz=np.where(missing[..., None], np.float32(0), frame.xyz)) if missing.any() else frame
    if frame.depth is not None:
        depths = [z for _, _, z in values if z is not None]
        gone = np.isin(frame.depth.astype(np.float64), np.array(depths, np.float32).astype(np.float64))
        return replace(frame, depth=np.where(gone, frame.depth.dtype.type(0), frame.depth)) if gone.any() else frame
    return frame


def as_declared(frame: Frame, geometry: Geometry) -> Frame:
    """The frame with the recipe's missing points, where it names none of its own, missing.

    Raises FrameRefused REFUSED_DATA for a frame that cannot be used, or holds points that look like missing ones and
    are not declared, unless calibration was told that there are none.
    """
    check_measured(frame)
    if geometry.invalid and frame.invalid is None:
        (x, y, z), *others = geometry.invalid
        plain = x is None and y is None and not others
        frame = replace(frame, invalid=z) if plain else without_missing(frame, geometry.invalid)
    if geometry.invalid != ():
        found = find_suspects(frame, geometry.unit, SAMPLE_POINTS)
        if found:
            raise FrameRefused(
                Reason.REFUSED_DATA,
                f"{found[0]}, far from all others, as a missing point has; send it as the stream's invalid, or "
                f"calibrate with --invalid {found[0].option} (--invalid none if it is measured)",
            )
    return frame


def find_suspects(frame: Frame, unit: Unit | None, most_points: int | None = None) -> tuple[Suspect, ...]:
    """Values that look like missing points and are not declared, most frequent first; of a frame that can be used.

    ``most_points``: look at up to so many, evenly spread; None: at all.
    """
    seen = _Seen.of(frame, unit, most_points)
    if seen is None:
        return ()
    points = int(seen.valid.sum())
    found = [Suspect(value, int(where.sum()), points) for value, where in seen.suspects().items()]
    return tuple(sorted(found, key=lambda one: (-one.count, one.option)))


def scattered_points(frame: Frame, unit: Unit | None) -> tuple[int, int]:
    """(points that lie about half a view away from every depth of the scene and have no value in common, all points).

    Of a frame that can be used. What ``find_suspects`` names is not counted.
    """
    seen = _Seen.of(frame, unit, None)
    if seen is None:
        return 0, 0
    rest = seen.valid.copy()
    for where in seen.suspects().values():
        rest &= ~where
    depths = seen.z[rest].astype(np.float64)
    cells = np.floor((depths - depths.min(initial=0.0)) / (0.5 * FAR * seen.view_mm)).astype(np.int64)
    dense = np.bincount(cells) >= DENSE_SHARE * len(depths)
    near = np.convolve(dense, np.ones(5), mode="same")[: len(dense)] if len(dense) >= 5 else np.ones(len(dense))
    return int((near[cells] < 0.5).sum()), int(seen.valid.sum())


@dataclass(frozen=True, slots=True)
class _Seen:
    """A frame's points, or an even share of them."""

    stored: NDArray[np.generic]  # H x W x 3, or H x W of a depth picture
    points: FloatArray | None  # H x W x 3, mm; None of a depth picture
    z: FloatArray  # H x W, mm
    valid: BoolArray  # H x W
    view_mm: float
    """Diagonal of the view, at the distance of the points; infinite where it is not known, so that nothing is far."""

    @classmethod
    def of(cls, frame: Frame, unit: Unit | None, most_points: int | None) -> _Seen | None:
        """None where too few points are valid to say anything."""
        unit = frame.unit or unit or _likely_unit(frame)
        height, width = frame.shape_px
        step = 1 if most_points is None else math.ceil(math.sqrt(height * width / most_points))
        if frame.xyz is not None:
            stored = frame.xyz[::step, ::step]
            points, valid = points_mm(replace(frame, rgb=frame.rgb[::step, ::step], xyz=stored), unit)
            view = _view_mm(points[..., :2], valid)
            if int(valid.sum()) < LEAST_POINTS:
                return None
            return cls(stored, points, points[..., 2], valid, math.inf if view is None else view)
        assert frame.depth is not None
        assert frame.intrinsics is not None
        scale = MM_PER_UNIT[unit]
        depth = frame.depth[::step, ::step]
        z, valid = depth_mm(depth, frame.scale * scale, frame.offset * scale, frame.invalid)
        lens = frame.intrinsics
        if int(valid.sum()) < LEAST_POINTS or not min(lens.fx, lens.fy) > 0:
            return None
        view = float(np.median(z[valid])) * math.hypot(width / lens.fx, height / lens.fy)
        return cls(depth, None, z, valid, view) if math.isfinite(view) else None

    def suspects(self) -> dict[MissingPoint, BoolArray]:
        """Where each value is that looks like a missing point."""
        least = max(LEAST_POINTS, LEAST_SHARE * int(self.valid.sum()))
        axes = [(2, self.z, FAR)]
        if self.points is not None:
            axes += [(axis, self.points[..., axis], OUTSIDE) for axis in (0, 1)]
        seen = [
            (self.valid & (numbers == number), axis)
            for axis, numbers, share in axes
            for number in far_values(numbers[self.valid], share * self.view_mm, least)
        ]
        seen += [(where, 2) for where in self._limits(least)]
        found: dict[MissingPoint, BoolArray] = {}
        claimed = ~self.valid
        for where, axis in sorted(seen, key=lambda one: -int(one[0].sum())):  # a point is named once, by its best word
            if not (where & claimed).any():
                found[self._value(where, axis)] = where
                claimed |= where
        if self.points is not None:
            found |= self._equal_axes(~claimed, least) or self._all_one(~claimed, least)
        return found

    def _limits(self, least: float) -> list[BoolArray]:
        """Where the lowest or highest depth is the limit of a type, and no other is near."""
        if not math.isfinite(self.view_mm):
            return []
        z = self.z[self.valid]
        stored = self.stored if self.stored.ndim == 2 else self.stored[..., 2]
        found = []
        for end in (z.argmin(), z.argmax()):
            if np.isclose(np.float64(stored[self.valid][end]), LIMITS, rtol=1e-6, atol=0.0).any():
                where = self.valid & (self.z == z[end])
                near = np.abs(z - z[end]) <= NEAR_A_LIMIT * self.view_mm
                if int(where.sum()) >= least and int(near.sum()) == int(where.sum()):
                    found.append(where)
        return found

    def _all_one(self, among: BoolArray, least: float) -> dict[MissingPoint, BoolArray]:
        """The point that most pixels have, where the size of the view is not known for that."""
        if math.isfinite(self.view_mm) or not among.any():
            return {}
        where = among & (self.stored == np.median(self.stored[among].astype(np.float64), axis=0)).all(axis=2)
        return {self._value(where, 2): where} if self._lie_apart(where, least) else {}

    @staticmethod
    def _lie_apart(where: BoolArray, least: float) -> bool:
        """Are these pixels too many and too far apart to be neighbours that were rounded to one point?"""
        if int(where.sum()) < least:
            return False
        apart = math.hypot(*(int(np.ptp(pixels)) for pixels in np.nonzero(where)))
        return apart >= max(APART_PX, APART_SHARE * math.hypot(*where.shape))

    def _value(self, where: BoolArray, axis: int) -> MissingPoint:
        """What is stored there: on this axis; for z on all three, where they are the same everywhere."""
        stored = self.stored[where]
        if stored.ndim == 1:
            return None, None, _decimal(stored[0])
        if axis == 2 and (stored == stored[0]).all():
            axis = -1
        x, y, z = (_decimal(number) if axis in (index, -1) else None for index, number in enumerate(stored[0]))
        return x, y, z

    def _equal_axes(self, among: BoolArray, least: float) -> dict[MissingPoint, BoolArray]:
        """The most frequent point with x = y = z, if it is at pixels that lie apart."""
        x, y, z = np.moveaxis(self.stored, -1, 0)
        equal = among & (x == y) & (y == z)
        if int(equal.sum()) < least:
            return {}
        values, counts = np.unique(z[equal], return_counts=True)
        where = equal & (z == values[counts.argmax()])
        return {self._value(where, 2): where} if self._lie_apart(where, least) else {}


def far_values(numbers: FloatArray, gap: float, least: float) -> list[np.float32]:
    """Numbers that are, up to ``FEW_VALUES`` together, all there is within ``gap`` and occur ``least`` times each.

    The scene itself is what holds the most different numbers: a sentinel may be more frequent than measured points.
    """
    if not len(numbers) or float(np.ptp(numbers)) <= gap:
        return []  # as in nearly every frame
    ascending = np.sort(numbers)
    cuts = np.flatnonzero(np.diff(ascending) > gap) + 1
    groups = [np.unique(group, return_counts=True) for group in np.split(ascending, cuts)] if len(cuts) else []
    scene = max(range(len(groups)), key=lambda at: (len(groups[at][0]), groups[at][1].sum()), default=-1)
    found: list[np.float32] = []
    for at, (values, counts) in enumerate(groups):
        top = np.argsort(-counts, kind="stable")[:FEW_VALUES]
        top = top[counts[top] >= least]
        if at != scene and counts[top].sum() >= max(least, ALL_OF_THEM * counts.sum()):
            found.extend(values[top])
    return found


def _view_mm(across: FloatArray, valid: BoolArray) -> float | None:
    """Diagonal of the view from how far apart (x, y) pixels some way apart are; None with too few pairs of them."""
    sides: list[float] = []
    for axis, length in enumerate(valid.shape):
        for part in (8, 32):
            step = max(1, length // part)
            ahead = [slice(None), slice(None)]
            behind = [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            both = valid[tuple(ahead)] & valid[tuple(behind)]
            pairs = np.flatnonzero(both)
            if len(pairs) >= FEWEST_PAIRS:
                at = np.unravel_index(pairs[:: 1 + len(pairs) // MOST_PAIRS], both.shape)
                moved = across[tuple(ahead)][at] - across[tuple(behind)][at]
                sides.append(float(np.median(np.hypot(moved[:, 0], moved[:, 1]))) / step * length)
                break
    view = math.hypot(*sides) if len(sides) == 2 else 0.0
    return view if view > 0 and math.isfinite(view) else None


def _likely_unit(frame: Frame) -> Unit:
    depth = median_depth(frame)
    try:
        return infer_unit(depth) if math.isfinite(depth) else WIDEST_UNIT
    except FrameRefused:
        return WIDEST_UNIT


def _equals(xyz: FloatArray, value: MissingPoint) -> BoolArray:
    equal = np.ones(xyz.shape[:2], dtype=bool)
    for axis, number in enumerate(value):
        if number is not None:
            equal &= xyz[..., axis] == xyz.dtype.type(number)
    return equal


def _number(piece: str, text: str, form: str) -> float:
    try:
        number = float(piece)
    except ValueError:
        raise UsageError(f"--invalid {text!r}: {piece!r} is not a number; {form}") from None
    if not math.isfinite(number):
        raise UsageError(f"--invalid {text!r}: NaN and infinity always mean missing; leave them out")
    if abs(number) > float(np.finfo(np.float32).max):
        raise UsageError(f"--invalid {text!r}: {piece} is beyond what points are stored as (float32); {form}")
    return number


def _decimal(number: np.generic) -> float:
    """A stored number as the shortest decimal that is read back as it."""
    return float(str(number)) + 0.0  # of two zeros the one without a sign


def _text(number: float) -> str:
    return str(number).removesuffix(".0")
