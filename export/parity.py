"""The gate between torch and an engine: the same inputs, graph by graph and score by score (lsfa 11).

The most common complaint in the field is an exported model that gives a different verdict from the trained one, so
nothing is exported without comparison.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.runtime.bundle.reader import Bundle, CalibrationInputs
from asperity.runtime.engines import Engine
from asperity.runtime.engines.own_threshold import Parity, check_parity, compare, own_decision, rescore
from asperity.runtime.frame import FloatArray
from asperity.runtime.manifest import Decision, Network
from asperity.runtime.vision.distances import measure
from asperity.runtime.vision.features import Networks, Patches, adapted_patches, frozen_patches
from asperity.runtime.vision.scoring import fused_score

TOKEN_FRAMES = 3
"""Frames on which the graphs' outputs are compared; the scores are compared on all."""


class TokenParity(msgspec.Struct, frozen=True):
    """Outputs of one part of the network, torch against engine, over a few frames."""

    part: str
    largest_error: float
    """Largest |engine - torch|, in units of the torch output's standard deviation."""


class ParityReport(msgspec.Struct, frozen=True):
    """What was compared at export; written as JSON next to the calibration's report."""

    scores: Parity
    tokens: tuple[TokenParity, ...]
    threshold_reference: float
    threshold_engine: float


def reference_scores(
    inputs: CalibrationInputs, network: Network, decision: Decision, networks: Networks, bundle: Bundle
) -> NDArray[np.float64]:
    """Fused scores (n,) of the inputs by these networks (torch) against the bundle's whole banks."""
    banks = bundle.banks()
    scores = np.empty(len(inputs))
    for index in range(len(inputs)):
        prepared = inputs.prepared(index)
        patches = adapted_patches(frozen_patches(prepared, network, networks), network, networks)
        seen, _ = measure(patches, prepared.inspect, banks)
        scores[index] = fused_score(seen, decision)
    return scores


def compare_tokens(
    inputs: CalibrationInputs, network: Network, torch_networks: Networks, engine_networks: Networks
) -> tuple[TokenParity, ...]:
    """Frozen and adapted features of a few inputs, torch against engine."""
    errors: dict[str, list[float]] = {}
    for index in range(min(TOKEN_FRAMES, len(inputs))):
        prepared = inputs.prepared(index)
        theirs = frozen_patches(prepared, network, torch_networks)
        ours = frozen_patches(prepared, network, engine_networks)
        _note(errors, "", theirs, ours)
        if network.adaptor != "none":
            # From the same frozen features, so that the adaptors' error is their own.
            adapted = adapted_patches(theirs, network, torch_networks)
            _note(errors, "adaptor_", adapted, adapted_patches(theirs, network, engine_networks))
    return tuple(TokenParity(part, max(found)) for part, found in errors.items())


def _note(errors: dict[str, list[float]], prefix: str, theirs: Patches, ours: Patches) -> None:
    for part, reference in theirs.features.items():
        errors.setdefault(prefix + part, []).append(_error(reference, ours.features[part]))


def _error(reference: FloatArray, seen: FloatArray) -> float:
    spread = float(reference.std())
    return float(np.abs(seen - reference).max()) / spread if spread > 0 else float("inf")


def prove_parity(
    bundle: Bundle,
    engine: Engine,
    torch_networks: Networks,
    engine_networks: Networks,
    progress: Callable[[str], None],
) -> tuple[Decision, ParityReport]:
    """The engine's own decision for a draft bundle, and how near the engine is to torch.

    Raises ParityError when scores move by more than 0.3 standard deviations or their rank correlation is < 0.98.
    """
    manifest, inputs = bundle.manifest, bundle.calibration_inputs()
    info = engine.describe()
    scores = rescore(inputs, engine, manifest.decision, progress)
    parity = compare(scores, inputs.scores, info)
    check_parity(parity)
    decision = own_decision(scores, manifest.decision, info, manifest.held_out)
    report = ParityReport(
        scores=parity,
        tokens=compare_tokens(inputs, manifest.network, torch_networks, engine_networks),
        threshold_reference=manifest.decision.threshold,
        threshold_engine=decision.threshold,
    )
    return decision, report
