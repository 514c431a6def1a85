"""Result file, page and terminal of a benchmark of parts: cases with raw latencies, nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asperity.benchmarks.results_tools import pages, reports
from asperity.benchmarks.results_tools.pages import Axes, Picture

RAW = "latencies_us"


def tell(report: dict[str, Any], out: Path | None) -> None:
    """Print the report without raw latencies; with ``out``, write the whole report and its page. Raises OSError."""
    if out is not None:
        reports.write_result(out, report)
        write(out.with_suffix(".html"), report)
    cases = [{key: value for key, value in case.items() if key != RAW} for case in report["cases"]]
    print(reports.as_text({**report, "cases": cases}))


def write(path: Path, report: dict[str, Any]) -> None:
    """The page."""
    cases = report["cases"]
    shown = ("name", "latency", RAW)
    more = [key for key in cases[0] if key not in shown and not isinstance(cases[0][key], (list, dict))]
    rows = [
        (
            case["name"], found["count"], found["p50_ms"], found["p90_ms"], found["p99_ms"], found.get("max_ms"),
            found["interval_95"].get("p50_ms"), found["windows"]["stable"], *(case.get(key) for key in more),
        )
        for case in cases
        for found in [case["latency"]]
    ]  # fmt: skip
    head = ("", "count", "p50 ms", "p90", "p99", "max", "p50: 95 % interval", "stable", *more)

    def tails(axes: Axes) -> None:
        pages.distribution(axes, {case["name"]: [us / 1000 for us in case[RAW]] for case in cases}, "ms")

    pages.write_page(
        path,
        f"Benchmark: {report['benchmark']}",
        report["measured"],
        [
            pages.table(head, rows),
            *pages.figures([Picture("Share slower than the given milliseconds, on a log axis.", tails, 3.8)]),
            pages.conditions_table(report),
        ],
    )
