"""Whole frames on a GPU: gate, agreement with the CPU, latency, lanes, idle gaps, start; what `make gpu-check` and
`make gpu-bench` do after the kernels.

Stages: ``bundle`` (calibrate `lite` here from the packed frames), then for each way to run the networks (``runtimes``)
``NAME/gate`` and ``NAME/agree`` (the check), ``NAME/latency/CASE``, ``NAME/lanes/CASE``, ``NAME/idle/CASE`` and
``NAME/start`` (the benchmark). Each ends within 8 minutes, is kept, and is not repeated by the next call. The frames
come from ``python -m asperity.benchmarks.gpu.material`` on a machine with Open3D.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asperity.benchmarks.gpu.day import Day, Plan, plan_of
from asperity.benchmarks.gpu.harness import Program, command_line, run
from asperity.benchmarks.gpu.record import RESULTS, MeasuredDevice, Record, digest_of, slug
from asperity.benchmarks.gpu.runtimes import RUNTIMES, runtime_of
from asperity.benchmarks.gpu.stages import FAILED, PASSED, STAGES, make_bundle_stage, until_ready
from asperity.runtime.cuda.build import BUILD, ROOT
from asperity.runtime.cuda.launch import Device
from asperity.runtime.errors import AsperityError

MEASURED = "whole frames: from a frame in host memory to its verdict, background removal inside; no sockets"
SOURCES = ("runtime", "calibration", "export", "benchmarks/gpu", "benchmarks/torch_reference")
CHECKS = ("gate", "agree")
BUNDLE = "bundle"
ABSENT, STARTED = "absent", "started"


def stages_of(what: str, plan: Plan, stations: Iterable[str] = (), *, every: bool = False) -> list[str]:
    """Names of the stages in their order; ``what``: check, bench or all; ``stations``: further cases with bundles.

    ``every``: include those that run only when named.
    """
    bundles = (plan.profile, *stations)
    names = [BUNDLE]
    for runtime in RUNTIMES:
        if runtime.only_if_named and not every:
            continue
        for stage, (_, cases) in STAGES.items():
            if what != "all" and (stage in CHECKS) != (what == "check"):
                continue
            wanted = (*bundles, *plan.seeded) if cases == "each" else bundles
            names += [f"{runtime.name}/{stage}/{case}" for case in wanted]
    return names


def run_stage(name: str, day: Day, record: Record, limit_s: float) -> str:
    """Run one stage, unless an earlier call did; returns its state."""
    section = record.section(name)
    if record.data["states"].get(name) == PASSED:
        return PASSED
    section.clear()
    # Should this process be ended by what it runs, that is what the file says.
    record.data["states"][name] = STARTED
    record.write()
    try:
        if name == BUNDLE:
            return make_bundle_stage(day, section)
        runtime_name, stage, case = name.split("/")
        runtime = runtime_of(runtime_name)
        if reason := runtime.absent(day.kind):
            section["why"] = reason
            return ABSENT
        return STAGES[stage][0](day, runtime, case, section, limit_s)
    except AsperityError as error:
        section["error"] = f"{type(error).__name__}: {error}"
        print(f"  {name}: {section['error']}", file=sys.stderr)
        return FAILED


def table(record: Record) -> list[str]:
    """The short table."""
    lines = []
    for name, state in sorted(record.data["states"].items()):
        section = record.section(name)
        lines.append(f"{name:36} {state:10} {_figures(name, section)}")
    return lines


def _figures(name: str, section: dict[str, Any]) -> str:
    if "error" in section or "why" in section:
        return str(section.get("error") or section.get("why"))[:90]
    if "/agree/" in name and "frames" in section:
        return f"{len(section['differ'])} of {section['frames']} differ, shift {section['largest_shift_std']:.3g} std"
    if "back_to_back" in section:
        one = section["back_to_back"]
        return ", ".join(f"{key} {one[key]}" for key in ("p50_ms", "p99_ms", "p99.9_ms", "mean_ms"))
    if "/lanes/" in name:
        return ", ".join(f"{lanes} lanes {told.get('frames_per_s')}/s" for lanes, told in sorted(section.items()))
    if "runs" in section:
        return ", ".join(f"ready {run['ready_s']} s" for run in section["runs"])
    return ""


def results_path(device: Device, given: Path | None) -> Path:
    """``benchmarks/results/<device>/frame.json``; results of the CPU stand-in stay in the build folder."""
    if given is not None:
        return given
    if device.name == "cpu-shim":
        return BUILD / "gpu-frame" / "cpu-shim.json"
    return RESULTS / slug(device.name) / "frame.json"


def sources() -> str:
    """What whole-frame figures belong to: all that takes part in a frame."""
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".cu", ".cuh")]
    return digest_of(files)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = command_line("frame", __doc__.splitlines()[0], "or the beginning of its name; see --list")
    made.add_argument("what", nargs="?", default="all", choices=("check", "bench", "all"))
    made.add_argument("--list", action="store_true", help="list the stages and exit")
    made.add_argument("--profile", default="", help="measure only a bundle of this profile")
    made.add_argument("--agree", type=int, default=0, metavar="FRAMES", help="compare this many frames with the CPU")
    made.add_argument("--material", type=Path, default=BUILD / "gpu-material", help="what gpu.material wrote")
    made.add_argument("--work", type=Path, default=BUILD / "gpu-frame", help="where bundles are made")
    made.add_argument("--station", type=station, action="append", default=[], metavar="NAME=FOLDER",
                      help="also measure this calibrated station, with its keys in FOLDER/keys")  # fmt: skip
    made.add_argument("--until-ready", metavar="RUNTIME/CASE", help=argparse.SUPPRESS)
    return made


def station(text: str) -> tuple[str, Path]:
    """Of ``--station``."""
    name, _, folder = text.partition("=")
    if not name or not folder or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 only when every requested stage passed or does not apply here."""
    options = parser().parse_args(arguments)
    stations = dict(options.station)
    plan = plan_of(options.device, options.profile, options.agree)
    named = bool(options.only or options.list)
    known = stages_of("all" if options.only else options.what, plan, stations, every=named)
    # In the order asked for, each once.
    stages = list(dict.fromkeys(name for only in options.only or [""] for name in known if name.startswith(only)))
    if options.list or not stages:
        print("\n".join(known), file=sys.stdout if stages else sys.stderr)
        return 0 if stages else 2
    day = Day(options.device, options.material, options.work, plan, stations)
    if options.until_ready:
        name, _, case = options.until_ready.partition("/")
        print(json.dumps(until_ready(day, runtime_of(name), case)))
        return 0

    def measure(name: str, device: MeasuredDevice, record: Record) -> bool:
        if options.fresh:
            record.data["states"].pop(name, None)
        record.data["states"][name] = run_stage(name, day, record, options.limit_s)
        return record.data["states"][name] in (PASSED, ABSENT)

    def record_of(device: MeasuredDevice, command: str) -> Record:
        return Record(results_path(device, options.results), device, command, MEASURED, sources())

    return run(Program("frame", "measured", record_of, measure, table), options, arguments, stages)


if __name__ == "__main__":
    sys.exit(main())
