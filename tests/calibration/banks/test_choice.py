"""``--modalities auto``: the cheapest set within one standard error of the best, colour and shape always in it."""

from __future__ import annotations

import pytest

from asperity.calibration.banks.choice import COST, SURFACE_COST, choose
from asperity.calibration.banks.left_out import LEAST_SPOILED
from asperity.runtime.errors import CalibrationError
from tests.calibration.banks.test_left_out import DECISION, frames


def test_a_modality_that_adds_clearly_is_chosen_and_one_that_adds_nothing_is_not() -> None:
    colour, colours = frames(0, (3.0, 0.0, 0.0))
    _, shapes = frames(1, (0.0, 0.0, 3.0))
    names, choice = choose(DECISION, colour, [*colours, *shapes])
    assert names == ("rgb", "geometry") == choice.chosen.modalities
    assert {one.modalities for one in choice.tried} == {
        ("rgb", "points"), ("rgb", "geometry"), ("rgb", "points", "geometry")
    }  # fmt: skip
    assert choice.tried[0].loss == 0.0 and choice.chosen.cost == pytest.approx(
        COST["rgb"] + COST["geometry"] + SURFACE_COST
    )


def test_ties_go_to_the_cheaper() -> None:
    """Both shapes see the same defects: the encoder, which costs more, is left out."""
    normal, spoiled = frames(2, (3.0, 0.0, 0.0))
    names, choice = choose(DECISION, normal, spoiled)
    assert names == ("rgb", "geometry")
    assert choice.chosen.loss <= max(choice.chosen.standard_error, 0.0)


def test_too_few_spoiled_frames_cannot_choose() -> None:
    normal, spoiled = frames(0, (2.0, 2.0, 2.0))
    with pytest.raises(CalibrationError, match="name the modalities"):
        choose(DECISION, normal, spoiled[: LEAST_SPOILED - 1])
