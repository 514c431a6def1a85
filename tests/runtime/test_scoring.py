"""From distances to a verdict: every number against its formula, and ok only where it is proven."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from synthetic_station import plane_geometry, shoot

import runtime
from runtime.distances import ModalityBank, image_distance, measure
from runtime.errors import CalibrationError, EngineError
from runtime.features import Patches
from runtime.frame import ModalityScores, Scores, Silhouette, Verdict, Window
from runtime.knn import MemoryBank
from runtime.manifest import Decision, Modality, SilhouetteRange
from runtime.maps import MAP_PX, pixel_map, source_map, worst_region
from runtime.reasons import Reason
from runtime.scoring import (
    conformal_threshold,
    decide,
    fused_map,
    fused_score,
    outside_range,
    p_value,
)

SILHOUETTE = Silhouette(area_mm2=100.0, length_mm=20.0, width_mm=5.0, height_mm=3.0, missing_share=0.01)
RANGES = (SilhouetteRange("area_mm2", 90.0, 110.0), SilhouetteRange("missing_share", 0.0, 0.05))
GEOMETRY = plane_geometry(shoot())


def modality(**changes: float) -> Modality:
    values = {
        "feature_mean": 0.0, "feature_std": 1.0, "image_mean": 2.0, "image_std": 0.5, "patch_mean": 1.0,
        "patch_std": 0.25, "weight": 0.5, "bank_rows": 10,
    }  # fmt: skip
    return Modality(**{**values, **changes})  # type: ignore[arg-type]


def decision(**changes: object) -> Decision:
    values: dict[str, object] = {
        "engine": "cpu", "precision": "fp32", "rgb": modality(), "points": modality(image_mean=3.0, image_std=1.0),
        "fusion": "average", "threshold": 1.0, "alpha": 0.1, "alpha_total": 0.2,
        "calibration_scores": tuple(float(score) for score in np.linspace(-1, 1, 9)),
    }  # fmt: skip
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


def scores(rgb: float = 2.0, points: float = 3.0, silhouette: Silhouette = SILHOUETTE, grid: int = 4) -> Scores:
    scored = np.zeros((grid, grid), bool)
    scored[1:3, 1:4] = True
    with np.errstate(over="ignore"):
        maps = [np.where(scored, np.float32(distance), np.float32(0)) for distance in (rgb, points)]
    maps[1][2, 3] *= 1.5
    return Scores(ModalityScores(maps[0], rgb), ModalityScores(maps[1], points), scored, Window(10, 20, 80), silhouette)


def judged(seen: Scores, decided: Decision | None = None, ranges: tuple[SilhouetteRange, ...] = RANGES):
    return decide(seen, decided or decision(), ranges, GEOMETRY)


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
        random.normal(size=(rgb_grid**2, 5)).astype(np.float32),
        random.normal(size=(16, 6)).astype(np.float32),
        nonempty,
    )
    rgb, points, scored = measure(patches, inspect, rgb_bank, points_bank)
    np.testing.assert_array_equal(scored, nonempty & inspect)
    for seen, bank, features in (
        (rgb, rgb_bank, patches.rgb.reshape(rgb_grid, rgb_grid, 5).repeat(4 // rgb_grid, 0).repeat(4 // rgb_grid, 1)),
        (points, points_bank, patches.points.reshape(4, 4, 6)),
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
    far = measure(Patches(rgb, points, nonempty), np.ones((4, 4), bool), rgb_bank, points_bank)[1]
    nonempty = nonempty.copy()
    nonempty[0, 0] = False
    near = measure(Patches(rgb, points, nonempty), np.ones((4, 4), bool), rgb_bank, points_bank)[1]
    assert far.image_distance > 100 > near.image_distance
    assert near.distance_map[0, 0] == 0


def test_nothing_to_score_gives_zeros_and_no_verdict() -> None:
    """A mask that covers the part, or a part of no patches."""
    rgb_bank, points_bank = banks(np.random.default_rng(3))
    patches = Patches(np.zeros((16, 5), np.float32), np.zeros((16, 6), np.float32), np.ones((4, 4), bool))
    rgb, points, scored = measure(patches, np.zeros((4, 4), bool), rgb_bank, points_bank)
    assert not scored.any() and rgb.image_distance == points.image_distance == 0
    found = judged(replace(scores(), rgb=rgb, points=points, scored=scored))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, Reason.TOO_FEW_POINTS)


def test_rgb_tokens_that_do_not_fit_the_grid_are_an_error() -> None:
    """A graph of another profile."""
    rgb_bank, points_bank = banks(np.random.default_rng(3))
    patches = Patches(np.zeros((9, 5), np.float32), np.zeros((16, 6), np.float32), np.ones((4, 4), bool))
    with pytest.raises(EngineError, match="9 RGB tokens"):
        measure(patches, np.ones((4, 4), bool), rgb_bank, points_bank)


# --- fusion, p-value, threshold --------------------------------------------------------------------------------------


def test_fusion_is_the_weighted_sum_of_standardised_distances() -> None:
    """Both for the image and, patch by patch, for the map."""
    seen, decided = scores(3.0, 5.0), decision()
    assert fused_score(seen.rgb, seen.points, decided) == pytest.approx(0.5 * (3 - 2) / 0.5 + 0.5 * (5 - 3) / 1.0)
    expected = 0.5 * (seen.rgb.distance_map - 1) / 0.25 + 0.5 * (seen.points.distance_map - 1) / 0.25
    np.testing.assert_allclose(fused_map(seen.rgb, seen.points, decided), expected, rtol=1e-6)
    raw = decision(
        fusion="ocsvm",
        rgb=modality(image_mean=0.0, image_std=1.0, weight=0.02),
        points=modality(image_mean=0.0, image_std=1.0, weight=0.3),
    )
    assert fused_score(seen.rgb, seen.points, raw) == pytest.approx(0.02 * 3 + 0.3 * 5)


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
        fused_score(seen.rgb, seen.points, decided)
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


# --- decide ----------------------------------------------------------------------------------------------------------


def test_a_good_frame_is_ok() -> None:
    """Score at the threshold included: above is what rejects."""
    found = judged(scores())
    assert (found.verdict, found.reason, found.score) == (Verdict.OK, Reason.GOOD, 0.0)
    assert found.threshold == 1.0 and found.p_value == pytest.approx((1 + 5) / 10)
    at = judged(scores(), decision(threshold=0.0))
    assert at.verdict is Verdict.OK
    assert judged(scores(), decision(threshold=math.nextafter(0.0, -1.0))).verdict is Verdict.NG


def test_a_score_above_is_ng_with_the_worst_spot() -> None:
    """The spot lies in source pixels around the strangest patch."""
    found = judged(scores(points=9.0))
    assert (found.verdict, found.reason) == (Verdict.NG, Reason.SCORE_ABOVE_THRESHOLD)
    assert found.score == pytest.approx(3.0) and found.region is not None
    middle = 10 + 80 * 3.5 / 4, 20 + 80 * 2.5 / 4  # patch (2, 3) of a window at (10, 20) with side 80
    assert abs(found.region.x + found.region.w / 2 - middle[0]) < 15
    assert abs(found.region.y + found.region.h / 2 - middle[1]) < 15


def test_a_strange_outline_is_ng_though_the_score_is_low() -> None:
    """Material that is gone leaves no patch to score."""
    found = judged(scores(silhouette=replace(SILHOUETTE, area_mm2=70.0)))
    assert (found.verdict, found.reason) == (Verdict.NG, Reason.SHAPE_OUT_OF_RANGE)
    assert "area_mm2" in found.detail
    both = judged(scores(points=9.0, silhouette=replace(SILHOUETTE, area_mm2=70.0)))
    assert both.reason is Reason.SCORE_ABOVE_THRESHOLD


@pytest.mark.parametrize("figure", ["area_mm2", "missing_share"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_is_outside(figure: str, value: float) -> None:
    """And so is a figure that this version does not know."""
    assert outside_range(replace(SILHOUETTE, **{figure: value}), RANGES)
    assert outside_range(SILHOUETTE, (SilhouetteRange("weight_g", 0.0, 1.0),))
    assert not outside_range(SILHOUETTE, RANGES)


def damaged() -> Iterator[tuple[str, Scores, Decision]]:
    """Everything that could pass for a low score and is none."""
    good = scores()
    for name in ("rgb", "points"):
        own: ModalityScores = getattr(good, name)
        for value in (math.nan, math.inf, -math.inf, -1.0):
            yield f"{name} {value}", replace(good, **{name: replace(own, image_distance=value)}), decision()
            spoiled = own.distance_map.copy()
            spoiled[0, 0] = value
            yield f"{name} map {value}", replace(good, **{name: replace(own, distance_map=spoiled)}), decision()
        smaller = replace(own, distance_map=own.distance_map[1:])
        yield f"{name} shape", replace(good, **{name: smaller}), decision()
    yield "nothing scored", replace(good, scored=np.zeros_like(good.scored)), decision()
    for threshold in (math.nan, math.inf):
        yield f"threshold {threshold}", good, decision(threshold=threshold)
    yield "no calibration scores", good, decision(calibration_scores=())
    yield "overflow", scores(rgb=1e30), decision(rgb=modality(image_std=1e-300))


@pytest.mark.parametrize(("seen", "decided"), [pytest.param(s, d, id=name) for name, s, d in damaged()])
def test_damage_is_unknown_and_carries_no_numbers(seen: Scores, decided: Decision) -> None:
    """No error may ever look like a good part."""
    with np.errstate(all="ignore"):
        found = judged(seen, decided)
    assert found.verdict is Verdict.UNKNOWN and found.detail
    assert found.score is found.threshold is found.p_value is found.region is None


@given(
    rgb=st.floats(allow_nan=True, allow_infinity=True, width=32),
    points=st.floats(allow_nan=True, allow_infinity=True, width=32),
    threshold=st.floats(allow_nan=True, allow_infinity=True),
    area=st.floats(allow_nan=True, allow_infinity=True),
)
def test_ok_only_when_all_is_finite_and_within(rgb: float, points: float, threshold: float, area: float) -> None:
    """Whatever the numbers, ok means: finite, not negative, at or below the threshold, shape within range."""
    with np.errstate(all="ignore"):
        found = judged(scores(rgb, points, replace(SILHOUETTE, area_mm2=area)), decision(threshold=threshold))
    if found.verdict is Verdict.OK:
        assert all(math.isfinite(v) for v in (rgb, points, threshold, area)) and min(rgb, points) >= 0
        assert found.score is not None and found.score <= threshold
        assert 90 <= area <= 110


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


# --- the only place that may say ok ----------------------------------------------------------------------------------

MAY_PRODUCE_OK = {
    "runtime/scoring.py": "decide says it",
    "runtime/wire/result.py": "a received result is decoded; whoever sent it had it from decide",
}


def produces_ok(tree: ast.AST) -> list[int]:
    """Lines where ``Verdict.OK`` stands as a value: not compared with, not a key or index, not a match pattern."""
    harmless: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            harmless.update([node.left, *node.comparators])
            harmless.update(part for side in node.comparators if isinstance(side, ast.Tuple) for part in side.elts)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "int":
            harmless.update(node.args)
        elif isinstance(node, ast.Dict):
            harmless.update(key for key in node.keys if key is not None)
        elif isinstance(node, ast.Subscript):
            harmless.add(node.slice)
        elif isinstance(node, ast.MatchValue):
            harmless.add(node.value)
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "OK"
        and isinstance(node.value, ast.Name)
        and node.value.id == "Verdict"
        and node not in harmless
    ]


def test_verdict_ok_is_produced_by_decide_alone() -> None:
    """Everywhere else in runtime it is compared with or looked up. Decoding calls Verdict(number), in wire only."""
    root = Path(runtime.__file__).parent
    producers, decoders = {}, set()
    for path in sorted(root.rglob("*.py")):
        name = f"runtime/{path.relative_to(root).as_posix()}"
        tree = ast.parse(path.read_text())
        if lines := produces_ok(tree):
            producers[name] = lines
        for node in ast.walk(tree):
            made = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else None
            if isinstance(made, ast.Name) and made.id == "Verdict":
                decoders.add(name)
    assert set(producers) == set(MAY_PRODUCE_OK)
    assert all(len(lines) == 1 for lines in producers.values()), producers
    assert all(name.startswith("runtime/wire") for name in decoders), decoders


def test_the_walk_would_see_an_ok_that_is_produced() -> None:
    """Control: the same walk on code that says ok, and on code that only asks."""
    assert produces_ok(ast.parse("result = make(verdict=Verdict.OK)")) == [1]
    assert produces_ok(ast.parse("x = Verdict.OK if good else Verdict.NG")) == [1]
    assert produces_ok(ast.parse("return (Verdict.OK,)")) == [1]
    assert produces_ok(ast.parse("if v is Verdict.OK: stop(NAMES[Verdict.OK], {Verdict.OK: 'ok'})")) == []
    assert produces_ok(ast.parse("v in (Verdict.OK, Verdict.NG) and int(Verdict.OK)")) == []


def test_decisions_survive_the_manifest() -> None:
    """The same verdict after the decision went through JSON, to the last digit."""
    decided = decision(threshold=0.1 + 0.2)
    back = msgspec.json.decode(msgspec.json.encode(decided), type=Decision)
    assert judged(scores(), back) == judged(scores(), decided)
