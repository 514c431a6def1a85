"""The calibration report in numbers: ``report.json`` for a machine, and what ``report.html`` shows an engineer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from asperity.calibration.frames.silhouette import FIGURES, figures
from asperity.calibration.outcome.result import Outcome
from asperity.calibration.record import CalibrationRecord
from asperity.calibration.report.html import page
from asperity.calibration.report.types import Report, ShapeFigure, StrangeFrame
from asperity.runtime.frame import ModalityName

SUSPECT_SIGMAS = 6.0
"""A normal frame this many robust standard deviations above the median of its like may be a bad part among the good."""
MAD_TO_SIGMA = 1.4826


def write_report(outcome: Outcome, record: CalibrationRecord, folder: Path) -> Report:
    """Write ``report.html`` (stands alone) and ``report.json`` below ``folder``. Raises OSError."""
    report = summarise(outcome, record)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    (folder / "report.html").write_text(page(outcome, record, report), encoding="utf-8")
    return report


def summarise(outcome: Outcome, record: CalibrationRecord) -> Report:
    """The report's numbers."""
    return Report(
        recipe=record.recipe,
        profile=record.network.profile,
        method=record.options.method,
        threshold=record.decision.threshold,
        false_rejects=record.false_rejects,
        normal_frames=record.normal_frames,
        split=outcome.split.how,
        strangest=tuple(_strange(outcome, index) for index in strangest(outcome)),
        silhouette=tuple(_shape_figures(outcome)),
        refused=record.refused,
        repeats=record.repeats,
        excluded=record.options.exclude,
        weights=record.weights,
        background=f"{record.geometry.method}: {record.geometry.why}",
        bank_rows={name: one.bank_rows for name, one in record.decision.modalities().items()},
        fusion=record.decision.fusion,
        modality_weights={name: one.weight for name, one in record.decision.modalities().items()},
        left_out=record.left_out,
        adaptation=record.adaptation,
        smallest_defects=record.smallest_defects,
        stage_s=record.stage_s,
        frames=record.frames,
    )


def strangest(outcome: Outcome) -> list[int]:
    """Indices of the strangest normal frames, strangest first; each was judged without its own patches."""
    return sorted(outcome.distances, key=lambda i: -outcome.score(i))[: outcome.options.strangest]


def _strange(outcome: Outcome, index: int) -> StrangeFrame:
    decision, one, score = outcome.decision, outcome.distances[index], outcome.score(index)
    # With a one-class SVM the decision's own constants are 0 and 1.
    tuned = [outcome.distances[i] for i in outcome.split.tune]

    def stds(name: ModalityName) -> float:
        known = [other.modalities[name].image_distance for other in tuned]
        return float((one.modalities[name].image_distance - np.mean(known)) / np.std(known, ddof=1))

    # Frames of the bank score higher than held-out ones, so each is compared with its like.
    like = [_linear(outcome, i) for i in outcome.distances if (i in outcome.split.fit) == (index in outcome.split.fit)]
    median = float(np.median(like))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(np.array(like) - median)))
    return StrangeFrame(
        name=outcome.normals.names[index],
        split=outcome.split.name_of(index),
        score=score,
        leave_one_out=index in outcome.split.fit,
        stds={name: stds(name) for name in one.modalities},
        above_threshold=score > decision.threshold,
        suspect=_linear(outcome, index) > median + SUSPECT_SIGMAS * sigma,
    )


def _linear(outcome: Outcome, index: int) -> float:
    """The score with nothing squared: good frames' squares have no spread that outliers could be measured by."""
    scores = outcome.distances[index].modalities
    return sum(
        one.weight * (scores[name].image_distance - one.image_mean) / one.image_std
        for name, one in outcome.decision.modalities().items()
    )


def _shape_figures(outcome: Outcome) -> list[ShapeFigure]:
    values = figures([one.silhouette for one in outcome.normals.prepared])
    names = outcome.normals.names
    found = []
    for limits in outcome.shape.ranges:
        column = values[:, FIGURES.index(limits.figure)]
        low, high = int(column.argmin()), int(column.argmax())
        found.append(
            ShapeFigure(
                limits.figure, limits.low, limits.high, float(column[low]), float(column[high]), names[low], names[high]
            )
        )
    return found
