"""What `gpu.check`, `gpu.bench` and `gpu.frame` share: options, stages in separate processes, the result file.

On a GPU every stage runs in a separate process that is ended after a time limit, which also clears what a device error
leaves behind. A stage's results are in the file before the next one begins, and a later call resumes from there.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asperity.benchmarks.gpu.record import STAGE_LIMIT_S, MeasuredDevice, Record, open_device
from asperity.runtime.cuda.build import ROOT
from asperity.runtime.errors import AsperityError

PROCESS_LIMIT_S = 480.0
"""A stage that hangs is ended after this long."""
TIMED_OUT = 124
"""Exit code of a stage that was ended, as of ``timeout``."""


@dataclass(frozen=True, slots=True)
class Program:
    """A check or benchmark in stages."""

    module: str
    """``check`` of ``asperity.benchmarks.gpu.check``; its output begins with ``gpu-check``."""
    done: str
    """What it does with the device, as in "nothing was measured"."""
    record_of: Callable[[MeasuredDevice, str], Record]
    """The result file; given the device and the command line."""
    run_stage: Callable[[str, MeasuredDevice, Record], bool]
    """Run one stage and return whether it is complete and correct."""
    table: Callable[[Record], list[str]]
    """What is shown at the end."""

    @property
    def name(self) -> str:
        return f"gpu-{self.module}"


def command_line(module: str, description: str, stages_help: str) -> argparse.ArgumentParser:
    """Options common to all of them."""
    made = argparse.ArgumentParser(prog=f"python -m asperity.benchmarks.gpu.{module}", description=description)
    made.add_argument("--device", default="cuda", choices=("cuda", "cpu-shim"))
    made.add_argument("--only", action="append", default=[], metavar="STAGE", help=stages_help)
    made.add_argument("--fresh", action="store_true", help="repeat what an earlier call did")
    made.add_argument("--results", type=Path)
    made.add_argument("--limit-s", type=float, default=STAGE_LIMIT_S)
    made.add_argument("--stage", help=argparse.SUPPRESS)  # the one that this process is for
    return made


def run(
    program: Program,
    options: argparse.Namespace,
    arguments: Sequence[str] | None,
    stages: Sequence[str],
    *,
    apart: bool = True,
) -> int:
    """Run the stages; 0 only when every one is complete and correct. ``apart``: on a GPU, each in its own process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if options.stage is not None:
        stages, given = [options.stage], given[:-2]
    command = ["python", "-m", f"asperity.benchmarks.gpu.{program.module}", *given]
    try:
        device = open_device(options.device)
    except AsperityError as error:
        print(f"{program.name}: nothing was {program.done}: {error}", file=sys.stderr)
        return 1
    if apart and options.device == "cuda" and options.stage is None:
        again = [sys.executable, *command[1:], "--stage"]
        failed = [stage for stage in stages if in_own_process([*again, stage], PROCESS_LIMIT_S)]
        record = program.record_of(device, " ".join(command))
    else:
        record = program.record_of(device, " ".join(command))
        failed = [stage for stage in stages if not _run_here(program, stage, device, record)]
    if options.stage is None:
        print("\n".join(program.table(record)))
        print(f"written to {record.path}")
        told = ", ".join(failed) or "none"
        print(f"{program.name}: {len(stages) - len(failed)} of {len(stages)} stages passed; not: {told}")
    return 1 if failed or not stages else 0


def _run_here(program: Program, stage: str, device: MeasuredDevice, record: Record) -> bool:
    print(f"{program.name}: {stage}", flush=True)
    try:
        passed = program.run_stage(stage, device, record)
    except AsperityError as error:
        print(f"{program.name}: {stage}: {error}", file=sys.stderr)
        passed = False
    record.write()
    return passed


def in_own_process(command: Sequence[str], limit_s: float) -> int:
    """Its exit code. When this returns or is interrupted, nothing that it started is left."""
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def unknown_stages(program: str, asked: Sequence[str], stages: Sequence[str]) -> bool:
    """Whether an unknown stage was requested; it is then printed."""
    unknown = sorted(set(asked) - set(stages))
    if unknown:
        print(f"{program}: no such stage: {', '.join(unknown)}; there are {', '.join(stages)}", file=sys.stderr)
    return bool(unknown)
