"""A scored frame and the decision that judges it, with figures a test can work out by hand."""

from __future__ import annotations

import numpy as np

from asperity.runtime.frame import ModalityScores, Scores, Silhouette, Window
from asperity.runtime.manifest import Decision, Modality, SilhouetteRange
from asperity.runtime.vision.scoring import decide
from tests.synthetic_station import plane_geometry, shoot

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
    return Scores(
        {"rgb": ModalityScores(maps[0], rgb), "points": ModalityScores(maps[1], points)},
        scored,
        Window(10, 20, 80),
        silhouette,
    )


def judged(seen: Scores, decided: Decision | None = None, ranges: tuple[SilhouetteRange, ...] = RANGES):
    return decide(seen, decided or decision(), ranges, GEOMETRY)
