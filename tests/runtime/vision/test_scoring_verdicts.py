"""From a score to a verdict: ok only where it is proven, and said in one place only."""

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

from asperity import runtime
from asperity.runtime.frame import ModalityName, ModalityScores, Scores, Verdict
from asperity.runtime.manifest import Decision, SilhouetteRange
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.scoring import outside_range
from tests.runtime.vision.scored_frame import RANGES, SILHOUETTE, decision, judged, modality, scores

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


@pytest.mark.parametrize("figure", ["area_mm2", "missing_share"])
def test_a_range_holds_both_of_its_ends_and_nothing_beyond(figure: str) -> None:
    (limits,) = [each for each in RANGES if each.figure == figure]
    for end, beyond in ((limits.low, -math.inf), (limits.high, math.inf)):
        assert not outside_range(replace(SILHOUETTE, **{figure: end}), RANGES)
        assert outside_range(replace(SILHOUETTE, **{figure: math.nextafter(end, beyond)}), RANGES)


def damaged() -> Iterator[tuple[str, Scores, Decision]]:
    """Everything that could pass for a low score and is none."""
    good = scores()

    def with_one(name: ModalityName, one: ModalityScores) -> Scores:
        return replace(good, modalities=good.modalities | {name: one})

    for name, own in good.modalities.items():
        for value in (math.nan, math.inf, -math.inf, -1.0):
            yield f"{name} {value}", with_one(name, replace(own, image_distance=value)), decision()
            spoiled = own.distance_map.copy()
            spoiled[0, 0] = value
            yield f"{name} map {value}", with_one(name, replace(own, distance_map=spoiled)), decision()
        smaller = replace(own, distance_map=own.distance_map[1:])
        yield f"{name} shape", with_one(name, smaller), decision()
    yield "nothing scored", replace(good, scored=np.zeros_like(good.scored)), decision()
    for threshold in (math.nan, math.inf):
        yield f"threshold {threshold}", good, decision(threshold=threshold)
    yield "no calibration scores", good, decision(calibration_scores=())
    yield "overflow", scores(rgb=1e30), decision(rgb=modality(image_std=1e-300))
    yield "overflow of the map alone", scores(), decision(rgb=modality(patch_std=1e-300), threshold=1e9)


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


def test_decisions_survive_the_manifest() -> None:
    """The same verdict after the decision went through JSON, to the last digit."""
    decided = decision(threshold=0.1 + 0.2)
    back = msgspec.json.decode(msgspec.json.encode(decided), type=Decision)
    assert judged(scores(), back) == judged(scores(), decided)


# --- the only place that may say ok ----------------------------------------------------------------------------------


MAY_PRODUCE_OK = {
    "runtime/vision/scoring.py": ["decide", "combine"],
    "runtime/wire/result.py": ["_believed"],  # a received result is decoded; whoever sent it had it from those
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


def function_of(tree: ast.AST, line: int) -> str:
    """The function that a line lies in."""
    within = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return next(node.name for node in within if node.lineno <= line <= (node.end_lineno or 0))


def test_verdict_ok_is_produced_by_decide_alone() -> None:
    """Of a frame, and by combine of a part. Everywhere else in runtime it is compared with or looked up. Decoding
    calls Verdict(number), in wire only."""
    root = Path(runtime.__file__).parent
    producers, decoders = {}, set()
    for path in sorted(root.rglob("*.py")):
        name = f"runtime/{path.relative_to(root).as_posix()}"
        tree = ast.parse(path.read_text())
        if lines := produces_ok(tree):
            producers[name] = [function_of(tree, line) for line in sorted(lines)]
        for node in ast.walk(tree):
            made = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else None
            if isinstance(made, ast.Name) and made.id == "Verdict":
                decoders.add(name)
    assert producers == MAY_PRODUCE_OK
    assert all(name.startswith("runtime/wire") for name in decoders), decoders


def test_the_walk_would_see_an_ok_that_is_produced() -> None:
    """Control: the same walk on code that says ok, and on code that only asks."""
    assert produces_ok(ast.parse("result = make(verdict=Verdict.OK)")) == [1]
    assert produces_ok(ast.parse("x = Verdict.OK if good else Verdict.NG")) == [1]
    assert produces_ok(ast.parse("return (Verdict.OK,)")) == [1]
    assert produces_ok(ast.parse("if v is Verdict.OK: stop(NAMES[Verdict.OK], {Verdict.OK: 'ok'})")) == []
    assert produces_ok(ast.parse("v in (Verdict.OK, Verdict.NG) and int(Verdict.OK)")) == []
