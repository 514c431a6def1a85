"""Both fusions of the modalities' image distances: the average, and the release's linear one-class SVM (lsfa 7.5)."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.calibration.banks.reference import FrameDistances, OwnedBank, fit_decision, one_class_weights
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import ModalityScores
from asperity.runtime.vision.distances import ModalityBank
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.scoring import fused_score


def bank(mean: float) -> OwnedBank:
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    return OwnedBank(ModalityBank(MemoryBank(rows), mean, 2.0), np.zeros(9, np.int64))


def measured(rgb: float, points: float, seed: int) -> FrameDistances:
    rng = np.random.default_rng(seed)
    scored = np.ones((4, 4), bool)
    scored[0] = False
    maps = [np.where(scored, rng.uniform(0.1, distance, (4, 4)), 0.0).astype(np.float32) for distance in (rgb, points)]
    return FrameDistances({"rgb": ModalityScores(maps[0], rgb), "points": ModalityScores(maps[1], points)}, scored)


def tuning(count: int = 12, seed: int = 1) -> list[FrameDistances]:
    rng = np.random.default_rng(seed)
    return [measured(rgb, points, i) for i, (rgb, points) in enumerate(zip(rng.normal(30, 2, count),
            rng.normal(6, 0.4, count), strict=True))]  # fmt: skip


def test_average_standardises_each_modality_on_the_tuning_frames() -> None:
    tune = tuning()
    decision = fit_decision(tune, {"rgb": bank(0.5), "points": bank(-0.5)}, "average")
    rgb, points = (np.array([one.modalities[name].image_distance for one in tune]) for name in ("rgb", "points"))
    new = measured(36.0, 7.5, 99)
    expected = 0.5 * (36.0 - rgb.mean()) / rgb.std(ddof=1) + 0.5 * (7.5 - points.mean()) / points.std(ddof=1)
    assert fused_score(new.modalities, decision) == pytest.approx(expected)
    patches = np.concatenate([one.modalities["points"].distance_map[1:].ravel() for one in tune])
    assert decision.modalities()["points"].patch_mean == pytest.approx(patches.mean(dtype=np.float64))
    assert decision.modalities()["points"].patch_std == pytest.approx(patches.std(dtype=np.float64))
    assert (decision.modalities()["rgb"].feature_mean, decision.modalities()["points"].feature_mean) == (0.5, -0.5)


def test_one_class_svm_is_a_linear_function_of_the_raw_distances() -> None:
    from sklearn.linear_model import SGDOneClassSVM

    tune = tuning()
    decision = fit_decision(tune, {"rgb": bank(0.5), "points": bank(-0.5)}, "ocsvm")
    features = np.array(
        [[one.modalities["points"].image_distance, 0.1 * one.modalities["rgb"].image_distance] for one in tune]
    )
    svm = SGDOneClassSVM(random_state=42, nu=0.5, max_iter=1000).fit(features)
    new = [measured(36.0, 7.5, 99), measured(20.0, 9.0, 98)]
    theirs = svm.score_samples(
        np.array([[one.modalities["points"].image_distance, 0.1 * one.modalities["rgb"].image_distance] for one in new])
    )
    ours = [fused_score(one.modalities, decision) for one in new]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert decision.modalities()["rgb"].weight > 0 and decision.modalities()["points"].weight > 0
    average = fit_decision(tune, {"rgb": bank(0.5), "points": bank(-0.5)}, "average")
    assert fused_score(new[0].modalities, average) != pytest.approx(ours[0]), "control: another fusion"


@pytest.mark.parametrize(
    ("modality", "coefficients"),
    [("points", (0.0, 1.0)), ("points", (-0.2, 1.0)), ("rgb", (1.0, 0.0)), ("rgb", (1.0, -1e-9)),
     ("rgb", (1.0, float("nan")))],
)  # fmt: skip
def test_a_weight_that_is_not_above_zero_is_an_error_and_no_fallback(
    modality: str, coefficients: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Svm:
        def __init__(self, **_: object) -> None:
            self.coef_ = np.array(coefficients)

        def fit(self, _: np.ndarray) -> Svm:
            return self

    monkeypatch.setattr("sklearn.linear_model.SGDOneClassSVM", Svm)
    with pytest.raises(CalibrationError, match=rf"gave {modality} a weight of .*--fusion average"):
        fit_decision(tuning(), {"rgb": bank(0.0), "points": bank(0.0)}, "ocsvm")


def test_equal_distances_cannot_be_standardised() -> None:
    with pytest.raises(CalibrationError, match="copies of one frame"):
        fit_decision([measured(30.0, 6.0, 0)] * 5, {"rgb": bank(0.0), "points": bank(0.0)}, "average")


def test_weights_are_told_by_modality() -> None:
    """(rgb, points), although the release's vector has the points first and the colours times 0.1."""
    rng = np.random.default_rng(3)
    rgb, points = one_class_weights(rng.normal(6, 0.4, 30), rng.normal(30, 2, 30))
    assert 0 < rgb < points
    with pytest.raises(CalibrationError, match="gave rgb a weight of 0"):
        one_class_weights(rng.normal(6, 0.4, 30), np.zeros(30))
