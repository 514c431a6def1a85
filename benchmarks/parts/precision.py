"""What a precision does to a bundle's scores and verdicts, on frames of the virtual camera that nothing has seen yet.

On the CPU, by graphs that round where the precision rounds (``export.rounding``): the whole frame path except what
only a device does. The reference is the bundle's own float32 engine on the same frames.

    python -m asperity.benchmarks.parts.precision BUNDLE --product nameplate
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console

from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.export.graph_inputs import graph_inputs
from asperity.export.precision import CALIBRATION_FRAMES, bundle_ranges, derived_graph
from asperity.export.precision_parity import judged, rounded_engine
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.parity_gate import no_progress, prove
from asperity.runtime.engines.tensorrt.plan_cache import Precision
from asperity.runtime.frame import Frame
from asperity.runtime.manifest import Decision
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.scoring import decide, fused_score

PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
DEFECTS = ("bump", "dent", "scratch", "hole", "stain")


@dataclass(frozen=True, slots=True)
class PrecisionBenchmark:
    """Which frames."""

    product: str
    frames: int
    size_px: int
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One engine's answers: fused scores (n,) and verdicts by name."""

    scores: np.ndarray
    verdicts: tuple[str, ...]


def run_precision(bundle: Bundle, options: PrecisionBenchmark, said: Callable[[str], None]) -> dict[str, Any]:
    """The figures. Raises EngineError, BundleError, UsageError."""
    frames = virtual_frames(options)
    said(f"{len(frames)} frames in float32")
    engine = CpuEngine.open(bundle, options.threads)
    try:
        decision = prove(bundle, engine)
        reference = _judge(bundle, engine, decision, frames)
    finally:
        engine.close()
    given = graph_inputs(bundle, CALIBRATION_FRAMES, options.threads)
    ranges = bundle_ranges(bundle, given, options.threads)
    spread = float(np.std(bundle.calibration_inputs().scores))
    figures = {}
    for precision in PRECISIONS:
        said(f"{len(frames)} frames in {precision}")
        graphs = {
            name: derived_graph(bundle.graph(name), name, precision, "half", ranges[name])
            for name in bundle.graph_names()
        }
        derived = rounded_engine(bundle, graphs, precision, options.threads)
        try:
            own, parity, refusal = judged(bundle, derived)
            seen = _judge(bundle, derived, own, frames)
        finally:
            derived.close()
        figures[precision] = {
            "gate": refusal or "passed",
            "calibration_scores": msgspec.to_builtins(parity),
            "threshold": own.threshold,
            **_compared(reference, seen, spread),
        }
    return {
        "benchmark": "precision",
        "measured": "scores and verdicts on virtual frames against the bundle's float32 engine, on the CPU, by graphs "
        "that round where the precision rounds; shifts in standard deviations of the calibration frames' scores",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "bundle": bundle.wire_id,
        "profile": bundle.manifest.network.profile,
        "options": {name: getattr(options, name) for name in PrecisionBenchmark.__slots__},
        "verdicts_fp32": {verdict: reference.verdicts.count(verdict) for verdict in sorted(set(reference.verdicts))},
        "threshold_fp32": decision.threshold,
        "precisions": figures,
    }


def virtual_frames(options: PrecisionBenchmark) -> list[Frame]:
    """Good parts and parts with a defect, every other one."""
    camera = VirtualCamera(options.product, options.seed, options.size_px)
    return [
        camera.frame(index, defect=DEFECTS[index // 2 % len(DEFECTS)] if index % 2 else None).frame
        for index in range(options.frames)
    ]


def _judge(bundle: Bundle, engine: CpuEngine, decision: Decision, frames: list[Frame]) -> Judged:
    manifest = bundle.manifest
    scores, verdicts = [], []
    for frame in frames:
        seen = engine.score(frame, no_progress)
        scores.append(fused_score(seen.modalities, decision))
        verdicts.append(decide(seen, decision, manifest.silhouette, manifest.geometry).verdict.name.lower())
    return Judged(np.asarray(scores), tuple(verdicts))


def _compared(reference: Judged, seen: Judged, spread: float) -> dict[str, Any]:
    shift = np.abs(seen.scores - reference.scores) / spread
    other = [
        {"frame": index, "fp32": a, "seen": b, "score_fp32": float(reference.scores[index]),
         "score": float(seen.scores[index])}
        for index, (a, b) in enumerate(zip(reference.verdicts, seen.verdicts, strict=True)) if a != b
    ]  # fmt: skip
    return {
        "frames": len(shift),
        "other_verdicts": len(other),
        "largest_shift": float(shift.max()),
        "median_shift": float(np.median(shift)),
        "where_verdicts_differ": other,
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="bundle of a product of the virtual camera")],
    product: Annotated[str, typer.Option(help="the product it was calibrated for")] = "bracket",
    frames: Annotated[int, typer.Option(min=2, help="virtual frames judged, half of them with a defect")] = 100,
    size_px: Annotated[int, typer.Option(min=64, help="side of their picture in pixels, as in calibration")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="of the virtual camera")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    keys: Annotated[Path | None, typer.Option(help="key folder (default: the user's)")] = None,
    out: Annotated[Path | None, typer.Option(help="result file")] = None,
) -> None:
    """What fp16 and int8 do to a bundle's scores and verdicts, on the CPU by graphs that round where they round."""
    options = PrecisionBenchmark(product, frames, size_px, seed, threads)
    report = run_precision(open_bundle(bundle, TrustStore(keys)), options, Console(markup=False, stderr=True).print)
    if out is not None:
        reports.write_result(out, report)
    typer.echo(reports.as_text(report["precisions"]))


if __name__ == "__main__":
    typer.run(main)
