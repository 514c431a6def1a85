"""What a precision does to a bundle's verdicts, determined on the CPU before there is a GPU to run it.

The derived graphs run in their rounding form (``export.rounding``) behind the CPU engine: the same preprocessing,
banks, scoring and gate as an engine on the line. What only a device does (fused kernels, half sums, the softmax inside
fused attention) is not in it: there the gate decides on the device.
"""

from __future__ import annotations

import msgspec

from asperity.export.graph_inputs import graph_inputs
from asperity.export.layers import LayerParity, compare_layers
from asperity.export.precision import CALIBRATION_FRAMES, bundle_ranges, derived_graph
from asperity.export.rounding import rounded_graph
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.own_threshold import Parity, check_parity, compare, own_decision, rescore
from asperity.runtime.engines.parity_gate import no_progress, pass_gate
from asperity.runtime.engines.tensorrt.plan_cache import Precision
from asperity.runtime.errors import ParityError
from asperity.runtime.frame import EngineInfo
from asperity.runtime.manifest import Decision
from asperity.runtime.vision.preprocess import Masks


class PrecisionReport(msgspec.Struct, frozen=True):
    """One precision of one bundle, on the CPU."""

    precision: Precision
    layers: dict[str, list[LayerParity]]
    """By graph; without those that none of the frames reaches."""
    scores: Parity
    gate: str
    """Why the gate refuses; empty where it passes."""
    threshold: float
    """The threshold that this precision takes for itself; the bundle's own where the gate refuses."""


class RoundedEngine(CpuEngine):
    """The CPU engine with a precision's graphs in their rounding form."""

    precision: Precision = "fp32"

    def describe(self) -> EngineInfo:
        """The CPU engine's, with the precision that it imitates."""
        info = super().describe()
        return EngineInfo(info.name, info.device, f"{self.precision} rounded")


def rounded_engine(bundle: Bundle, graphs: dict[str, bytes], precision: Precision, threads: int) -> RoundedEngine:
    """The CPU engine of a bundle with derived graphs. Raises EngineError, BundleError."""
    manifest = bundle.manifest
    rounded = {name: rounded_graph(model, name) for name, model in graphs.items()}
    masks = Masks(bundle.inspect_mask(), bundle.ignore_mask())
    engine = RoundedEngine(manifest.geometry, manifest.network, rounded, bundle.banks(), masks, threads)
    engine.precision = precision
    return engine


def compare_precision(bundle: Bundle, precision: Precision, frames: int, threads: int = 1) -> PrecisionReport:
    """Layers on ``frames`` calibration frames, scores on all of them, the gate. Raises EngineError, BundleError."""
    given = graph_inputs(bundle, max(frames, CALIBRATION_FRAMES), threads)
    ranges = bundle_ranges(bundle, given, threads) if precision == "int8" else {}
    graphs = {
        name: derived_graph(bundle.graph(name), name, precision, "half", ranges.get(name))
        for name in bundle.graph_names()
    }
    layers = {
        name: compare_layers(bundle.graph(name), model, name, given[name][:frames], threads)
        for name, model in graphs.items()
        if name in given
    }
    engine = rounded_engine(bundle, graphs, precision, threads)
    try:
        decision, scores, gate = judged(bundle, engine)
    finally:
        engine.close()
    return PrecisionReport(precision, layers, scores, gate, decision.threshold)


def judged(bundle: Bundle, engine: RoundedEngine) -> tuple[Decision, Parity, str]:
    """The engine's own decision, how near its scores are to the reference's, and the gate's refusal if it refuses."""
    manifest, inputs = bundle.manifest, bundle.calibration_inputs()
    scores = rescore(inputs, engine, manifest.decision, no_progress)
    info = engine.describe()
    found = compare(scores, inputs.scores, info)
    try:
        check_parity(found)
        decision = own_decision(scores, manifest.decision, info, manifest.held_out)
        pass_gate(bundle, engine, decision)
    except ParityError as error:
        return manifest.decision, found, str(error)
    return decision, found, ""
