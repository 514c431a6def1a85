"""The page of a latency measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asperity.benchmarks.results_tools import pages
from asperity.benchmarks.results_tools.pages import Axes, Picture
from asperity.runtime.records.slowest_frames import UNEXPLAINED


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the page of ``run_latency``'s report."""
    cases = report["cases"]
    main = cases[0]
    parts = [_verdict(case) for case in cases]
    parts += [pages.heading("Latency"), _table(cases)]
    parts += pages.figures(_pictures(report))
    parts += [pages.heading("Stages, ms (branches that run side by side overlap)"), _stage_table(cases)]
    if "overhead" in report:
        cost = report["overhead"]
        low, high = cost["paired_interval_95"]
        parts += [pages.heading("Cost of measuring"), pages.sentence(
            f"{cost['direct_us']} µs per frame, {cost['direct_percent']} % of {cost['frame_ms']} ms, counted directly; "
            f"alternating blocks with and without it: {cost['paired_percent']} % ({low} to {high})")]  # fmt: skip
    if report.get("slowest"):
        rows = [
            (f["seq"], f["total_ms"], f["late_stage"], f["longer_than_usual_ms"], f["stage_ms"])
            for f in report["slowest"]
        ]
        mean = f"on average over all frames: {pages.said(report['mean_stage_ms'])}"
        parts += [pages.heading("Slowest frames"), pages.sentence(mean, "dim"), pages.table(
            ("seq", "total ms", "late stage", "longer than usual by, ms", "stages, ms"), rows)]  # fmt: skip
    parts.append(pages.conditions_table(report))
    lead = f"{report['measured']} ({main['fps']} frames/s)."
    pages.write_page(path, f"Latency of bundle {report['bundle']}", lead, parts)


def _verdict(case: dict[str, Any]) -> str:
    windows = case["latency"]["windows"]
    count = case["latency"]["count"]
    if count < 60 or windows["stable"]:
        return ""
    told = f"the medians of its thirds differ by {windows['spread_percent']} %: {windows['p50_ms']} ms"
    return pages.sentence(f"{case['name']}: not stable, {told}", "bad")


def _table(cases: list[dict[str, Any]]) -> str:
    head = (
        "", "frames", "fps", "p50 ms", "p90", "p99", "p99.9", "max", "p99: 95 % interval", "deadline missed",
        "not scored",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for case in cases:
        for figure, name in (("latency", case["name"]), ("due_to_received", "… due to received")):
            if figure in case:
                found = case[figure]
                rows.append((
                    name, found["count"], case["fps"], found["p50_ms"], found["p90_ms"], found["p99_ms"],
                    found["p99.9_ms"], found.get("max_ms"), found["interval_95"].get("p99_ms"),
                    case["deadline_missed"], found["not_judged"],
                ))  # fmt: skip
    return pages.table(head, rows)


def _stage_table(cases: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(stage for case in cases for stage in case["stages"]))
    rows = [
        (case["name"], *(case["stages"].get(stage, {}).get("p50_ms") for stage in names))
        for case in cases
    ]  # fmt: skip
    return pages.table(("median of", *names), rows)


def _pictures(report: dict[str, Any]) -> list[Picture]:
    cases = report["cases"]
    main = cases[0]
    found = main["latency"]
    lines = {name: found[f"{name}_ms"] for name in ("p50", "p99") if found[f"{name}_ms"] is not None}

    def over_time(axes: Axes) -> None:
        values = [us / 1000 for us in main["latencies_us"]]
        pages.over_time(axes, range(1, len(values) + 1), values, "frame", "ms", **lines)

    def tails(axes: Axes) -> None:
        series: dict[str, Sequence[float]] = {
            case["name"]: [us / 1000 for us in case["latencies_us"]] for case in cases if case["load"] != "gaps"
        }
        if "due_to_received_us" in main:
            series["due to received"] = [us / 1000 for us in main["due_to_received_us"]]
        pages.distribution(axes, series, "ms")

    def stages(axes: Axes) -> None:
        values = {name: stage["p50_ms"] for name, stage in main["stages"].items() if stage["p50_ms"] is not None}
        pages.bars(axes, values, "median, ms", ("total", UNEXPLAINED))

    def jitter(axes: Axes) -> None:
        pages.counts(axes, main["jitter_ms"], "interval between two results minus the scheduled one, ms")

    pictures = [
        Picture(f"Every frame, {main['name']}.", over_time),
        Picture("Share of frames slower than the given milliseconds, on a log axis.", tails, 3.8),
        Picture(f"Stages, {main['name']}; rgb runs beside points.", stages),
        Picture("Jitter: how far the interval between two results is from the scheduled one.", jitter, 2.8),
    ]
    rated = [case for case in cases if case["load"] == "open"]
    if len({case["rate_hz"] for case in rated}) > 1:
        pictures.append(Picture("Rate against latency.", lambda axes: _rates(axes, rated)))
    gaps = [case for case in cases if case["load"] == "gaps"]
    if gaps:
        caption = "One frame after a pause of the given length: every frame, and the median."
        pictures.append(Picture(caption, lambda axes: _gaps(axes, gaps)))
    return pictures


def _rates(axes: Axes, cases: list[dict[str, Any]]) -> None:
    for path, marker in (("sockets", "o-"), ("in-process", "s--")):
        own = sorted((case for case in cases if case["path"] == path), key=lambda case: float(case["rate_hz"]))
        for name, colour in (("p50_ms", pages.BLUE), ("p99_ms", pages.RED)):
            known = [case for case in own if case["latency"][name] is not None]
            if known:
                axes.plot([case["rate_hz"] for case in known], [case["latency"][name] for case in known], marker,
                          color=colour, label=f"{path} {name.removesuffix('_ms')}")  # fmt: skip
    axes.set(xlabel="frames/s", ylabel="ms")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _gaps(axes: Axes, cases: list[dict[str, Any]]) -> None:
    for number, case in enumerate(cases):
        values = [us / 1000 for us in case["latencies_us"]]
        axes.plot([number] * len(values), values, ".", color=pages.BLUE, alpha=0.5)
        middle = sorted(values)[len(values) // 2]
        axes.plot([number - 0.2, number + 0.2], [middle, middle], color=pages.ORANGE, linewidth=2)
    axes.set_xticks(range(len(cases)), [case["name"].replace(", one frame every", "\n") for case in cases])
    axes.set(ylabel="ms")
    axes.set_ylim(bottom=0)
