"""Ranges hold normal parts at the promised rate and catch what is grossly missing or wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from asperity.calibration.frames.silhouette import learn_shape
from asperity.calibration.outcome.threshold import choose_rate
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import Silhouette
from asperity.runtime.manifest import Geometry
from asperity.runtime.vision.scoring import outside_range

STATION = Geometry(
    method="none", why="", unit="mm", height_px=256, width_px=256, plane=None, plane_cut_mm=0.0, point_spacing_mm=0.4,
    plane_noise_mm=0.04, cluster_gap_px=3, side_px=200, mm_per_px=0.4, min_points=64, moved_share=1.0, moved_mm=0.0,
)  # fmt: skip


def draw(rng: np.random.Generator, count: int, spread: float = 1.0) -> list[Silhouette]:
    """Normal parts about 80 x 40 x 12 mm."""
    scale = 1 + 0.01 * spread * rng.normal(size=count)
    return [
        Silhouette(
            area_mm2=2900 * s * s + 10 * rng.normal(),
            length_mm=80 * s + 0.2 * rng.normal(),
            width_mm=40 * s + 0.2 * rng.normal(),
            height_mm=12 + 0.1 * rng.normal(),
            missing_share=float(np.clip(0.03 + 0.01 * rng.normal(), 0, 1)),
            level_mm=400 + 0.1 * rng.normal(),
        )
        for s in scale
    ]


def test_calibration_frames_lie_inside_and_gross_defects_outside():
    rng = np.random.default_rng(0)
    learn, calibrate = draw(rng, 150), draw(rng, 50)
    shape = learn_shape(learn, calibrate, STATION)
    assert not shape.widened
    assert not any(outside_range(s, shape.ranges) for s in (*learn, *calibrate))
    good = calibrate[0]
    for change, figure in (
        ({"area_mm2": 0.75 * good.area_mm2}, "area_mm2"),
        ({"length_mm": 70.0}, "length_mm"),
        ({"width_mm": 60.0}, "width_mm"),
        ({"height_mm": 20.0}, "height_mm"),
        ({"missing_share": 0.3}, "missing_share"),
        ({"height_mm": float("nan")}, "height_mm"),
    ):
        found = outside_range(dataclasses.replace(good, **change), shape.ranges)
        assert any(figure in text for text in found)


def test_through_holes_that_are_not_there_show_in_the_missing_points():
    rng = np.random.default_rng(1)
    normal = [dataclasses.replace(s, missing_share=rng.normal(0.045, 0.001)) for s in draw(rng, 60)]
    shape = learn_shape(normal[:45], normal[45:], STATION)
    assert not shape.widened
    assert any(
        "missing_share" in text
        for text in outside_range(dataclasses.replace(normal[0], missing_share=0.036), shape.ranges)
    )
    assert all(limits.low >= 0 for limits in shape.ranges)


def test_identical_parts_still_leave_room_for_rounding_and_noise():
    part = Silhouette(100.0, 20.0, 5.0, 3.0, 0.0, -2.0)
    shape = learn_shape([part] * 20, [part] * 5, STATION)
    within = dataclasses.replace(part, area_mm2=101.5, length_mm=20.4, height_mm=3.07, missing_share=0.002)
    within = dataclasses.replace(within, level_mm=-1.81)
    assert not outside_range(within, shape.ranges)
    gross = ({"area_mm2": 104.0}, {"width_mm": 4.5}, {"height_mm": 3.2}, {"missing_share": 0.01}, {"level_mm": -1.7})
    for change in gross:
        assert outside_range(dataclasses.replace(part, **change), shape.ranges)


def test_a_calibration_frame_outside_widens_the_ranges_and_is_named():
    rng = np.random.default_rng(2)
    learn, calibrate = draw(rng, 100), draw(rng, 30)
    calibrate[7] = dataclasses.replace(calibrate[7], length_mm=95.0)
    shape = learn_shape(learn, calibrate, STATION)
    assert shape.widened_for == (7,)
    assert not any(outside_range(s, shape.ranges) for s in calibrate)


def test_score_and_shape_together_keep_the_promise():
    """Over many calibrations with heavy tails, rejects by score or shape stay within alpha_total on average."""
    rng = np.random.default_rng(3)
    rates, promised, widened = [], [], 0
    for _ in range(150):
        tails = rng.standard_t(3, size=140)
        silhouettes = [dataclasses.replace(s, length_mm=80 + t) for s, t in zip(draw(rng, 140), tails, strict=True)]
        shape = learn_shape(silhouettes[:30], silhouettes[30:40], STATION)
        scores = rng.normal(size=10)
        rate = choose_rate(10, None, shape.widened)
        limit = np.sort(scores)[-rate.allowed]
        new = [rng.normal() > limit or bool(outside_range(s, shape.ranges)) for s in silhouettes[40:]]
        rates.append(np.mean(new))
        promised.append(rate.alpha_total)
        widened += shape.widened
    assert np.mean(rates) <= np.mean(promised) + 0.02
    assert 0 < widened < 150


def test_nothing_to_learn_from_and_broken_figures_are_refused():
    with pytest.raises(CalibrationError, match="no normal frame"):
        learn_shape([], [], STATION)
    broken = Silhouette(float("nan"), 1.0, 1.0, 1.0, 0.0)
    with pytest.raises(CalibrationError, match="not finite"):
        learn_shape([broken], [], STATION)
