"""``make gpu-check``: every kernel on fresh random and degenerate inputs against float64, on this machine's GPU.

Stages: one for each kernel of the registry, and ``sanitizer`` (compute-sanitizer on small inputs, where it is
installed). Each ends within 8 minutes; what was checked is kept in the result file, and the next call resumes there,
until every stage is complete. Without a GPU it exits 1.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asperity.benchmarks.gpu.harness import Program, command_line, run, unknown_stages
from asperity.benchmarks.gpu.record import MeasuredDevice, Record, name_of, results_path
from asperity.runtime.cuda.build import ROOT
from asperity.runtime.cuda.kernels import KernelEntry, Shape, registry
from asperity.runtime.errors import AsperityError

SANITIZER = "sanitizer"
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
SANITIZER_LIMIT_S = 110.0
"""For each tool."""

NOT_FOR_IT = "other chip"
"""The state of a stage whose kernel is for other chips."""


def cases(entry: KernelEntry, small_only: bool) -> Iterator[tuple[Shape, str]]:
    """Every kind on every small shape, then random inputs on the sizes that matter, then the other kinds there."""
    for kind in entry.kinds:
        for shape in entry.small:
            yield shape, kind
    if not small_only:
        for kind in entry.kinds:
            for shape in entry.shapes if kind == "random" else entry.hard or entry.shapes:
                yield shape, kind


def check_case(device: MeasuredDevice, entry: KernelEntry, shape: Shape, kind: str, seed: int) -> dict[str, Any]:
    """One kernel, one input. A failure of any kind is a problem reported, never a missing line."""
    start = time.monotonic()
    figures: dict[str, float] = {}
    lost = False
    try:
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(seed))
        prepared.enqueue()
        device.synchronize()
        problems = prepared.problems()
        figures = prepared.figures()
        prepared.enqueue()  # buffers are used again from frame to frame
        device.synchronize()
        problems += [f"second run: {problem}" for problem in prepared.problems()]
    except AsperityError as error:
        problems, lost = [str(error)], True
    spent_s = round(time.monotonic() - start, 3)
    return {"seed": seed, "problems": problems, "figures": figures, "spent_s": spent_s, "device_lost": lost}


def run_stage(device: MeasuredDevice, entry: KernelEntry, record: Record, small_only: bool, limit_s: float) -> str:
    """Check what is not checked yet; returns ``passed``, ``failed`` or ``unfinished``."""
    if not entry.runs_on(device):
        return NOT_FOR_IT
    section = record.section(f"check:{entry.name}")
    start = time.monotonic()
    unfinished = False
    for shape, kind in cases(entry, small_only):
        name = f"{kind}/{name_of(shape)}"
        if name in section and not section[name]["problems"]:
            continue
        if time.monotonic() - start > limit_s:
            unfinished = True
            break
        section[name] = check_case(device, entry, shape, kind, secrets.randbits(32))
        if section[name]["device_lost"]:  # after an error of the device, whatever follows in this process fails too
            break
        forget = getattr(device, "forget", None)
        if forget is not None:
            forget()
    record.write()
    failed = [name for name, case in section.items() if case["problems"]]
    for name in failed:
        print(f"  {entry.name} {name}: {section[name]['problems'][0]}")
    return "failed" if failed else "unfinished" if unfinished else "passed"


def run_sanitizer(record: Record, limit_s: float = SANITIZER_LIMIT_S) -> str:
    """compute-sanitizer's tools on every kernel's small inputs, each in a separate process."""
    section = record.section(SANITIZER)
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).is_file():
        section["state"] = "absent"
        record.write()
        return "absent"
    for tool in SANITIZER_TOOLS:
        if section.get(tool, {}).get("passed"):
            continue
        inner = [sys.executable, "-m", "asperity.benchmarks.gpu.check", "--small", "--fresh", "--no-sanitizer"]
        out = record.path.with_name(f"sanitizer-{tool}.json")
        command = [program, "--tool", tool, "--error-exitcode", "9", *inner, "--results", str(out)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
            said, code = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired:
            said, code = f"did not end within {limit_s:.0f} s", 124
        section[tool] = {"passed": code == 0, "exit": code, "said": "" if code == 0 else said[-3000:]}
        out.unlink(missing_ok=True)
        record.write()
    section["state"] = "passed" if all(section[tool]["passed"] for tool in SANITIZER_TOOLS) else "failed"
    record.write()
    return str(section["state"])


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 only when every requested stage is complete and correct."""
    parser = command_line("check", __doc__.splitlines()[0], "default: all; see --list")
    parser.add_argument("--list", action="store_true", help="list the stages and exit")
    parser.add_argument("--small", action="store_true", help="small inputs only, all in this process")
    parser.add_argument("--no-sanitizer", action="store_true")
    options = parser.parse_args(arguments)
    try:
        entries = {entry.name: entry for entry in registry()}
    except ImportError as error:
        print(f"gpu-check: {error}; set GPU_LIBS to a folder that has it (docs/kernels.md)", file=sys.stderr)
        return 1
    stages = [*entries, SANITIZER]
    if options.list:
        print("\n".join(stages))
        return 0
    if unknown_stages("gpu-check", options.only, stages):
        return 2
    small = options.small or options.device == "cpu-shim"
    without = {SANITIZER} if options.no_sanitizer or options.device == "cpu-shim" else set()
    wanted = [name for name in options.only or stages if name not in without]

    def check(name: str, device: MeasuredDevice, record: Record) -> bool:
        if options.fresh:
            record.forget(_section(name))
        if name == SANITIZER:
            state = run_sanitizer(record)
        else:
            state = run_stage(device, entries[name], record, small, options.limit_s)
        record.data["states"][name] = state
        return state in ("passed", "absent", NOT_FOR_IT)

    def table(record: Record) -> list[str]:
        states = record.data["states"]
        rows = [(name, states.get(name, ""), len(record.section(_section(name)))) for name in wanted]
        head = f"\n{'stage':28} {'state':10} cases on {record.data['device']}"
        return [head, *(f"{name:28} {state:10} {n if name != SANITIZER else ''}" for name, state, n in rows)]

    def record_of(device: MeasuredDevice, command: str) -> Record:
        return Record(results_path(device, options.results), device, command)

    program = Program("check", "checked", record_of, check, table)
    return run(program, options, arguments, wanted, apart=not options.small)


def _section(name: str) -> str:
    return SANITIZER if name == SANITIZER else f"check:{name}"


if __name__ == "__main__":
    sys.exit(main())
