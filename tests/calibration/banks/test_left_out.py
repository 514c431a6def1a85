"""A modality is left out where pseudo-defects show that it does harm, and only there."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from asperity.calibration.auroc import auroc
from asperity.calibration.banks.left_out import LEAST_SPOILED, SpoiledDistances, leave_out
from asperity.calibration.banks.reference import FrameDistances
from asperity.runtime.frame import ModalityName, ModalityScores
from asperity.runtime.manifest import Decision, Modality
from asperity.runtime.vision.scoring import fused_score

STANDARD = Modality(0.0, 1.0, 10.0, 1.0, 1.0, 1.0, 1.0, 10)
DECISION = Decision(
    engine="torch", precision="fp32", rgb=STANDARD, points=STANDARD, geometry=STANDARD, fusion="squares",
    threshold=0.0, alpha=0.0, alpha_total=0.0, calibration_scores=(),
)  # fmt: skip
NAMES: tuple[ModalityName, ...] = ("rgb", "points", "geometry")


def frame(z: np.ndarray) -> FrameDistances:
    scored = np.ones((2, 2), bool)
    maps = np.zeros((2, 2), np.float32)
    return FrameDistances(
        {name: ModalityScores(maps, 10.0 + float(value)) for name, value in zip(NAMES, z, strict=True)}, scored
    )


def frames(
    seed: int, seen: tuple[float, float, float], count: int = 60
) -> tuple[dict[int, FrameDistances], list[SpoiledDistances]]:
    """Good frames of spread 1 and two spoiled ones of each: ``seen`` is how far defects lie above in each modality."""
    rng = np.random.default_rng(seed)
    good = rng.normal(size=(count, 3))
    normal = {index: frame(z) for index, z in enumerate(good)}
    spoiled = [
        SpoiledDistances(index, "bump", frame(rng.normal(size=3) + np.exp(rng.uniform(-2.0, 1.0)) * np.array(seen)))
        for index in range(count)
        for _ in range(2)
    ]
    return normal, spoiled


@pytest.mark.parametrize("seed", range(5))
def test_modalities_that_see_defects_stay(seed: int) -> None:
    decision, left = leave_out(DECISION, *frames(seed, (2.0, 2.0, 2.0)))
    assert decision == DECISION and left == ()


def test_noise_costs_no_more_than_a_hundredth() -> None:
    """Over 20 draws, defects from invisible to clear: fresh frames against the modality that sees, by itself.

    Noise in one modality, as what is left of it after the rule. The average, the control, pays more.
    """
    losses, controls = [], []
    for seed in range(20):
        decision, _ = leave_out(_weight_0(DECISION, "geometry"), *frames(seed, (6.0, 0.0, 0.0)))
        normal, spoiled = frames(1000 + seed, (6.0, 0.0, 0.0), count=400)

        def found(decided: Decision, normal=normal, spoiled=spoiled) -> float:
            return auroc(
                [fused_score(one.modalities, decided) for one in normal.values()],
                [fused_score(one.distances.modalities, decided) for one in spoiled],
            )

        alone = found(_weight_0(_weight_0(DECISION, "geometry"), "points"))
        average = msgspec.structs.replace(DECISION, fusion="average", geometry=None)
        losses.append(alone - found(decision))
        controls.append(alone - found(average, *_without_geometry(normal, spoiled)))
    assert np.mean(losses) < 0.01 < np.mean(controls)


def test_a_modality_that_does_not_see_that_frames_were_spoiled_is_mostly_left_out() -> None:
    """Where it does harm at all: by chance noise may look as if it helped."""
    left = [leave_out(_weight_0(DECISION, "geometry"), *frames(seed, (3.0, 0.0, 0.0)))[1] for seed in range(20)]
    assert all({one.modality for one in some} <= {"points"} for some in left)
    assert sum(map(len, left)) >= 12


def test_a_modality_that_sees_what_no_other_does_stays_beside_a_clearer_one() -> None:
    normal, spoiled = frames(0, (4.0, 0.0, 0.0))
    _, stains = frames(1, (0.0, 2.0, 0.0))
    decision, left = leave_out(DECISION, normal, [*spoiled, *stains])
    assert decision.rgb == decision.points == STANDARD
    assert {one.modality for one in left} <= {"geometry"}


def test_at_least_one_modality_counts_whatever_pseudo_defects_say() -> None:
    decision, left = leave_out(DECISION, *frames(0, (-2.0, -2.0, -2.0)))
    assert sum(one.weight for one in decision.modalities().values()) >= 1.0
    assert all(one.gain > 2 * one.standard_error or (one.gain > 0 and one.response < 2) for one in left)


def test_few_spoiled_frames_say_nothing() -> None:
    normal, spoiled = frames(0, (2.0, -5.0, 0.0))
    assert leave_out(DECISION, normal, spoiled[: LEAST_SPOILED - 1]) == (DECISION, ())


def _weight_0(decision: Decision, name: ModalityName) -> Decision:
    return msgspec.structs.replace(decision, **{name: msgspec.structs.replace(STANDARD, weight=0.0)})


def _without_geometry(
    normal: dict[int, FrameDistances], spoiled: list[SpoiledDistances]
) -> tuple[dict[int, FrameDistances], list[SpoiledDistances]]:
    def fewer(one: FrameDistances) -> FrameDistances:
        return replace(one, modalities={name: one.modalities[name] for name in ("rgb", "points")})

    return (
        {index: fewer(one) for index, one in normal.items()},
        [replace(one, distances=fewer(one.distances)) for one in spoiled],
    )
