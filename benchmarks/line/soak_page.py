"""The page of a soak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asperity.benchmarks.results_tools import pages
from asperity.benchmarks.results_tools.pages import Axes, Picture

WORDS = {True: "holds", False: "FAILS", None: "undetermined"}


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the page of ``run_soak``'s report."""
    samples, windows = report["samples"], report["latency_windows"]
    from_s = report["looked_at_s"][0]
    minutes = [t / 60 for t in samples["t_s"]]

    def memory(axes: Axes) -> None:
        axes.plot(minutes, [kb / 1024 for kb in samples["pss_kb"]], color=pages.BLUE, label="PSS")
        axes.plot(minutes, [kb / 1024 for kb in samples["anonymous_kb"]], color=pages.ORANGE, label="anonymous")
        _warm(axes, from_s, "MB")
        axes.legend(frameon=False)

    def objects(axes: Axes) -> None:
        axes.plot([t / 60 for t in samples["blocks_t_s"]], samples["blocks"], color=pages.BLUE)
        _warm(axes, from_s, "Python blocks")

    def handles(axes: Axes) -> None:
        axes.step(minutes, samples["handles"], color=pages.BLUE, label="handles")
        axes.step(minutes, samples["threads"], color=pages.ORANGE, label="threads")
        axes.set_ylim(bottom=0)
        _warm(axes, from_s, "count")
        axes.legend(frameon=False)

    def latency(axes: Axes) -> None:
        pages.over_time(axes, [t / 60 for t in samples["latency_t_s"]], [us / 1000 for us in samples["latency_us"]],
                        "minutes", "arrival to result sent, ms")  # fmt: skip
        middle = [t / 60 for t in windows["t_s"]]
        axes.plot(middle, windows["p50_ms"], "o-", color=pages.ORANGE, label="p50 of a window")
        axes.plot(middle, windows["p99_ms"], "o-", color=pages.RED, label="p99 of a window")
        axes.legend(frameon=False)

    failed = report["failed"]
    verdict = f"failed: {'; '.join(failed)}" if failed else "all limits hold"
    rows = [(bar["bar"], WORDS[bar["holds"]], bar["seen"]) for bar in report["bars"]]
    pages.write_page(
        path,
        f"Soak: {report['minutes']:g} minutes at {report['rate_hz']:g} frames/s",
        f"{report['measured']}. Slopes are per hour, over the last two thirds, with one-sided 95 % bounds.",
        [
            pages.sentence(verdict, "bad" if failed else "good"),
            pages.table(("limit", "", "measured"), rows),
            pages.heading("Slopes per hour"),
            pages.table(
                ("of", "slope", "lower 95 %", "upper 95 %"),
                [(name, s["per_hour"], s["lower_95"], s["upper_95"]) for name, s in report["slopes"].items() if s],
            ),
            pages.heading("Over time"),
            *pages.figures([
                Picture("Memory of the inspector; grey: warm-up, not evaluated.", memory),
                Picture("Small Python objects (blocks of the allocator in use).", objects),
                Picture("Open handles and threads.", handles, 2.6),
                Picture("Latency of every frame, and of windows over the last two thirds.", latency),
            ]),
            pages.conditions_table(report),
        ],
    )  # fmt: skip


def _warm(axes: Axes, from_s: float, label: str) -> None:
    axes.axvspan(0, from_s / 60, color="#eef1f4", zorder=0)
    axes.set(xlabel="minutes", ylabel=label)
