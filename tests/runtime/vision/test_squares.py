"""Fusion ``squares``: the sum of squares of what lies above the usual, weights 0 or 1 (docs/decisions/fusion.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import Verdict
from asperity.runtime.manifest import Decision, weights_fault
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.scoring import TIE_SLOPE, conformal_threshold, fused_map, fused_score, p_value
from tests.runtime.vision.scored_frame import decision, judged, modality, scores

DISTANCES = st.floats(0.0, 1e6)


def squares(rgb: float = 1.0, points: float = 1.0, **changes: object) -> Decision:
    return decision(
        fusion="squares", rgb=modality(weight=rgb), points=modality(image_mean=3.0, image_std=1.0, weight=points),
        **changes,
    )  # fmt: skip


def one_square(z: float) -> float:
    return max(0.0, z) ** 2 + TIE_SLOPE * z


def test_the_score_is_the_sum_of_squares_of_the_positive_parts() -> None:
    """And the map likewise, patch by patch; what lies below the usual adds next to nothing."""
    seen = scores(3.0, 2.0)
    assert fused_score(seen.modalities, squares()) == pytest.approx(one_square(2.0) + one_square(-1.0))
    maps = [one.distance_map.astype(float) for one in seen.modalities.values()]
    expected = sum(np.vectorize(one_square)((one - 1.0) / 0.25) for one in maps)
    np.testing.assert_allclose(fused_map(seen.modalities, squares()), expected, rtol=1e-6)


@given(rgb=DISTANCES, points=DISTANCES, more=DISTANCES)
def test_a_larger_distance_never_scores_lower_and_a_modality_that_does_not_count_changes_nothing(
    rgb: float, points: float, more: float
) -> None:
    seen = scores(rgb, points).modalities
    for name, weight in (("rgb", 1.0), ("points", 1.0), ("points", 0.0)):
        decided = squares(points=weight)
        larger = seen | {name: replace(seen[name], image_distance=seen[name].image_distance + more)}
        before, after = fused_score(seen, decided), fused_score(larger, decided)
        assert after >= before if weight else after == before


@given(distances=st.lists(st.floats(0.0, 2.0), min_size=2, max_size=40, unique_by=lambda value: round(value, 6)))
def test_frames_below_the_usual_keep_an_order(distances: list[float]) -> None:
    """Their squares are all 0; ranks, p-values and an engine's own threshold need different scores."""
    ascending = sorted(distances)
    found = [fused_score(scores(one, 0.0).modalities, squares()) for one in ascending]
    assert all(later > earlier for earlier, later in pairwise(found))
    limit = conformal_threshold(found, 1 / (len(found) + 1))
    assert sum(score > limit for score in found) == 0
    assert p_value(found[-1], found) == pytest.approx(2 / (len(found) + 1))


@pytest.mark.parametrize(
    ("rgb", "points", "words"),
    [
        (0.0, 0.0, "every modality of the decision has a weight of 0"),
        (0.5, 1.0, "decision.rgb.weight is 0.5"),
        (1.0, 2.0, "decision.points.weight is 2.0"),
        (1.0, -1.0, "decision.points.weight is -1.0"),
        (math.nan, 1.0, "decision.rgb.weight is nan"),
        (1.0, math.inf, "decision.points.weight is inf"),
    ],
)
def test_weights_are_0_or_1_and_one_of_them_is_1(rgb: float, points: float, words: str) -> None:
    decided = squares(rgb, points)
    with pytest.raises(EngineError, match=words):
        fused_score(scores().modalities, decided)
    found = judged(scores(), decided)
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.ENGINE)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_weight_of_0_is_for_squares_alone(weight: float) -> None:
    for fusion in ("average", "ocsvm"):
        assert "must be above 0" in weights_fault(msgspec.structs.replace(squares(weight), fusion=fusion))
    assert weights_fault(squares(0.0)) == weights_fault(squares(points=0.0)) == ""


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["rgb", "points"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_distance_that_is_no_number_is_never_ok_even_where_it_does_not_count(
    name: str, bad: float, weight: float
) -> None:
    decided = squares(**{name: weight})
    seen = scores()
    broken = replace(seen, modalities=seen.modalities | {name: replace(seen.modalities[name], image_distance=bad)})  # type: ignore[index]
    assert judged(broken, decided).verdict is Verdict.UNKNOWN


def test_a_square_beyond_any_number_is_never_ok() -> None:
    assert judged(scores(1e200, 3.0), squares(threshold=1e308)).verdict is Verdict.UNKNOWN


def test_noise_in_one_modality_costs_next_to_nothing_where_defects_are_clear() -> None:
    """Defects of 3 to 6 standard deviations in one modality, noise in three more; the average pays for it."""
    rng = np.random.default_rng(0)

    def auroc(fuse, noise: int) -> float:
        good, bad = rng.normal(size=(4000, 1)), rng.uniform(3.0, 6.0, (4000, 1)) + rng.normal(size=(4000, 1))
        both = [np.hstack([one, rng.normal(size=(4000, noise))]) for one in (good, bad)]
        low, high = (fuse(one).sum(axis=1) for one in both)
        return float(np.searchsorted(np.sort(low), high).mean() / len(low))

    def squared(z):
        return np.maximum(0.0, z) ** 2 + TIE_SLOPE * z

    def plain(z):
        return z

    assert auroc(squared, 0) - auroc(squared, 3) < 0.01
    assert auroc(plain, 0) - auroc(plain, 3) > 0.01
