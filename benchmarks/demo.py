"""All steps as a user runs them: normal frames, calibration, bundle, inspector, stream, a table and a picture.

Every step is a separate command in a separate process, as on the line. Figures are printed, never asserted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from asperity.benchmarks.line.rig import STATION, Answers, Line, asperity
from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.sheet import Tile, caption, write_sheet
from asperity.runtime.errors import AsperityError, DataError, UsageError
from asperity.runtime.frame import FloatArray, Verdict, Window
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import decode_bulk, topic

LISTENER_TIMEOUT_S = 10.0
SHEET_TILES = 9

Map = tuple[FloatArray, Window | None]
"""Anomaly map and the window of the frame that it covers."""


MARK = ".asperity-demo"
"""A file that says that a folder is a demo's."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo shows."""

    out: Path
    product: str = "nameplate"
    normals: int = 160
    frames: int = 120
    rate_hz: float = 4.0
    profile: str = "lite"
    method: str = "lsfa"
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Stream:
    """What was received while the camera ran."""

    answers: Answers
    maps: dict[int, Map]  # by seq


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run all steps, write ``sheet.png`` and ``summary.json`` into ``options.out`` and return the summary.

    Raises AsperityError when a step fails; its own error message is on stderr before that.
    """
    normals, station = options.out / "normals", options.out / "station"
    began_s = time.monotonic()
    _clear(options.out, normals, station)
    console.rule(f"1  {options.normals} normal frames of the product {options.product!r}")
    _step("camera", "virtual", "--product", options.product, "--seed", str(options.seed), "--write", str(normals),
          "--train", str(options.normals), "--test", "0")  # fmt: skip
    console.rule("2  calibrate, export, sign")
    _step("calibrate", str(normals), "-o", str(station), "--profile", options.profile, "--method", options.method)
    calibrated_s = time.monotonic() - began_s
    console.rule(f"3  stream {options.frames} frames, defects mixed in")
    truth_file = options.out / "truth.jsonl"
    truth_file.unlink(missing_ok=True)
    stream = _stream(options, station / "bundle", truth_file)
    truth = {row["seq"]: row for row in map(json.loads, truth_file.read_text().splitlines())}
    summary = _summary(options, stream, truth) | {"calibrate_s": round(calibrated_s, 1)}
    reports.write_result(options.out / "summary.json", summary)
    _print(summary, console)
    sheet = options.out / "sheet.png"
    write_sheet(sheet, _tiles(options, stream, truth), across=True)
    console.print(f"pictures: {sheet}   calibration report: {station / 'calibration' / 'report' / 'report.html'}")
    return summary


def _step(*arguments: str) -> None:
    done = subprocess.run(asperity(*arguments), check=False)
    if done.returncode:
        raise DataError(f"`asperity {' '.join(arguments)}` ended with exit code {done.returncode}; see above")


def _clear(out: Path, *folders: Path) -> None:
    """Remove what an earlier demo left there, which calibrate and export would refuse.

    Raises UsageError for folders of that name that no demo made: frames and stations of a user are never removed.
    """
    ours = (out / MARK).exists() or all((out / name).exists() for name in ("summary.json", "truth.jsonl"))
    for folder in folders:
        if folder.exists() and not ours:
            raise UsageError(f"--out {out}: {folder} was not made by a demo and would be replaced; name a new folder")
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _stream(options: DemoOptions, bundle: Path, truth_file: Path) -> Stream:
    """Stream rendered frames through a new line and collect results and maps."""
    maps: dict[int, Map] = {}
    stop = threading.Event()
    with Line(bundle, options.out / "inspector.log") as line:
        listener = threading.Thread(target=_collect_maps, args=(line.ends["bulk"], maps, stop))
        listener.start()
        try:
            answers = line.stream(
                options.frames, "virtual", "--product", options.product, "--seed", str(options.seed + 1),
                "--rate", str(options.rate_hz), "--defects", "mix", "--truth", str(truth_file),
            )  # fmt: skip
        finally:
            stop.set()
            listener.join(timeout=LISTENER_TIMEOUT_S)
    return Stream(answers, maps)


def _collect_maps(endpoint: str, maps: dict[int, Map], stop: threading.Event) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, topic("map", STATION))
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    try:
        while not stop.is_set():
            if socket.poll(100):
                bulk = decode_bulk(socket.recv_multipart())
                maps[bulk.seq] = (np.array(bulk.array), bulk.window)
    finally:
        context.destroy(linger=0)


def _summary(options: DemoOptions, stream: Stream, truth: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The figures of the run. A defect is found when its frame was judged ng; unknown is a reject but not a finding."""
    per_defect: dict[str, dict[str, int]] = defaultdict(lambda: {"shown": 0, "found": 0, "unknown": 0})
    for seq, row in truth.items():
        entry = per_defect[row["defect"]]
        entry["shown"] += 1
        result = stream.answers.results.get(seq)
        entry["found"] += result is not None and result.verdict == Verdict.NG
        entry["unknown"] += result is None or result.verdict == Verdict.UNKNOWN
    good = per_defect.pop("good", {"shown": 0, "found": 0, "unknown": 0})
    total_ms = [r.latency_us["total"] / 1000 for r in stream.answers.results.values() if r.latency_us.get("total")]
    reasons: dict[str, int] = defaultdict(int)
    for result in stream.answers.results.values():
        reasons[Reason(result.reason_code).name] += 1
    return {
        "product": options.product,
        "profile": options.profile,
        "method": options.method,
        "frames": len(truth),
        "results": len(stream.answers.results),
        "gaps": len(stream.answers.gaps),
        "camera_rate_hz": options.rate_hz,
        "fps": round(len(stream.answers.results) / stream.answers.seconds, 2) if stream.answers.seconds else None,
        "p50_ms": round(float(np.percentile(total_ms, 50)), 1) if total_ms else None,
        "p99_ms": round(float(np.percentile(total_ms, 99)), 1) if len(total_ms) >= 100 else None,
        "good": {"shown": good["shown"], "false_rejects": good["found"], "unknown": good["unknown"]},
        "per_defect": dict(sorted(per_defect.items())),
        "reasons": dict(sorted(reasons.items())),
        "cores": os.cpu_count(),
    }


