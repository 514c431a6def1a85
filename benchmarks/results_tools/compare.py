"""Two result files of the same benchmark: ratios with intervals, and whether the later one is slower than allowed.

The ratio is the second over the first: above 1 the second is slower. Its interval comes from a block bootstrap of the
raw latencies, and, where both measurements started their inspector several times, is widened by the differences
between starts. From one start each it holds for these two starts only, not for the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asperity.benchmarks.results_tools import statistics
from asperity.runtime.errors import DataError, UsageError

SAME = (
    ("benchmark", ("benchmark",)),
    ("processor", ("machine", "cpu")),
    ("cores", ("machine", "cores")),
    ("clock governor", ("machine", "governor")),
    ("cores used", ("conditions", "pinned_to")),
    ("bundle", ("bundle",)),
    ("frames' folder", ("folder",)),
    ("engine", ("conditions", "engine")),
    ("threads of the engine", ("conditions", "engine_threads")),
    ("size", ("size",)),
)
"""What two results must have in common, and its path in each result."""
STATISTICS = (
    ("p50", statistics.percentile_of(50)),
    ("p90", statistics.percentile_of(90)),
    ("p99", statistics.percentile_of(99)),
    ("mean", statistics.mean_of),
)
RATED = ("p50", "p99", "mean")
"""The statistics by which a run may be judged slower."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for the second run."""

    regression_percent: float | None = None
    """Largest slowdown that is not a regression; None: no judgement."""


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Reasons why two results cannot be compared, as text."""
    found = []
    for name, at in SAME:
        first, second = _look(before, at), _look(after, at)
        if first != second:
            found.append(f"{name}: {first} and {second}")
    ours, theirs = ([case["name"] for case in report.get("cases", [])] for report in (before, after))
    alone = sorted(set(ours) ^ set(theirs))
    if alone:
        found.append(f"only one of them has: {'; '.join(alone)}")
    return found


def compare(
    before: dict[str, Any], after: dict[str, Any], limits: Limits, *, force: bool = False
) -> dict[str, Any]:
    """Ratios by case. Raises UsageError on results that differ in more than their time, unless ``force``.

    A case is a regression when the ratio of a statistic is above 1 + the limit and its whole interval above 1, so that
    noise alone is not one; and when more frames got no score, which no ratio includes.
    """
    for report in (before, after):
        if "benchmark" not in report:
            raise DataError("a result does not name its benchmark; measure again with this version")
    different = differences(before, after)
    if different and not force:
        raise UsageError(f"these two cannot be compared: {'; '.join(different)}; --force compares them anyway")
    second = {case["name"]: case for case in after.get("cases", [])}
    cases = []
    for case in before.get("cases", []):
        if case["name"] in second:
            cases.append(_case(case, second[case["name"]], limits))
    if not cases:
        raise DataError("the two results have no case in common that holds raw latencies; measure again")
    return {
        "benchmark": "compare",
        "of": before["benchmark"],
        "before": _short(before),
        "after": _short(after),
        "forced_past": different,
        "regression_percent": limits.regression_percent,
        "cases": cases,
        "agree": all(ratio["agree"] for case in cases for ratio in case["ratios"].values()),
        "regressions": [f"{case['name']}: {name}" for case in cases for name in case["regressions"]],
    }


def _case(before: dict[str, Any], after: dict[str, Any], limits: Limits) -> dict[str, Any]:
    first, second = before.get("latencies_us") or [], after.get("latencies_us") or []
    ratios: dict[str, dict[str, Any]] = {}
    own = [_starts(case) for case in (before, after)]
    least = min(len(first), len(second))
    for name, statistic in STATISTICS:
        percent = float(name.removeprefix("p")) if name != "mean" else 50.0
        if least >= statistics.least_count(percent):
            ratio, low, high = statistics.ratio_interval(first, second, statistic)
            if all(len(starts) > 1 for starts in own):
                between = statistics.ratio_of_starts(own[0], own[1], statistic)
                low, high = min(low, between[0]), max(high, between[1])
            ratios[name] = {
                "ratio": round(ratio, 4), "interval_95": [round(low, 4), round(high, 4)], "agree": low <= 1 <= high,
            }  # fmt: skip
    slower = [] if limits.regression_percent is None else [
        name for name in RATED
        if name in ratios
        and ratios[name]["ratio"] > 1 + limits.regression_percent / 100
        and ratios[name]["interval_95"][0] > 1
    ]  # fmt: skip
    missing = [case.get("latency", {}).get("not_judged", 0) for case in (before, after)]
    if limits.regression_percent is not None and missing[1] > missing[0]:
        slower.append("frames without a score")
    return {
        "name": before["name"], "counts": [len(first), len(second)], "not_scored": missing, "ratios": ratios,
        "regressions": slower,
    }  # fmt: skip


def _starts(case: dict[str, Any]) -> list[list[int]]:
    """The raw latencies of each start; an older result, or one in process, has one."""
    values, starts, begin = case.get("latencies_us") or [], [], 0
    for count in case.get("frames_of_starts") or [len(values)]:
        starts.append(values[begin : begin + count])
        begin += count
    return [start for start in starts if start]


def _short(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report.get(key) for key in ("date", "commit", "bundle", "fps", "p50_ms", "p99_ms", "count")}


def _look(report: dict[str, Any], at: tuple[str, ...]) -> Any:
    found: Any = report
    for key in at:
        found = found.get(key) if isinstance(found, dict) else None
    return found
