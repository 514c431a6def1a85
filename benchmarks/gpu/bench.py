"""``make gpu-bench``: how near every kernel comes to this GPU's measured rates, and how it compares to other libraries.

Stages: ``rates`` (the half matrix product and the memory, measured), one for each kernel of the registry, ``rivals``
(torch.cdist + min, matrix product + reduction in PyTorch and CuPy on the same data), ``choice`` (the fastest path for
each size, written where the runtime looks). Each ends within 8 minutes and the next call resumes there. Kernels
run from a CUDA graph, with the L2 cache overwritten before each run; what was timed is checked. Without a GPU: exit 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.gpu.harness import Program, command_line, run, unknown_stages
from asperity.benchmarks.gpu.record import MeasuredDevice, Record, name_of, results_path
from asperity.benchmarks.gpu.rivals import Rival, cupy_rival, torch_half_seconds, torch_rivals
from asperity.runtime.cuda.checks.nearest import CheckedSearch, tokens_and_bank
from asperity.runtime.cuda.choice import ChoiceTable, bucket, file_of
from asperity.runtime.cuda.kernels import KernelEntry, Shape, registry
from asperity.runtime.cuda.nearest import NearestSearch

REPEATS = 30
FLUSH_BYTES = 512 * 2**20
"""Written before each run: more than any GPU's L2 cache."""

SEED = 20240607
SQUARE = 8192
PATHS = {
    "nearest_tensor": "tensor",
    "nearest_wgmma": "wgmma",
    "nearest_product": "product",
    "nearest_float32": "float32",
}


def measure_rates(device: MeasuredDevice, record: Record, small: bool) -> None:
    """The half matrix product (random data) by this project's own path, and the memory's copy rate."""
    section = record.section("rates")
    size, repeats = (128, 2) if small else (SQUARE, REPEATS)
    rng = np.random.default_rng(SEED)
    left = device.upload(rng.standard_normal((size, size)).astype(np.float16))
    right = device.upload(rng.standard_normal((size, size)).astype(np.float16))
    out = device.alloc(4 * size * size)

    def product() -> None:
        device.half_product(left, right, out, rows=size, columns=size, channels=size, first=0)

    product()
    section["half_product_tflops"] = 2 * size**3 / float(np.median(device.seconds(product, repeats))) / 1e12
    nbytes = 2**20 if small else 2**30
    source, to = device.alloc(nbytes), device.alloc(nbytes)
    copied_s = float(np.median(device.seconds(lambda: device.copy(source, to, nbytes), repeats)))
    section["copy_gbytes_per_s"] = 2 * nbytes / copied_s / 1e9
    section["what"] = f"half product {size} cubed with float32 results; device copy of {nbytes} bytes, read and written"


def measure_shape_rate(section: dict[str, Any], shape: Shape, where: str, small: bool) -> None:
    """The best half matrix product seen at a search's own size, by PyTorch, beside the square one."""
    if name_of(shape) in section:
        return
    m, n, d = shape["m"], shape["n"], shape["d"]
    try:
        spent_s = torch_half_seconds(m, n, d, where, 3 if small else REPEATS)
    except ImportError:
        return
    section[name_of(shape)] = 2 * m * n * d / spent_s / 1e12


def time_entry(
    device: MeasuredDevice, entry: KernelEntry, shape: Shape, rates: Mapping[str, Any], small: bool
) -> dict[str, Any]:
    """Median of one kernel at one shape, and which share of the measured rates that is."""
    prepared = entry.prepare(device, shape, "random", np.random.default_rng(SEED))
    for _ in range(2):
        prepared.enqueue()
    problems = prepared.problems()
    replay = device.replayed(prepared.enqueue)
    flush = device.alloc(2**20 if small else FLUSH_BYTES)
    spent = device.seconds(replay, 3 if small else REPEATS, lambda: device.fill(flush, 0))
    problems += [f"after timing: {problem}" for problem in prepared.problems()]
    part_us = {}
    for name, call in (prepared.parts() if isinstance(prepared, CheckedSearch) else {}).items():
        part_us[name] = 1e6 * float(np.median(device.seconds(call, 3 if small else 10)))
    median_s, work = float(np.median(spent)), prepared.work
    result: dict[str, Any] = {
        "median_us": 1e6 * median_s,
        "p10_us": 1e6 * float(np.quantile(spent, 0.1)),
        "p90_us": 1e6 * float(np.quantile(spent, 0.9)),
        "runs": len(spent),
        "tflops": work.flop / median_s / 1e12,
        "gbytes_per_s": work.bytes / median_s / 1e9,
        "share_of_copy_rate": work.bytes / median_s / 1e9 / rates["copy_gbytes_per_s"],
        "part_us": part_us,
        "figures": prepared.figures(),
        "problems": problems,
    }
    if work.steps:
        result["us_a_step"] = 1e6 * median_s / work.steps
    if work.precision == "float16":
        result["share_of_half_rate"] = result["tflops"] / rates["half_product_tflops"]
    if "rank" in part_us:
        # The ranking kernel alone: what the half-precision work costs without proof and preparation.
        result["rank_share_of_half_rate"] = work.flop / part_us["rank"] / 1e6 / rates["half_product_tflops"]
    return result


