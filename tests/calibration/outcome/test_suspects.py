"""Bad parts among the good are proposed, good ones hardly ever, and nobody is excluded without a person."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from asperity.calibration.banks.reference import FrameDistances
from asperity.calibration.outcome.suspects import LIMIT, suspects
from asperity.calibration.outcome.threshold import choose_rate, promise, with_excluded
from asperity.runtime.frame import ModalityScores

FIT, HELD_OUT = 39, 21
SPLITS = ["fit"] * FIT + ["tune"] * 6 + ["calibrate"] * (HELD_OUT - 6)
NAMES = [f"{index:03d}" for index in range(FIT + HELD_OUT)]


def frames(rng: np.random.Generator, spoiled: dict[int, float] | None = None) -> list[FrameDistances]:
    """Distances of good frames, skewed as maxima are; those of the banks somewhat higher."""
    found = []
    for index in range(len(NAMES)):
        values = {name: float(rng.gumbel(4.5 if index < FIT else 4.0, 0.4)) for name in ("rgb", "points")}
        values["points"] += (spoiled or {}).get(index, 0.0)
        modalities = {name: ModalityScores(np.zeros((2, 2), np.float32), value) for name, value in values.items()}
        found.append(FrameDistances(modalities, np.ones((2, 2), bool)))
    return found


def test_control_of_good_frames_alone_hardly_any_is_proposed() -> None:
    counts = [len(suspects(NAMES, SPLITS, frames(np.random.default_rng(seed)))) for seed in range(200)]
    assert np.mean(counts) < 1.0  # of 60
    assert max(counts) <= 4


@pytest.mark.parametrize("bad", [[3], [3, 17, 50], [1, 9, 20, 33, 45, 58]])
def test_bad_parts_are_proposed_wherever_they_serve(bad: list[int]) -> None:
    for seed in range(20):
        found = suspects(NAMES, SPLITS, frames(np.random.default_rng(seed), dict.fromkeys(bad, 8.0)))
        proposed = {one.name: one for one in found}
        assert {NAMES[i] for i in bad} <= proposed.keys()
        assert len(proposed) <= len(bad) + 3
        for index in bad:
            one = proposed[NAMES[index]]
            assert one.split == SPLITS[index]
            assert one.deviations["points"] > max(LIMIT, one.deviations["rgb"])


def test_frames_that_are_all_alike_propose_nothing() -> None:
    same = FrameDistances({"rgb": ModalityScores(np.zeros((2, 2), np.float32), 1.0)}, np.ones((2, 2), bool))
    assert suspects(NAMES, SPLITS, [same] * len(NAMES)) == ()
    assert suspects([], [], []) == ()


def test_what_is_excluded_changes_the_promise() -> None:
    rejects = promise(choose_rate(25, None), None, "split", 25)
    assert with_excluded(rejects, 100, 0) == rejects
    two = with_excluded(rejects, 98, 2)
    assert (two.excluded, two.excluded_calibrate) == (2, ())
    assert two.alpha_if_good == pytest.approx((98 / 26 + 2) / 100)
    assert two.alpha_total == rejects.alpha_total
    assert "does not cover parts like them" in two.statement
    calibrated = with_excluded(rejects, 98, 2, ("a", "b"))
    assert calibrated.alpha_if_good == pytest.approx(3 / 28)
    assert "a, b had served to calibrate" in calibrated.statement
    assert msgspec.json.decode(msgspec.json.encode(calibrated), type=type(calibrated)) == calibrated