def _print(summary: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{summary['product']}, profile {summary['profile']}, method {summary['method']}")
    for column in ("shown to the camera", "frames", "ng", "unknown"):
        table.add_column(column, justify="left" if column.startswith("shown") else "right")
    for name, row in summary["per_defect"].items():
        table.add_row(name, str(row["shown"]), str(row["found"]), str(row["unknown"]))
    good = summary["good"]
    table.add_section()
    counts = [str(good[key]) for key in ("shown", "false_rejects", "unknown")]
    table.add_row("good parts (ng = false rejects)", *counts)
    console.print(table)
    console.print(
        f"{summary['results']} results for {summary['frames']} frames, {summary['gaps']} gaps; camera at "
        f"{summary['camera_rate_hz']} /s, {summary['fps']} results/s; from arrival to result sent p50 "
        f"{summary['p50_ms']} ms, p99 {summary['p99_ms']} ms; calibrated in {summary['calibrate_s']} s"
    )


def _tiles(options: DemoOptions, stream: Stream, truth: dict[int, dict[str, Any]]) -> list[Tile]:
    """One frame of each kind, the good one first; the virtual camera makes it again from its index."""
    from asperity.runtime.cameras.virtual.camera import VirtualCamera

    camera = VirtualCamera(options.product, options.seed + 1)
    first: dict[str, int] = {}
    for seq, row in sorted(truth.items()):
        if seq in stream.maps:
            first.setdefault(row["defect"], seq)
    tiles = []
    for kind in sorted(first, key=lambda name: (name != "good", name))[:SHEET_TILES]:
        seq = first[kind]
        shot = camera.frame(truth[seq]["index"], None if kind == "good" else kind)
        fused, window = stream.maps[seq]
        place = window or Window(0, 0, max(shot.frame.shape_px))
        tiles.append(Tile(caption(kind, stream.answers.results.get(seq)), shot.frame, shot.mask, fused, place))
    if not tiles:
        raise AsperityError("no map was received, so there is nothing to draw; is the bulk socket in use elsewhere?")
    return tiles
