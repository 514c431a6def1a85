"""``make gpu-check``: every kernel on fresh random and degenerate inputs against float64, on this machine's GPU.

Stages: one for each kernel of the registry, and ``sanitizer`` (compute-sanitizer on small inputs, where it is
installed). Each ends within 8 minutes; what was checked is kept in the result file, and the next call goes on from
there until every stage is whole. Without a GPU it exits 1.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asperity.benchmarks.gpu.record import STAGE_LIMIT_S, MeasuredDevice, Record, name_of, open_device, results_path
from asperity.runtime.cuda.build import ROOT
from asperity.runtime.cuda.kernels import KernelEntry, Shape, registry
from asperity.runtime.errors import AsperityError

SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
SANITIZER_LIMIT_S = 110.0
"""For each tool."""

NOT_FOR_IT = "other chip"
"""The state of a stage whose kernel is for other chips."""

PROCESS_LIMIT_S = 480.0
"""A stage that hangs is ended after this long."""


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
    """One kernel, one input. A failure of any kind is a problem told, never a missing line."""
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
    """Check what is not checked yet; the stage's state: ``passed``, ``failed`` or ``unfinished``."""
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
    """compute-sanitizer's tools on every kernel's small inputs, each in a process of its own."""
    section = record.section("sanitizer")
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


def in_own_processes(stages: list[str], options: argparse.Namespace) -> int:
    """Every stage in a process of its own: what an error of the device leaves behind ends with it."""
    command = [sys.executable, "-m", "asperity.benchmarks.gpu.check", "--limit-s", str(options.limit_s)]
    command += ["--results", str(options.results)] if options.results is not None else []
    command += ["--fresh"] if options.fresh else []
    failed = []
    for name in stages:
        if name == "sanitizer" and options.no_sanitizer:
            continue
        try:
            code = subprocess.run([*command, "--only", name], cwd=ROOT, timeout=PROCESS_LIMIT_S, check=False).returncode
        except subprocess.TimeoutExpired:
            code = 124
        failed += [name] if code else []
    print(f"gpu-check: {len(stages) - len(failed)} of {len(stages)} stages passed; not: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 only when every stage asked for is whole and right."""
    parser = argparse.ArgumentParser(
        prog="python -m asperity.benchmarks.gpu.check", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu-shim"))
    parser.add_argument("--only", action="append", default=[], metavar="STAGE", help="default: all; see --list")
    parser.add_argument("--list", action="store_true", help="name the stages and stop")
    parser.add_argument("--small", action="store_true", help="small inputs only")
    parser.add_argument("--fresh", action="store_true", help="check again what a former call checked")
    parser.add_argument("--no-sanitizer", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--limit-s", type=float, default=STAGE_LIMIT_S)
    options = parser.parse_args(arguments)
    try:
        entries = {entry.name: entry for entry in registry()}
    except ImportError as error:
        print(f"gpu-check: {error}; name a folder that has it in GPU_LIBS (docs/kernels.md)", file=sys.stderr)
        return 1
    stages = [*entries, "sanitizer"]
    if options.list:
        print("\n".join(stages))
        return 0
    unknown = sorted(set(options.only) - set(stages))
    if unknown:
        print(f"gpu-check: no stage {', '.join(unknown)}; there are {', '.join(stages)}", file=sys.stderr)
        return 2
    try:
        device = open_device(options.device)
    except AsperityError as error:
        print(f"gpu-check: nothing was checked: {error}", file=sys.stderr)
        return 1
    if options.device == "cuda" and not options.only and not options.small:
        return in_own_processes(stages, options)
    command = "python -m asperity.benchmarks.gpu.check " + " ".join(sys.argv[1:] if arguments is None else arguments)
    record = Record(results_path(device, options.results), device, command.strip())
    states: dict[str, str] = {}
    small = options.small or options.device == "cpu-shim"
    for name in options.only or stages:
        print(f"gpu-check: {name}", flush=True)
        if options.fresh:
            record.forget("sanitizer" if name == "sanitizer" else f"check:{name}")
        if name != "sanitizer":
            states[name] = run_stage(device, entries[name], record, small, options.limit_s)
        elif options.device == "cuda" and not options.no_sanitizer:
            states[name] = run_sanitizer(record)
    record.data["states"].update(states)
    record.write()
    print(f"\n{'stage':28} {'state':10} cases on {device.name}")
    for name, state in states.items():
        print(f"{name:28} {state:10} {len(record.section(f'check:{name}')) if name != 'sanitizer' else ''}")
    print(f"written to {record.path}")
    return 0 if states and set(states.values()) <= {"passed", "absent", NOT_FOR_IT} else 1


if __name__ == "__main__":
    sys.exit(main())
