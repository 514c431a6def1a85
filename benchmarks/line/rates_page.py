"""The page of a search for the highest rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asperity.benchmarks.results_tools import pages
from asperity.benchmarks.results_tools.pages import Axes, Picture


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the page of ``run_rates``'s report."""
    cases, deadline_ms = report["cases"], report["deadline_ms"]

    def trials(axes: Axes) -> None:
        for case, colour in zip(cases, pages.SERIES, strict=False):
            for held, marker in ((True, "o"), (False, "x")):
                own = [t for t in case["trials"] if t["held"] == held and t["p99_or_max_ms"] is not None]
                axes.plot([t["rate_hz"] for t in own], [t["p99_or_max_ms"] for t in own], marker, color=colour,
                          label=f"{case['name']}, {'sustained' if held else 'not sustained'}")  # fmt: skip
        axes.axhline(deadline_ms, color=pages.GREY, linestyle=":", label="deadline")
        axes.set(xlabel="frames/s of all stations together", ylabel="p99 (short trials: slowest), ms")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)

    def tails(axes: Axes) -> None:
        pages.distribution(axes, {case["name"]: [us / 1000 for us in case["latencies_us"]] for case in cases}, "ms")

    rows = [
        (
            case["name"], case["held_hz"], case["a_station_hz"], case["back_to_back_hz"], case["latency"]["count"],
            case["latency"]["p50_ms"], case["latency"]["p99_ms"], case["latency"]["interval_95"].get("p99_ms"),
        )
        for case in cases
    ]  # fmt: skip
    head = ("", "held frames/s", "per station", "back to back", "frames", "p50 ms", "p99 ms", "p99: 95 % interval")
    pages.write_page(
        path,
        f"Highest rate under a deadline of {deadline_ms} ms",
        report["measured"],
        [
            pages.table(head, rows),
            *pages.figures(
                [
                    Picture("Rate against latency: every trial; crosses dropped a frame or were late.", trials, 3.8),
                    Picture("Share of frames slower than the given milliseconds, at the sustained rate.", tails, 3.6),
                ]
            ),
            pages.conditions_table(report),
        ],
    )
