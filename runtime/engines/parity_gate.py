"""The parity gate: an engine may judge parts only after it has judged the bundle's golden frames as the exporter did.

Each golden frame takes the whole path of a real one: preprocessing, networks, banks, ``scoring.decide``. Two of them
were spoiled by the exporter, one in geometry and one in colour, and must be ng because of their own modality's
distance (each modality of shape must see the one in geometry by itself), so that an engine of constants, a network of
zeros or a bank that is near everything cannot pass (architecture, "Bundle"). A bundle for timing only has no spoiled
ones: ``decide`` gives it no verdict, here as on the line, and the gate compares its scores with the exporter's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from asperity.runtime.bundle.checks import GOLDEN_REASONS
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.engines import Engine
from asperity.runtime.engines.own_threshold import decision_for
from asperity.runtime.errors import EngineError, EngineLostError, FrameRefused, ParityError
from asperity.runtime.frame import Frame, ModalityName, Scores, Verdict
from asperity.runtime.manifest import Decision, GoldenFrame, Manifest
from asperity.runtime.vision.scoring import Judgement, decide, fused_score

SPOILED_MODALITIES: dict[str, tuple[ModalityName, ...]] = {
    "spoiled_geometry": ("points", "geometry", "height", "descriptor"), "spoiled_colour": ("rgb",)
}  # fmt: skip
VERDICT_NAMES = {Verdict.OK: "ok", Verdict.NG: "ng", Verdict.UNKNOWN: "unknown"}

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GoldenCheck:
    """The engine's answer to one golden frame, and the bundle's."""

    golden: GoldenFrame
    scores: Scores
    judgement: Judgement
    wall_ms: float


def no_progress(_stage: str) -> None:
    """For engines whose progress is not reported."""


def run_golden(
    frame: Frame, golden: GoldenFrame, engine: Engine, decision: Decision, manifest: Manifest, progress: Progress
) -> GoldenCheck:
    """One golden frame through engine and decision.

    Raises ParityError when the engine refuses or fails on it, EngineLostError when it is lost permanently.
    """
    start_ns = time.perf_counter_ns()
    try:
        scores = engine.score(frame, progress)
        judgement = decide(scores, decision, manifest.silhouette, manifest.geometry)
    except EngineLostError:
        raise
    except (FrameRefused, EngineError) as error:
        raise ParityError(
            f"golden frame {golden.name} ({golden.kind}) could not be scored ({error}); this engine must not judge "
            "parts: export the bundle again for it"
        ) from error
    return GoldenCheck(golden, scores, judgement, (time.perf_counter_ns() - start_ns) / 1e6)


SPOILED_SHARE = 0.05
"""A spoiled frame's score may also move by this share of its distance from the threshold: far out there, what normal
scores vary by measures nothing (docs/decisions/spoiled-scores.md)."""


def usual_distances(checks: Iterable[GoldenCheck]) -> dict[ModalityName, float]:
    """Mean image distance of the normal golden frames in each modality, as this engine measures it."""
    normal = [check.scores.modalities for check in checks if check.golden.kind == "normal"]
    if not normal:
        raise ParityError("the bundle holds no normal golden frame to compare spoiled ones with; export it again")
    return {name: sum(one[name].image_distance for one in normal) / len(normal) for name in normal[0]}


def own_evidence(
    scores: Scores, modality: ModalityName, decision: Decision, usual: Mapping[ModalityName, float]
) -> bool:
    """True when this modality's image distance by itself puts the fused score above the threshold, and no other kind's.

    That is: with its distance as it is and all others at the ``usual`` one of normal frames the score is above; and it
    is not with all at the usual one, nor with those at the usual one that see the same kind of defect (shape, colour).
    """
    calm = {name: replace(one, image_distance=usual[name]) for name, one in scores.modalities.items()}
    alone = calm | {modality: scores.modalities[modality]}
    kind = next(names for names in SPOILED_MODALITIES.values() if modality in names)
    others = scores.modalities | {name: one for name, one in calm.items() if name in kind}
    without = max(fused_score(calm, decision), fused_score(others, decision))
    return fused_score(alone, decision) > decision.threshold >= without


def spoiled_modalities(kind: str, decision: Decision) -> tuple[ModalityName, ...]:
    """The modalities that must each see a golden frame of this kind: colour, or every modality of shape that counts.

    Raises ParityError where none of them counts: such a decision accepts every defect of that kind.
    """
    wanted = SPOILED_MODALITIES.get(kind, ())
    found = tuple(name for name, one in decision.modalities().items() if name in wanted and one.weight > 0)
    if wanted and not found:
        raise ParityError(
            f"golden frame {kind}: no modality that could see it counts in the decision ({', '.join(wanted)} absent or "
            "of weight 0); calibrate again, from data in which defects of this kind can be seen"
        )
    return found


def check_golden(check: GoldenCheck, decision: Decision, manifest: Manifest) -> None:
    """Compare one golden frame with the bundle. Raises ParityError naming frame, expected and seen.

    The tolerance has its ceiling in ``bundle.ceilings``, that of spoiled frames is SPOILED_SHARE; verdicts have none.
    """
    golden, judgement = check.golden, check.judgement
    tolerance = manifest.golden_tolerance
    if golden.kind in SPOILED_MODALITIES:
        tolerance = max(tolerance, SPOILED_SHARE * abs(golden.score - decision.threshold))
    seen = VERDICT_NAMES[judgement.verdict]
    frame = f"golden frame {golden.name} ({golden.kind})"
    if judgement.score is None or seen != golden.verdict or judgement.reason != golden.reason:
        reason = GOLDEN_REASONS[golden.verdict].name
        expected = f"{golden.verdict}, {reason}, score {golden.score:.4f}"
        raise ParityError(
            f"{frame}: expected {expected}; this engine says {seen}, {judgement.reason.name} ({judgement.detail}); it "
            "must not judge parts: export the bundle again on a machine like this one"
        )
    if not abs(judgement.score - golden.score) <= tolerance:
        raise ParityError(
            f"{frame}: expected score {golden.score:.4f} within {tolerance:.4f}; this engine gives "
            f"{judgement.score:.4f}; it must not judge parts: export the bundle again for this engine or use another"
        )


def check_evidence(checks: Sequence[GoldenCheck], decision: Decision) -> None:
    """Each spoiled frame is ng because of its own modalities, each by itself. Raises ParityError.

    Measured by this engine on both sides: what the manifest says of distances is not evidence.
    """
    usual = usual_distances(checks)
    for check in checks:
        golden = check.golden
        for modality in spoiled_modalities(golden.kind, decision):
            if own_evidence(check.scores, modality, decision, usual):
                continue
            raise ParityError(
                f"golden frame {golden.name} ({golden.kind}): it must be ng because of its {modality} distance; this "
                f"engine's is {check.scores.modalities[modality].image_distance:.4f}, which is not decisive: the "
                f"{modality} network or bank detects nothing; calibrate and export again"
            )


def pass_gate(
    bundle: Bundle, engine: Engine, decision: Decision | None = None, progress: Progress = no_progress
) -> list[GoldenCheck]:
    """Score every golden frame; return what was seen when all agree with the bundle.

    ``decision`` is the engine's own (``engines.own_threshold``); by default the bundle's. Raises ParityError at the
    first frame whose verdict, reason, score or evidence differs.
    """
    return list(gate_steps(bundle, engine, decision or bundle.manifest.decision, progress))


def gate_steps(
    bundle: Bundle, engine: Engine, decision: Decision, progress: Progress = no_progress
) -> Iterator[GoldenCheck]:
    """As ``pass_gate``, a golden frame at each step; the gate is passed only when all steps are done."""
    checks = []
    for golden, frame in bundle.golden_frames():
        checks.append(run_golden(frame, golden, engine, decision, bundle.manifest, progress))
        check_golden(checks[-1], decision, bundle.manifest)
        progress(f"golden {golden.name}")
        yield checks[-1]
    check_evidence(checks, decision)


def prove(bundle: Bundle, engine: Engine, progress: Progress = no_progress) -> Decision:
    """The decision by which this engine may judge parts: its own threshold where it needs one, then the gate.

    Raises ParityError when the engine must not judge, EngineError when it fails.
    """
    decision = decision_for(bundle, engine, progress)
    pass_gate(bundle, engine, decision, progress)
    return decision
