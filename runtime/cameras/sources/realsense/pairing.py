"""Which colour picture belongs to which depth picture, and what their counts and clocks say. Pure: no SDK.

The SDK's own pairing is not used. Its aggregator completes a frameset with the last picture of a stream that is late,
so that one depth picture comes twice, each time with the colour of another exposure; and its syncer takes half a
period from metadata that old recordings and firmware give in another unit.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, NamedTuple, TypeVar

from asperity.runtime.errors import CameraLostError

COUNTER = 2**32
"""Frame counters, and the device's clock in microseconds (71.6 minutes), begin again from 0 after this many."""
PENDING_MAX = 6
"""Pictures of a stream that wait for their other half. The SDK has 16 of a stream in all."""

Picture = TypeVar("Picture")


class Half(NamedTuple, Generic[Picture]):
    """A picture of one stream."""

    stamp_us: int
    number: int
    picture: Picture


class Pair(NamedTuple, Generic[Picture]):
    """Depth and colour of one exposure."""

    depth: Half[Picture]
    colour: Half[Picture]


class Unwrapped:
    """A counter of 32 bits as one that only grows. Values may be off what is expected by less than half its range."""

    def __init__(self) -> None:
        self._last: int | None = None

    def __call__(self, value: int, grown: int = 0) -> int:
        """The number that is ``value`` modulo 2^32 and nearest to the last one plus what it should have grown by."""
        if self._last is None:
            self._last = value
        else:
            expected, half = self._last + grown, COUNTER // 2
            self._last = expected + (value - expected + half) % COUNTER - half
        return self._last


class Pairing(Generic[Picture]):
    """Puts the pictures of two streams together, each at most once. What stays alone is lost, and said."""

    def __init__(self, apart_us: float) -> None:
        """``apart_us``: the stamps of a pair differ by less than this, at most half a period."""
        self._apart_us = apart_us
        self._waiting: tuple[deque[Half[Picture]], deque[Half[Picture]]] = (deque(), deque())  # depth, colour
        self._last: list[Half[Any] | None] = [None, None]

    def add(self, half: Half[Picture], is_colour: bool) -> tuple[list[Pair[Picture]], list[str]]:
        """The pairs that are complete now, oldest first, and a sentence for each picture that stays alone.

        Raises CameraLostError for a count or a clock that went back: the camera was restarted.
        """
        name = "colour" if is_colour else "depth"
        last = self._last[is_colour]
        if last is not None:
            if half.number == last.number:
                return [], [f"{name} picture {half.number} came twice"]
            if half.number < last.number or half.stamp_us <= last.stamp_us:
                raise CameraLostError(
                    f"the camera went back in its {name} pictures, from {last.number} at {last.stamp_us} us to "
                    f"{half.number} at {half.stamp_us} us: it was restarted, or its clock was set"
                )
        self._last[is_colour] = half._replace(picture=None)  # type: ignore[arg-type]
        self._waiting[is_colour].append(half)
        return self._match()

    @property
    def waiting(self) -> int:
        """Pictures that wait for their other half."""
        return sum(map(len, self._waiting))

    def clear(self) -> None:
        """Forget the pictures that wait."""
        for waiting in self._waiting:
            waiting.clear()

    def _match(self) -> tuple[list[Pair[Picture]], list[str]]:
        pairs: list[Pair[Picture]] = []
        alone: list[str] = []
        depths, colours = self._waiting
        while depths and colours:
            apart_us = colours[0].stamp_us - depths[0].stamp_us
            if abs(apart_us) < self._apart_us:
                pairs.append(Pair(depths.popleft(), colours.popleft()))
            # Later ones of the other stream are even further away, so the earlier one stays alone.
            elif apart_us > 0:
                alone.append(_alone("depth", depths.popleft()))
            else:
                alone.append(_alone("colour", colours.popleft()))
        for name, waiting in (("depth", depths), ("colour", colours)):
            if len(waiting) > PENDING_MAX:
                alone.append(_alone(name, waiting.popleft()))
        return pairs, alone


def _alone(name: str, half: Half[Any]) -> str:
    other = "colour" if name == "depth" else "depth"
    return f"{name} picture {half.number} at {half.stamp_us} us has no {other} picture of the same exposure"


def exposed_us(stamp_us: int, frame_us: int | None, sensor_us: int | None, period_us: float) -> int:
    """Time of the middle of the exposure, by the clock of ``stamp_us``.

    ``frame_us`` and ``sensor_us``: the metadata of the readout and of the middle of the exposure, by the device's
    clock. Where they are missing, or cannot be of one picture, the stamp itself: the readout.
    """
    if frame_us is None or sensor_us is None:
        return stamp_us
    readout_us = (frame_us - sensor_us) % COUNTER
    return stamp_us - readout_us if readout_us < 2 * period_us else stamp_us


def begun_us(pair: Pair[Any], period_us: float) -> float:
    """A time that is not after the beginning of either exposure.

    A free-running exposure is at most a period long, and its stamp is of its end or of its readout, within another one.
    """
    return min(pair.depth.stamp_us, pair.colour.stamp_us) - 2 * period_us


def differences(wanted: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """Each value that a camera's settings as JSON do not have as they were written: ``name: wanted, got``.

    The parameters lie at the top or in ``parameters``; numbers may be texts on either side.
    """
    inside = wanted.get("parameters", wanted)
    there = got.get("parameters", got)
    return [
        f"{name}: wanted {value}, got {there.get(name)}"
        for name, value in inside.items()
        if isinstance(value, str | int | float) and not _same(value, there.get(name))
    ]


def _same(wanted: Any, got: Any) -> bool:
    try:
        return abs(float(wanted) - float(got)) <= 1e-6 * max(1.0, abs(float(wanted)))
    except (TypeError, ValueError):
        return str(wanted).lower() == str(got).lower()
