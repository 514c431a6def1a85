"""From distances to a score, a threshold and a map: every number against its formula."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from asperity.runtime.errors import CalibrationError, EngineError
from asperity.runtime.frame import Verdict, Window
from asperity.runtime.reasons import Reason
from asperity.runtime.vision import maps
from asperity.runtime.vision.distances import ModalityBank, image_distance, measure
from asperity.runtime.vision.features import Patches
from asperity.runtime.vision.maps import MAP_PX, pixel_map, source_map, worst_region
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.scoring import conformal_threshold, deciding_modality, fused_map, fused_score, p_value
from tests.runtime.vision.scored_frame import decision, judged, modality, scores

# --- distances -------------------------------------------------------------------------------------------------------


def test_image_distance_is_the_published_formula() -> None:
    """Section 7.3 written out: m* dropped from its 3 nearest rows, only the two others in the denominator."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 12)).astype(np.float32)
    worst = random.normal(size=12).astype(np.float32) * 2
    distances = np.linalg.norm(rows.astype(float) - worst, axis=1)
    nearest = int(distances.argmin())
    others = np.argsort(np.linalg.norm(rows.astype(float) - rows[nearest], axis=1))[1:3]
    root = math.sqrt(12)
    denominator = sum(math.exp(distances[row] / root) for row in others)
    expected = (1 - math.exp(distances[nearest] / root) / denominator) * distances[nearest]
    found = image_distance(worst, float(distances[nearest]), nearest, MemoryBank(rows))
    assert found == pytest.approx(expected, rel=1e-9)
    patchcore = denominator + math.exp(distances[nearest] / root)
    assert found != pytest.approx((1 - math.exp(distances[nearest] / root) / patchcore) * distances[nearest], rel=1e-3)


def test_image_distance_of_far_patches_does_not_overflow() -> None:
    """exp(5000) has no float, the quotient has."""
    rows = np.eye(4, dtype=np.float32)
    worst = np.array([10_000.0, 0, 0, 0], np.float32)
    found = image_distance(worst, 9_999.0, 0, MemoryBank(rows))
    assert math.isfinite(found) and found > 0


def test_a_bank_too_small_to_reweight_is_an_error() -> None:
    """m* and two others are needed."""
    with pytest.raises(EngineError, match="2 rows"):
        image_distance(np.zeros(3, np.float32), 1.0, 0, MemoryBank(np.ones((2, 3), np.float32)))


def banks(random: np.random.Generator) -> tuple[ModalityBank, ModalityBank]:
    return tuple(  # type: ignore[return-value]
        ModalityBank(MemoryBank(random.normal(size=(30, width)).astype(np.float32)), 0.5, 2.0) for width in (5, 6)
    )


