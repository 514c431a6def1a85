"""Statistics of a list of latencies: order statistics, their intervals, stability, slopes, ratios.

A percentile is the sample at its rank (nearest rank, no interpolation). Its interval needs no distribution: between the
two order statistics whose ranks bound a binomial count (David and Nagaraja, Order Statistics, 7.1). It holds for
independent samples; frames of one run are nearly so on a quiet machine, and the windows show when they are not.

One start of a process is one sample of what a start decides (memory layout, which core a thread gets), however many
frames it processes. So a measurement of several starts also takes each start's own percentile, and the interval is
widened to Student's over the starts where that is wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
CONFIDENCE = 0.95
WINDOWS = 3
STABLE_PERCENT = 10.0
"""Largest difference of the windows' medians, in percent of their median, in a run that is called stable."""
BATCHES = 20
"""Neighbouring samples are correlated; means over this many batches nearly are not."""
ROUNDS = 2000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks, from 1, of a percentile and of the ends of its interval."""

    low: int
    at: int
    high: int


@lru_cache(maxsize=256)
def ranks(count: int, percent: float) -> Ranks | None:
    """Ranks for ``count`` samples; None when the 95 % interval reaches beyond them."""
    if count < 1:
        return None
    share = percent / 100
    low = int(stats.binom.ppf((1 - CONFIDENCE) / 2, count, share))
    high = int(stats.binom.ppf((1 + CONFIDENCE) / 2, count, share)) + 1
    if low < 1 or high > count:
        return None
    return Ranks(low, math.ceil(round(count * share, 9)), high)


@lru_cache(maxsize=16)
def least_count(percent: float) -> int:
    """The fewest samples for which the percentile has an interval."""
    low, high = 1, 2
    while ranks(high, percent) is None:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if ranks(middle, percent) else (middle, high)
    return high


def summary(latencies_us: Sequence[int], not_judged: int = 0) -> dict[str, Any]:
    """Milliseconds: percentiles with intervals, extremes, and the medians of three windows.

    ``not_judged`` frames that were due and got no verdict count as slower than any other, so that a station cannot look
    fast by refusing. A percentile that needs more samples is None, and ``left_out`` says why.
    """
    values_us: Ints = np.sort(np.asarray(latencies_us, dtype=np.int64))
    count = values_us.size + not_judged
    figures: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}
    for percent in PERCENTILES:
        name = f"p{percent:g}_ms"
        at = ranks(count, percent)
        figures[name] = None
        if at is None:
            left_out[name] = f"needs {least_count(percent)} frames for a 95 % interval, there are {count}"
        elif at.high > values_us.size:
            left_out[name] = f"{not_judged} of {count} frames got no verdict and count as slower than any"
        else:
            low, figures[name], high = (_ms(values_us[rank - 1]) for rank in (at.low, at.at, at.high))
            intervals[name] = [low, high]
    told: dict[str, Any] = {"count": count, "not_judged": not_judged, **figures}
    if values_us.size:
        told |= {"max_ms": _ms(values_us[-1]), "min_ms": _ms(values_us[0]), "mean_ms": _ms(values_us.mean())}
        told |= {"windows": windows(latencies_us)}
    return told | {"interval_95": intervals, "left_out": left_out}


def summary_of_starts(starts_us: Sequence[Sequence[int]], not_judged: int = 0) -> dict[str, Any]:
    """``summary`` of all starts' latencies together, each interval widened by how much the starts differ.

    ``starts`` holds each start's own figures, for the percentiles that every start has enough samples for.
    """
    told = summary([us for start in starts_us for us in start], not_judged)
    own = [start for start in starts_us if len(start)]
    if len(own) < 2:
        return told
    spread: dict[str, list[float]] = {}
    for percent in PERCENTILES:
        name = f"p{percent:g}_ms"
        if name in told["interval_95"] and min(map(len, own)) * (100 - percent) >= 100:
            found = of_starts(own, percentile_of(percent))
            spread[name] = [_ms(value) for value in found]
            reach = student_reach(found) / 1000
            low, high = told["interval_95"][name]
            told["interval_95"][name] = [
                round(min(low, told[name] - reach), 3), round(max(high, told[name] + reach), 3),
            ]  # fmt: skip
    return told | {"starts": spread}


def of_starts(starts: Sequence[Sequence[int]], statistic: Callable[[Floats], Floats]) -> Floats:
    """The statistic of each start's own samples: (starts,)."""
    return np.array([statistic(np.asarray(one, dtype=np.float64)[None])[0] for one in starts])


def student_reach(values: Floats) -> float:
    """Half of Student's 95 % interval of the mean of (n,) values, n >= 2."""
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(reach)


def windows(latencies_us: Sequence[int]) -> dict[str, Any]:
    """Medians of the run's thirds in order of time, how far they differ, and whether that is within 10 %."""
    if len(latencies_us) < WINDOWS:
        return {"p50_ms": [], "spread_percent": None, "stable": False}
    medians = [float(np.median(part)) for part in np.array_split(np.asarray(latencies_us), WINDOWS)]
    spread = 100 * (max(medians) - min(medians)) / max(float(np.median(medians)), 1e-9)
    told = [_ms(median) for median in medians]
    return {"p50_ms": told, "spread_percent": round(spread, 2), "stable": spread <= STABLE_PERCENT}


