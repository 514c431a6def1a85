"""What the commands of this package show: a spinner on stderr while they work, the figures of an export at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.status import Status
from rich.text import Text

if TYPE_CHECKING:
    from asperity.export.bundle import ExportReport

LOG_EVERY_S = 30.0
"""Between two lines of one stage where no bar can move."""


@contextlib.contextmanager
def saying() -> Iterator[Callable[[str], None]]:
    """A function that tells people what is being done; a line each where stderr is not a terminal."""
    console = Console(markup=False, stderr=True, highlight=False)
    if not console.is_terminal:
        yield console.print
        return
    with Status("", console=console) as status:
        yield lambda text: status.update(Text(text))


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, done, total) that moves a bar a stage on stderr.

    Where that is not a terminal, a line when a stage begins and one now and then while it lasts: a log of hours must
    move.
    """
    console = Console(markup=False, stderr=True, highlight=False)
    if not console.is_terminal:
        said_s: dict[str, float] = {}

        def say(stage: str, done: int, total: int) -> None:
            now_s = time.monotonic()
            if stage not in said_s:
                console.print(f"{stage} (of {total})" if total > 1 else stage)
            elif now_s - said_s[stage] > LOG_EVERY_S:
                console.print(f"{stage}: {done} of {total}")
            else:
                return
            said_s[stage] = now_s

        yield say
        return
    with Progress(console=console) as shown:
        tasks: dict[str, TaskID] = {}

        def move(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done, total=total)

        yield move


def report_told(report: ExportReport) -> dict[str, Any]:
    """An export's figures as JSON values."""
    return {
        "bundle": str(report.path),
        "digest": report.digest,
        "key_id": report.key_id,
        "nbytes": report.nbytes,
        "threshold": report.threshold,
        "frame_p50_ms": report.frame_p50_ms,
        "frame_p99_ms": report.frame_p99_ms,
        "timed_frames": report.timed_frames,
        "spoiled": dict(zip(("geometry", "colour"), report.spoiled, strict=True)) if report.spoiled else None,
        "timing_only": not report.spoiled,
        "parity": msgspec.to_builtins(report.parity),
    }


def show_export(report: ExportReport) -> None:
    """The same for people, on stdout."""
    console = Console(markup=False, highlight=False, soft_wrap=True)
    parity = report.parity.scores
    console.print(
        f"bundle     {report.path}  {report.digest[:12]}  {report.nbytes / 1e6:.1f} MB, signed by {report.key_id}"
    )
    console.print(
        f"parity     scores within {parity.largest_shift:.4f} standard deviations of torch's on {parity.frames} "
        f"frames, rank correlation {parity.rank_correlation:.5f}"
    )
    if report.spoiled:
        console.print(f"golden     ng because of: {'; '.join(report.spoiled)}")
    else:
        console.print("use        FOR TIMING ONLY: nothing shows that it sees a defect, and every frame is unknown")
    console.print(
        f"time       {report.frame_p50_ms:.0f} ms a frame (median), {report.frame_p99_ms:.0f} ms "
        f"({'p99' if report.timed_frames >= 100 else 'longest'} of {report.timed_frames})"
    )
