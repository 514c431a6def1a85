"""Two results are compared by ratio, and refused where they are of different things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.compare import Limits, compare, differences
from asperity.runtime.errors import DataError, UsageError


def report(scale: float = 1.0, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A result of 800 frames around ``scale`` x 70 ms."""
    rng = np.random.default_rng(seed)
    values = [round(us) for us in scale * 70_000 * rng.lognormal(0, 0.08, 800)]
    return {
        "benchmark": "latency",
        "machine": {"cpu": "A", "cores": 2, "governor": None},
        "conditions": {"pinned_to": None, "engine_threads": "all cores"},
        "bundle": "b1",
        "folder": "normals",
        "cases": [{"name": "sockets, 8 frames/s", "latencies_us": values}],
        **more,
    }


def test_a_slower_run_is_a_regression_and_noise_is_none() -> None:
    slower = compare(report(), report(1.1, seed=1), Limits(5.0))
    ratio = slower["cases"][0]["ratios"]["p50"]
    assert ratio["interval_95"][0] < 1.1 < ratio["interval_95"][1] and not ratio["agree"]
    assert "sockets, 8 frames/s: p50" in slower["regressions"]
    assert not compare(report(), report(1.1, seed=1), Limits(20.0))["regressions"]
    assert not compare(report(1.1), report(seed=1), Limits(5.0))["regressions"]
    same = compare(report(), report(seed=2), Limits(0.0))
    assert not [name for name in same["regressions"] if "p50" in name or "mean" in name]


def test_where_starts_differ_the_same_ratio_is_no_regression() -> None:
    """800 frames from four starts each; one measurement's starts happen to lie 3 % higher, but they differ by more."""

    def starts(factors: tuple[float, ...], seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        values = [round(us) for factor in factors for us in factor * 70_000 * rng.lognormal(0, 0.02, 200)]
        case = {"name": "sockets, 8 frames/s", "latencies_us": values, "frames_of_starts": [200] * 4}
        return report(cases=[case])

    first, second = starts((0.95, 1.0, 1.05, 1.0), 1), starts((1.0, 1.08, 0.97, 1.07), 2)
    assert compare(first, second, Limits(1.0))["agree"]
    for one in (first, second):
        del one["cases"][0]["frames_of_starts"]
    assert not compare(first, second, Limits(1.0))["agree"]


def test_a_run_that_refuses_more_frames_is_a_regression_however_fast() -> None:
    refusing = report(0.9, seed=1)
    refusing["cases"][0]["latency"] = {"not_judged": 3}
    assert compare(report(), refusing, Limits(5.0))["regressions"] == ["sockets, 8 frames/s: frames without a score"]


def test_a_percentile_that_the_count_cannot_carry_has_no_ratio() -> None:
    few = report()
    few["cases"][0]["latencies_us"] = few["cases"][0]["latencies_us"][:100]
    assert set(compare(few, few, Limits())["cases"][0]["ratios"]) == {"p50", "p90", "mean"}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"bundle": "b2"}, "bundle"),
        ({"machine": {"cpu": "B", "cores": 2, "governor": None}}, "processor"),
        ({"cases": [{"name": "sockets, 9 frames/s", "latencies_us": [1] * 100}]}, "9 frames/s"),
        ({"benchmark": "wire"}, "benchmark"),
        ({"conditions": {"pinned_to": [0], "engine_threads": "all cores"}}, "cores used"),
    ],
)
def test_different_things_are_not_compared_unless_forced(other: dict[str, Any], named: str) -> None:
    assert any(named in text for text in differences(report(), report(**other)))
    with pytest.raises(UsageError, match="cannot be compared"):
        compare(report(), report(**other), Limits())
    if "cases" not in other:
        assert compare(report(), report(**other), Limits(), force=True)["forced_past"]


def test_the_command_ends_with_1_past_the_stated_regression(tmp_path: Path) -> None:

    import typer

    from asperity.benchmarks.commands.compare import command

    app = typer.Typer()
    app.command()(command)
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    reports.write_result(before, report())
    reports.write_result(after, report(1.2, seed=1))
    run = CliRunner().invoke
    assert run(app, [str(before), str(after), "--regression", "5"]).exit_code == 1
    assert run(app, [str(before), str(after), "--regression", "50"]).exit_code == 0
    assert run(app, [str(after), str(before), "--regression", "5"]).exit_code == 0


def test_a_result_file_keeps_its_raw_values_beside_it_and_refuses_nan(tmp_path: Path) -> None:
    told, path = report(), tmp_path / "r.json"
    reports.write_result(path, told)
    text, raw = path.read_text(), reports.raw_of(path).read_bytes()
    assert len(text) < 1000 and '"entries":800' in text
    assert reports.read_result(path) == told
    reports.write_result(path, told)
    assert (path.read_text(), reports.raw_of(path).read_bytes()) == (text, raw), "equal reports give equal bytes"
    reports.write_result(tmp_path / "whole.json.gz", told)
    assert reports.read_result(tmp_path / "whole.json.gz") == told
    with pytest.raises(ValueError, match="JSON"):
        reports.as_text({"p50_ms": float("nan")})


def test_a_row_takes_one_line_and_what_is_longer_a_line_for_each_entry() -> None:
    rows = {"rows": [{"name": "a" * 30, "p50_ms": 1.5, "interval": [1.0, 2.0]}] * 3, "none": [], "numbers": [7] * 200}
    lines = reports.as_text(rows, row=100).splitlines()
    assert lines[2] == '  {"name": "' + "a" * 30 + '", "p50_ms": 1.5, "interval": [1.0, 2.0]},'
    assert lines[-2] == ' "numbers": [' + ", ".join(["7"] * 200) + "]" and len(lines) == 9
    assert len(reports.as_text(rows, row=40).splitlines()) == 9 + 3 * 4


def test_raw_values_that_are_missing_or_of_another_run_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    reports.write_result(path, report())
    other = report()
    other["cases"][0]["latencies_us"].pop()
    reports.write_result(tmp_path / "other.json", other)
    reports.raw_of(tmp_path / "other.json").replace(reports.raw_of(path))
    with pytest.raises(DataError, match="does not hold the 800 values"):
        reports.read_result(path)
    reports.raw_of(path).unlink()
    with pytest.raises(DataError, match="not a result file"):
        reports.read_result(path)