@dataclass(frozen=True, slots=True)
class Slope:
    """Change per hour by least squares over batch means, and its one-sided 95 % bounds."""

    per_hour: float
    lower_95: float
    upper_95: float
    batches: int

    def told(self) -> dict[str, float | int]:
        """The value as a dictionary for a result file."""
        rounded = {name: float(f"{getattr(self, name):.4g}") for name in ("per_hour", "lower_95", "upper_95")}
        return {**rounded, "batches": self.batches}


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope | None:
    """None with fewer than 3 batches or no time between them."""
    batches = min(BATCHES, len(values))
    if batches < 3:
        return None
    x = np.array([part.mean() for part in np.array_split(np.asarray(times_s, dtype=np.float64), batches)]) / 3600
    y = np.array([part.mean() for part in np.array_split(np.asarray(values, dtype=np.float64), batches)])
    if np.ptp(x) <= 0:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    per_hour = float(dx @ dy / (dx @ dx))
    left = dy - per_hour * dx
    error = math.sqrt(float(left @ left) / (batches - 2) / float(dx @ dx))
    reach = float(stats.t.ppf(CONFIDENCE, batches - 2)) * error
    return Slope(per_hour, per_hour - reach, per_hour + reach, batches)


def ratio_interval(
    before: Sequence[int], after: Sequence[int], statistic: Callable[[Floats], Floats], seed: int = 0
) -> tuple[float, float, float]:
    """``statistic`` of ``after`` over that of ``before``: ratio, and its 95 % interval by a moving block bootstrap.

    ``statistic`` maps (rounds, n) to (rounds,). Blocks are a twentieth of a run, so that slow drift within a run
    widens the interval.
    """
    rng = np.random.default_rng(seed)
    first, second = (np.asarray(values, dtype=np.float64) for values in (before, after))
    ratio = float(statistic(second[None])[0] / statistic(first[None])[0])
    drawn = _resampled(second, statistic, rng) / _resampled(first, statistic, rng)
    low, high = interval(drawn)
    return ratio, float(low), float(high)


def bootstrap(statistic: Callable[[np.random.Generator], T], rounds: int = ROUNDS, seed: int = 0) -> list[T]:
    """``statistic`` of each round; it draws its sample from the generator, with ``times_drawn``."""
    rng = np.random.default_rng(seed)
    return [statistic(rng) for _ in range(rounds)]


def times_drawn(rng: np.random.Generator, size: int) -> Floats:
    """How often each of ``size`` things is in a sample of as many, drawn with replacement."""
    return np.bincount(rng.integers(size, size=size), minlength=size).astype(np.float64)


def interval(drawn: Any, *, skip_nan: bool = False) -> Floats:
    """The 95 % interval of a statistic of each round (rounds, ...): low and high."""
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    found: Floats = np.nanquantile(drawn, ends, axis=0) if skip_nan else np.quantile(drawn, ends, axis=0)
    return found


def ratio_of_starts(
    before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], statistic: Callable[[Floats], Floats]
) -> tuple[float, float]:
    """95 % interval of the ratio of ``after`` to ``before`` from their starts alone (at least 2 each): Welch's, of the
    logarithms."""
    logs = [np.log(of_starts(starts, statistic)) for starts in (before, after)]
    errors = [float(one.var(ddof=1)) / len(one) for one in logs]
    total = sum(errors)
    middle = float(logs[1].mean() - logs[0].mean())
    if total == 0:
        return math.exp(middle), math.exp(middle)
    freedom = total**2 / sum(error**2 / (len(one) - 1) for error, one in zip(errors, logs, strict=True))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return math.exp(middle - reach), math.exp(middle + reach)


def percentile_of(percent: float) -> Callable[[Floats], Floats]:
    """The nearest-rank percentile along the last axis."""

    def statistic(values: Floats) -> Floats:
        at = max(0, math.ceil(round(values.shape[-1] * percent / 100, 9)) - 1)
        found: Floats = np.partition(values, at, axis=-1)[..., at]
        return found

    return statistic


def mean_of(values: Floats) -> Floats:
    """The mean along the last axis."""
    found: Floats = values.mean(axis=-1)
    return found


def histogram(values: Sequence[float], bins: int = 40) -> dict[str, list[float] | list[int]]:
    """Counts between ``edges``; nothing is cut off."""
    if not len(values):
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=bins)
    return {"edges": [round(float(edge), 4) for edge in edges], "counts": [int(count) for count in counts]}


def _resampled(values: Floats, statistic: Callable[[Floats], Floats], rng: np.random.Generator) -> Floats:
    size = values.size
    block = max(1, size // BATCHES)
    blocks = math.ceil(size / block)
    found = np.empty(ROUNDS)
    step = max(1, 4_000_000 // size)
    for start in range(0, ROUNDS, step):
        rounds = min(step, ROUNDS - start)
        begins = rng.integers(0, size - block + 1, (rounds, blocks))
        picks = (begins[..., None] + np.arange(block)).reshape(rounds, -1)[:, :size]
        found[start : start + rounds] = statistic(values[picks])
    return found


def _ms(us: float) -> float:
    return round(float(us) / 1000, 3)
