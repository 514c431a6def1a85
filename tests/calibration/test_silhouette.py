"""Ranges hold normal parts at the promised rate and catch what is grossly missing or wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from calibration.silhouette import learn_shape
from calibration.threshold import choose_rate
from runtime.errors import CalibrationError
from runtime.frame import Silhouette
from runtime.scoring import outside_range


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
        )
        for s in scale
    ]


def test_calibration_frames_lie_inside_and_gross_defects_outside():
    rng = np.random.default_rng(0)
    learn, calibrate = draw(rng, 150), draw(rng, 50)
    shape = learn_shape(learn, calibrate)
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


def test_nothing_missing_is_never_strange():
    rng = np.random.default_rng(1)
    shape = learn_shape(draw(rng, 30), draw(rng, 10))
    whole = dataclasses.replace(draw(rng, 1, spread=0)[0], missing_share=0.0)
    assert not outside_range(whole, shape.ranges)


def test_identical_parts_still_leave_room_for_rounding_and_noise():
    part = Silhouette(100.0, 20.0, 5.0, 3.0, 0.0)
    shape = learn_shape([part] * 20, [part] * 5)
    assert not outside_range(dataclasses.replace(part, area_mm2=100.5, missing_share=0.005), shape.ranges)
    assert outside_range(dataclasses.replace(part, area_mm2=104.0), shape.ranges)


def test_a_calibration_frame_outside_widens_the_ranges_and_is_named():
    rng = np.random.default_rng(2)
    learn, calibrate = draw(rng, 100), draw(rng, 30)
    calibrate[7] = dataclasses.replace(calibrate[7], length_mm=95.0)
    shape = learn_shape(learn, calibrate)
    assert shape.widened_for == (7,)
    assert not any(outside_range(s, shape.ranges) for s in calibrate)


def test_score_and_shape_together_keep_the_promise():
    """Over many calibrations with heavy tails, rejects by score or shape stay within alpha_total on average."""
    rng = np.random.default_rng(3)
    rates, promised, widened = [], [], 0
    for _ in range(150):
        tails = rng.standard_t(3, size=140)
        silhouettes = [dataclasses.replace(s, length_mm=80 + t) for s, t in zip(draw(rng, 140), tails, strict=True)]
        shape = learn_shape(silhouettes[:30], silhouettes[30:40])
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
        learn_shape([], [])
    broken = Silhouette(float("nan"), 1.0, 1.0, 1.0, 0.0)
    with pytest.raises(CalibrationError, match="not finite"):
        learn_shape([broken], [])
