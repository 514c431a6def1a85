"""The calibration report in numbers: ``report.json`` for a machine, and what ``report.html`` shows an engineer."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from asperity.calibration.frames.silhouette import FIGURES, figures
from asperity.calibration.outcome.result import Outcome
from asperity.calibration.outcome.threshold import with_excluded
from asperity.calibration.record import CalibrationRecord, SplitName
from asperity.calibration.report.html import page
from asperity.calibration.report.types import Report, ShapeFigure, StrangeFrame
from asperity.runtime.frame import ModalityName


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
        suspects=record.suspects,
        alpha_if_excluded=_alpha_if_excluded(record),
        strangest=tuple(_strange(outcome, record, index) for index in strangest(outcome)),
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
        choice=record.choice,
        adaptation=record.adaptation,
        smallest_defects=record.smallest_defects,
        stage_s=record.stage_s,
        frames=record.frames,
    )


def _alpha_if_excluded(record: CalibrationRecord) -> float:
    """The rate of false rejects if all proposed frames are excluded and show good parts after all."""
    calibrated = tuple(one.name for one in record.suspects if one.split == "calibrate")
    frames = sum(record.normal_frames[name] for name in get_args(SplitName)) - len(record.suspects)
    excluded = len(record.suspects) + len(record.options.exclude)
    return with_excluded(record.false_rejects, frames, excluded, calibrated).alpha_if_good


def strangest(outcome: Outcome) -> list[int]:
    """Indices of the strangest normal frames, strangest first; each was judged without its own patches."""
    return sorted(outcome.distances, key=lambda i: -outcome.score(i))[: outcome.options.strangest]


def _strange(outcome: Outcome, record: CalibrationRecord, index: int) -> StrangeFrame:
    decision, one, score = outcome.decision, outcome.distances[index], outcome.score(index)
    # With a one-class SVM the decision's own constants are 0 and 1.
    tuned = [outcome.distances[i] for i in outcome.split.tune]

    def stds(name: ModalityName) -> float:
        known = [other.modalities[name].image_distance for other in tuned]
        return float((one.modalities[name].image_distance - np.mean(known)) / np.std(known, ddof=1))

    return StrangeFrame(
        name=outcome.normals.names[index],
        split=outcome.split.name_of(index),
        score=score,
        leave_one_out=index in outcome.split.fit,
        stds={name: stds(name) for name in one.modalities},
        above_threshold=score > decision.threshold,
        suspect=outcome.normals.names[index] in {suspect.name for suspect in record.suspects},
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