def time_rivals(device: MeasuredDevice, shape: Shape, where: str, small: bool) -> dict[str, Any]:
    """Every rival at one shape, on the same data as ours."""
    m, n, d = shape["m"], shape["n"], shape["d"]
    tokens, bank = tokens_and_bank("random", m, n, d, np.random.default_rng(SEED))
    search = NearestSearch(device, bank, m)
    search.enqueue(device.upload(tokens))
    index = search.result().index
    repeats = 2 if small else REPEATS
    rivals: list[Rival] = []
    absent: list[str] = []
    try:
        rivals += torch_rivals(tokens, bank, index, where, repeats)
    except ImportError as error:
        absent.append(f"torch: {error}")
    try:
        rivals += cupy_rival(tokens, bank, index, repeats)
    except ImportError as error:
        absent.append(f"cupy: {error}")
    timed = {rival.name: {"median_us": 1e6 * rival.median_s, "as_ours": rival.as_ours} for rival in rivals}
    return {"rivals": timed, "absent": absent}


def make_choice(record: Record, folder: Path | None) -> dict[str, str]:
    """The fastest correct path of each bucket of sizes; written where the runtime reads it (for a GPU only)."""
    fastest: dict[str, tuple[float, str]] = {}
    for kernel, path in PATHS.items():
        for case in record.section(f"time:{kernel}").values():
            name = bucket(*(case["shape"][key] for key in ("m", "n", "d")))
            if not case["problems"] and case["median_us"] < fastest.get(name, (np.inf, ""))[0]:
                fastest[name] = (case["median_us"], path)
    paths = {name: path for name, (_, path) in sorted(fastest.items())}
    record.section("choice").update(paths)
    if folder is not None and paths:
        table = ChoiceTable(record.data["device"], str(record.path.name), paths)  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(table), indent=1)
        file_of(record.data["device"], folder).write_bytes(text + b"\n")
    return paths


def table(record: Record) -> list[str]:
    """The short table."""
    rates = record.section("rates")
    lines = [
        f"{record.data['device']}: half product {rates.get('half_product_tflops', 0):.1f} TFLOP/s, "
        f"copy {rates.get('copy_gbytes_per_s', 0):.0f} GB/s",
        f"{'kernel':26} {'shape':30} {'us':>10} {'half rate':>10} {'at size':>8} {'copy rate':>10} {'us/step':>8}",
    ]
    at_size = record.section("rates_at_size")
    for name, cases in sorted(record.data["sections"].items()):
        if not name.startswith("time:"):
            continue
        for shape, case in cases.items():
            share, step = case.get("share_of_half_rate"), case.get("us_a_step")
            size = case["tflops"] / at_size[shape] if share is not None and shape in at_size else None
            shown = [
                f"{100 * value:.1f}%" if value is not None else ""
                for value in (share, size, case["share_of_copy_rate"])
            ]
            wrong = "  WRONG: " + case["problems"][0] if case["problems"] else ""
            lines.append(
                f"{name[5:]:26} {shape:30} {case['median_us']:10.1f} {shown[0]:>10} {shown[1]:>8} {shown[2]:>10} "
                f"{'' if step is None else f'{step:.2f}':>8}{wrong}"
            )
    for shape, case in record.section("rivals").items():
        for rival, timed in case["rivals"].items():
            lines.append(f"{rival:26} {shape:30} {timed['median_us']:10.1f}  same row {100 * timed['as_ours']:.1f}%")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 only when every requested stage is complete and everything timed was correct."""
    try:
        entries = {entry.name: entry for entry in registry()}
    except ImportError as error:
        print(f"gpu-bench: {error}; set GPU_LIBS to a folder that has it (docs/kernels.md)", file=sys.stderr)
        return 1
    stages = ["rates", *entries, "rivals", "choice"]
    parser = command_line("bench", __doc__.splitlines()[0], f"of {', '.join(stages)}")
    parser.add_argument("--choice-folder", type=Path, help="folder for the table of paths (default: the runtime's)")
    options = parser.parse_args(arguments)
    if unknown_stages("gpu-bench", options.only, stages):
        return 2
    small = options.device == "cpu-shim"

    def bench(stage: str, device: MeasuredDevice, record: Record) -> bool:
        whole = run_stage(stage, device, record, entries, options, small)
        timed = [cases for name, cases in record.data["sections"].items() if name.startswith("time:")]
        return whole and not any(case["problems"] for cases in timed for case in cases.values())

    def record_of(device: MeasuredDevice, command: str) -> Record:
        return Record(results_path(device, options.results), device, command)

    return run(Program("bench", "timed", record_of, bench, table), options, arguments, options.only or stages)


def run_stage(
    stage: str,
    device: MeasuredDevice,
    record: Record,
    entries: Mapping[str, KernelEntry],
    options: argparse.Namespace,
    small: bool,
) -> bool:
    """Run one stage; returns whether it is complete."""
    start = time.monotonic()
    where = "cpu" if small else "cuda"
    if stage == "rates":
        measure_rates(device, record, small)
        return True
    if stage == "choice":
        folder = options.choice_folder or (None if small else file_of("any").parent)
        return bool(make_choice(record, folder))
    if stage == "rivals":
        entry, section = entries["nearest_tensor"], record.section("rivals")
    else:
        entry, section = entries[stage], record.section(f"time:{stage}")
    if not entry.runs_on(device):
        return True
    if "half_product_tflops" not in record.section("rates"):
        measure_rates(device, record, small)
    shapes = entry.small if small else entry.timed or entry.shapes
    for shape in shapes:
        name = name_of(shape)
        if name in section and not options.fresh:
            continue
        if time.monotonic() - start > options.limit_s:
            return False
        if stage == "rivals":
            section[name] = time_rivals(device, shape, where, small)
        else:
            section[name] = {"shape": dict(shape), **time_entry(device, entry, shape, record.section("rates"), small)}
        if entry.name in PATHS:
            measure_shape_rate(record.section("rates_at_size"), shape, where, small)
        record.write()
    return True


if __name__ == "__main__":
    sys.exit(main())