@pytest.mark.parametrize("rgb_grid", [4, 2])
def test_measure_scores_foreground_that_is_inspected(rgb_grid: int) -> None:
    """Distances of standardised features; on a coarser RGB grid each token's distance stands in all its patches."""
    random = np.random.default_rng(1)
    rgb_bank, points_bank = banks(random)
    nonempty = random.random((4, 4)) > 0.4
    inspect = np.ones((4, 4), bool)
    inspect[0] = False
    patches = Patches(
        {
            "rgb": random.normal(size=(rgb_grid**2, 5)).astype(np.float32),
            "points": random.normal(size=(16, 6)).astype(np.float32),
        },
        nonempty,
    )
    found, scored = measure(patches, inspect, {"rgb": rgb_bank, "points": points_bank})
    colours = patches.features["rgb"].reshape(rgb_grid, rgb_grid, 5).repeat(4 // rgb_grid, 0).repeat(4 // rgb_grid, 1)
    np.testing.assert_array_equal(scored, nonempty & inspect)
    for seen, bank, features in (
        (found["rgb"], rgb_bank, colours),
        (found["points"], points_bank, patches.features["points"].reshape(4, 4, 6)),
    ):
        standardised = (features.astype(float) - 0.5) / 2.0
        expected = np.linalg.norm(standardised[:, :, None] - bank.memory.rows, axis=3).min(axis=2) * scored
        np.testing.assert_allclose(seen.distance_map, expected, rtol=1e-5, atol=1e-6)
        assert 0 < seen.image_distance < seen.distance_map.max()


def test_an_empty_patch_never_counts_for_the_image_distance() -> None:
    """The strangest feature of all lies where there is no part."""
    random = np.random.default_rng(2)
    rgb_bank, points_bank = banks(random)
    points = random.normal(size=(16, 6)).astype(np.float32)
    points[0] = 1000.0
    nonempty = np.ones((4, 4), bool)
    rgb = np.zeros((16, 5), np.float32)
    both = {"rgb": rgb_bank, "points": points_bank}
    far = measure(Patches({"rgb": rgb, "points": points}, nonempty), np.ones((4, 4), bool), both)[0]["points"]
    nonempty = nonempty.copy()
    nonempty[0, 0] = False
    near = measure(Patches({"rgb": rgb, "points": points}, nonempty), np.ones((4, 4), bool), both)[0]["points"]
    assert far.image_distance > 100 > near.image_distance
    assert near.distance_map[0, 0] == 0


def test_nothing_to_score_gives_zeros_and_no_verdict() -> None:
    """A mask that covers the part, or a part of no patches."""
    rgb_bank, points_bank = banks(np.random.default_rng(3))
    features = {"rgb": np.zeros((16, 5), np.float32), "points": np.zeros((16, 6), np.float32)}
    nothing, scored = measure(
        Patches(features, np.ones((4, 4), bool)), np.zeros((4, 4), bool), {"rgb": rgb_bank, "points": points_bank}
    )
    assert not scored.any() and nothing["rgb"].image_distance == nothing["points"].image_distance == 0
    found = judged(replace(scores(), modalities=nothing, scored=scored))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.TOO_FEW_POINTS)


def test_rgb_tokens_that_do_not_fit_the_grid_are_an_error() -> None:
    """A graph of another profile."""
    rgb_bank, points_bank = banks(np.random.default_rng(3))
    features = {"rgb": np.zeros((9, 5), np.float32), "points": np.zeros((16, 6), np.float32)}
    with pytest.raises(EngineError, match="9 tokens"):
        measure(
            Patches(features, np.ones((4, 4), bool)), np.ones((4, 4), bool), {"rgb": rgb_bank, "points": points_bank}
        )


def test_a_modality_that_a_bank_is_of_and_the_frame_lacks_is_an_error() -> None:
    """An engine that leaves a modality out must not judge."""
    rgb_bank, points_bank = banks(np.random.default_rng(3))
    patches = Patches({"rgb": np.zeros((16, 5), np.float32)}, np.ones((4, 4), bool))
    with pytest.raises(EngineError, match="no points features"):
        measure(patches, np.ones((4, 4), bool), {"rgb": rgb_bank, "points": points_bank})
    with pytest.raises(EngineError, match="the engine scored rgb and the decision is about rgb, points"):
        fused_score({"rgb": scores().modalities["rgb"]}, decision())
    found = judged(replace(scores(), modalities={"rgb": scores().modalities["rgb"]}))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.ENGINE)


# --- fusion, p-value, threshold --------------------------------------------------------------------------------------


def test_fusion_is_the_weighted_sum_of_standardised_distances() -> None:
    """Both for the image and, patch by patch, for the map."""
    seen, decided = scores(3.0, 5.0), decision()
    assert fused_score(seen.modalities, decided) == pytest.approx(0.5 * (3 - 2) / 0.5 + 0.5 * (5 - 3) / 1.0)
    expected = (
        0.5 * (seen.modalities["rgb"].distance_map - 1) / 0.25
        + 0.5 * (seen.modalities["points"].distance_map - 1) / 0.25
    )
    np.testing.assert_allclose(fused_map(seen.modalities, decided), expected, rtol=1e-6)
    raw = decision(
        fusion="ocsvm",
        rgb=modality(image_mean=0.0, image_std=1.0, weight=0.02),
        points=modality(image_mean=0.0, image_std=1.0, weight=0.3),
    )
    assert fused_score(seen.modalities, raw) == pytest.approx(0.02 * 3 + 0.3 * 5)


