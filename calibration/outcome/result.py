"""What a calibration found, in memory: written by ``store``, shown by ``report``."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from asperity.calibration.adaptation.trainer import Adaptation
from asperity.calibration.banks.reference import FrameDistances, Reference
from asperity.calibration.frames.prepare_normals import Normals
from asperity.calibration.frames.silhouette import Shape
from asperity.calibration.frames.split import Split
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.outcome.suspects import suspects
from asperity.calibration.record import Choice, FalseRejects, FrameFigures, LeftOut, Refit, Suspect
from asperity.runtime.frame import Frame, Scores, Verdict
from asperity.runtime.manifest import Decision, SmallestDefect
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.scoring import decide, fused_score

TOLERANCE_SHARE = 0.1
"""Golden tolerance as a share of the calibration scores' standard deviation (architecture, "Bundle")."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Frames are named by their index in ``normals``."""

    options: CalibrateOptions
    normals: Normals
    split: Split
    reference: Reference
    decision: Decision
    false_rejects: FalseRejects
    shape: Shape
    distances: dict[int, FrameDistances]
    """Frames of the banks were measured without their own rows; they are absent unless requested."""
    adaptation: Adaptation | None
    left_out: tuple[LeftOut, ...] = ()
    stage_s: dict[str, float] = field(default_factory=dict)
    refit: Refit | None = None
    """What frames were added to, where an earlier calibration was."""
    choice: Choice | None = None
    """How the modalities were chosen, where nobody named them."""
    smallest_defects: tuple[SmallestDefect, ...] = ()

    def score(self, index: int) -> float:
        """Fused score of a measured frame."""
        return fused_score(self.distances[index].modalities, self.decision)

    def rejects(self, frame: Frame) -> bool:
        """Whether this station, as calibrated, does not pass a frame. Raises FrameRefused where it refuses one."""
        normals, reference = self.normals, self.reference
        prepared = prepare(frame, normals.geometry, reference.network, normals.masks, normals.heights)
        one = reference.measured_anew(prepared)
        scores = Scores(one.modalities, one.scored, prepared.window, prepared.silhouette)
        return decide(scores, self.decision, self.shape.ranges, normals.geometry).verdict is not Verdict.OK

    @property
    def held_out(self) -> list[int]:
        """Frames that no bank row came from, and that the engines can therefore score again."""
        return [i for i in range(len(self.normals.items)) if i not in set(self.split.fit)]

    @property
    def tolerance(self) -> float:
        """Golden tolerance of the fused score."""
        return TOLERANCE_SHARE * float(np.std(self.decision.calibration_scores, ddof=1))

    def figures(self) -> tuple[FrameFigures, ...]:
        """Every measured frame's numbers, strangest first."""
        rows = [
            FrameFigures(
                name=self.normals.names[index],
                split=self.split.name_of(index),
                image_distances=one.image_distances(),
                score=self.score(index),
            )
            for index, one in self.distances.items()
        ]
        return tuple(sorted(rows, key=lambda row: -row.score))

    def suspects(self) -> tuple[Suspect, ...]:
        """Measured frames that a person should look at."""
        measured = list(self.distances)
        return suspects(
            [self.normals.names[i] for i in measured], [self.split.name_of(i) for i in measured],
            [self.distances[i] for i in measured],
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Frames by what they served for."""
        split = self.split
        return {
            "fit": len(split.fit), "tune": len(split.tune), "calibrate": len(split.calibrate),
            "refused": len(self.normals.refused), "excluded": len(self.options.exclude),
        }  # fmt: skip