@pytest.mark.parametrize(
    "bad",
    [
        {"rgb": modality(weight=0.0)},
        {"points": modality(weight=-0.1)},
        {"rgb": modality(image_std=0.0)},
        {"points": modality(patch_std=math.nan)},
        {"rgb": modality(image_mean=math.inf)},
        {"fusion": "vote"},
    ],
)
def test_constants_that_cannot_be_are_an_error_and_never_ok(bad: dict[str, object]) -> None:
    """A weight at or below 0 would let a modality vouch for defects."""
    seen, decided = scores(), decision(**bad)
    with pytest.raises(EngineError):
        fused_score(seen.modalities, decided)
    found = judged(seen, decided)
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.ENGINE)


def test_p_value_counts_calibration_scores_at_least_as_high() -> None:
    """(1 + #{>= s}) / (n + 1); never 0."""
    calibration = [1.0, 2.0, 2.0, 3.0]
    assert [p_value(s, calibration) for s in (0.0, 2.0, 2.5, 9.0)] == [1.0, 0.8, 0.4, 0.2]


@given(
    n=st.integers(1, 60),
    ranks=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_the_threshold_is_the_conformal_order_statistic(n: int, ranks: int, seed: int) -> None:
    """For alpha = j/(n+1), exactly j - 1 calibration scores are above; by definition k = ceil((n+1)(1-alpha))."""
    values = np.random.default_rng(seed).normal(size=n)
    alpha = ranks / (n + 1)
    if ranks > n:
        return
    threshold = conformal_threshold(values, alpha)
    assert threshold == np.sort(values)[n - ranks]
    assert (values > threshold).sum() == ranks - 1
    assert p_value(threshold + 1e-9, values) <= alpha + 1e-12


def test_the_false_reject_rate_holds_on_fresh_scores() -> None:
    """Mean over calibrations of P(new > threshold) is alpha; without the +1 it would be above it."""
    random = np.random.default_rng(5)
    alpha, n = 0.1, 39
    draws = random.normal(size=(4000, n))
    fresh = random.normal(size=4000)
    thresholds = np.array([conformal_threshold(draw, alpha) for draw in draws])
    assert (fresh > thresholds).mean() == pytest.approx(alpha, abs=0.015)
    naive = np.sort(draws, axis=1)[:, math.ceil(n * (1 - alpha)) - 2]
    assert (fresh > naive).mean() > alpha + 0.02


@pytest.mark.parametrize(("alpha", "needed"), [(0.01, 99), (0.001, 999), (0.02, 49)])
def test_a_rate_that_is_not_attainable_is_refused_with_the_number_it_needs(alpha: float, needed: int) -> None:
    """One frame fewer than needed is refused, exactly as many are enough."""
    with pytest.raises(CalibrationError, match=f"needs {needed} calibration frames"):
        conformal_threshold(np.arange(needed - 1.0), alpha)
    assert conformal_threshold(np.arange(float(needed)), alpha) == needed - 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_impossible_rates_are_refused(alpha: float) -> None:
    """A rate is a share."""
    with pytest.raises(CalibrationError, match="false-reject rate"):
        conformal_threshold([1.0] * 200, alpha)


def test_a_calibration_score_that_is_no_number_is_refused() -> None:
    """NaN sorts anywhere."""
    with pytest.raises(CalibrationError, match="finite"):
        conformal_threshold([1.0, math.nan, 2.0], 0.5)


# --- maps ------------------------------------------------------------------------------------------------------------


def test_pixel_map_is_bilinear_upsampling_then_blur() -> None:
    """Against upsampling written out and scipy's Gaussian of sigma 4."""
    patches = np.random.default_rng(6).random((28, 28)).astype(np.float32)
    at = np.clip((np.arange(MAP_PX) + 0.5) * 28 / MAP_PX - 0.5, 0, 27)
    low = np.minimum(at.astype(int), 26)
    rest = at - low
    rows = patches[low] * (1 - rest)[:, None] + patches[low + 1] * rest[:, None]
    upsampled = rows[:, low] * (1 - rest) + rows[:, low + 1] * rest
    expected = ndimage.gaussian_filter(upsampled.astype(float), 4.0, mode="nearest")
    found = pixel_map(patches)
    assert found.shape == (224, 224) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(pixel_map(np.full((28, 28), 3.0, np.float32)), 3.0, rtol=1e-6)


def test_source_map_lays_the_window_on_the_frame() -> None:
    """A spot in the window appears at its place in the frame; beyond the window there is the given value."""
    pixels = np.zeros((224, 224), np.float32)
    pixels[100:108, 40:48] = 1.0
    placed = source_map(pixels, Window(-10, 30, 112), 120, 160, outside=-5.0)
    assert placed.shape == (120, 160)
    rows, columns = np.nonzero(placed > 0.5)
    assert (rows.min(), rows.max()) == (80, 83) and (columns.min(), columns.max()) == (10, 13)
    assert (placed[:30] == -5).all() and (placed[:, 102:] == -5).all()


def test_worst_region_is_the_peak_in_source_pixels() -> None:
    """Two spots: the higher one, its size by the window's scale; clipped to the frame; none in a flat map."""
    pixels = np.zeros((224, 224), np.float32)
    pixels[20:40, 60:100] = 2.0
    pixels[150:200, 150:200] = 1.5
    everywhere = np.ones((4, 4), bool)
    region = worst_region(pixels, everywhere, Window(16, 8, 112), 200, 200)
    assert region is not None
    assert (region.x, region.y, region.w, region.h, region.area_px) == (46, 18, 20, 10, 200)
    clipped = worst_region(pixels, everywhere, Window(-40, 8, 112), 200, 200)
    assert clipped is not None and (clipped.x, clipped.w) == (0, 10) and clipped.area_px <= 100
    assert worst_region(pixels, everywhere, Window(-90, 8, 112), 200, 200) is None
    assert worst_region(np.ones((224, 224), np.float32), everywhere, Window(0, 0, 100), 200, 200) is None


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30), st.floats(0.02, 0.98))
def test_the_area_around_a_pixel_is_the_one_that_scipy_labels(seed: int, rows: int, columns: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    above = rng.random((rows, columns)) < share
    peak = int(rng.integers(above.size))
    above.flat[peak] = True
    labels, _ = ndimage.label(above, structure=np.ones((3, 3)))
    area = labels == labels.flat[peak]
    at_rows, at_columns = np.nonzero(area)
    expected = (at_rows.min(), at_rows.max()), (at_columns.min(), at_columns.max()), area.sum()
    assert maps._area_around(peak, above) == expected


@pytest.mark.parametrize("grid", [1, 2, 7, 28, 56])
def test_the_blur_is_scipys(grid: int) -> None:
    values = np.random.default_rng(grid).random((MAP_PX, grid))
    expected = ndimage.gaussian_filter1d(values, maps.BLUR_SIGMA_PX, axis=0, mode="nearest")
    np.testing.assert_allclose(maps._blurred(values), expected, rtol=0, atol=1e-15)


# --- the deciding modality -------------------------------------------------------------------------------------------


@given(rgb=st.floats(0, 20), points=st.floats(0, 20), heavy=st.floats(0.1, 3))
def test_the_deciding_modality_is_the_score_s_largest_term(rgb: float, points: float, heavy: float) -> None:
    """Taking it away lowers the score by most: to what is usual, image_mean."""
    decided = decision(fusion="ocsvm", rgb=modality(weight=heavy))
    seen = scores(rgb, points).modalities
    usual = {name: one.image_mean for name, one in decided.modalities().items()}

    def without(name: str) -> float:
        calm = {key: replace(one, image_distance=usual[name]) if key == name else one for key, one in seen.items()}
        return fused_score(seen, decided) - fused_score(calm, decided)

    found = deciding_modality(seen, decided)
    assert found is not None
    assert without(found) >= max(map(without, seen)) - 1e-9


def test_which_modality_decided_is_told_of_verdicts_by_the_score() -> None:
    assert (judged(scores(rgb=9.0)).verdict, judged(scores(rgb=9.0)).modality) == (Verdict.NG, "rgb")
    assert judged(scores(points=9.0)).modality == "points"
    assert judged(scores()).modality == "rgb"  # both as usual: the first
    small = replace(scores().silhouette, area_mm2=1.0)
    by_shape = judged(scores(silhouette=small))
    assert (by_shape.reason, by_shape.modality) == (Reason.SHAPE_OUT_OF_RANGE, None)
    assert judged(scores(), decision(timing_only=True)).modality is None
    assert judged(scores(rgb=math.nan)).modality is None
    assert deciding_modality(scores(rgb=math.inf).modalities, decision()) is None
    assert deciding_modality(scores(rgb=9.0).modalities, decision(rgb=modality(weight=0.0))) == "points"
