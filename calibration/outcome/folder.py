"""What a calibration writes: the files of its folder (``calibration.record``)."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from asperity import runtime
from asperity.calibration.frames.prepare_normals import write_masks
from asperity.calibration.outcome.golden_frames import FEWEST, choose_golden
from asperity.calibration.outcome.result import Outcome
from asperity.calibration.record import (
    BANKS,
    FORMAT,
    HEIGHTS,
    INPUTS,
    NETWORKS,
    CalibrationRecord,
    GoldenCandidate,
    save_record,
)
from asperity.runtime.bundle.banks import bank_tensors
from asperity.runtime.bundle.surfaces import height_tensors
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import Prepared
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.units import points_in


def write_folder(outcome: Outcome, source: Path, folder: Path) -> CalibrationRecord:
    """Write networks, banks, calibration inputs, golden candidates, masks and, last, ``calibration.json``.

    Raises OSError, CalibrationError when the calibration scores do not differ, and DataError.
    """
    reference, split = outcome.reference, outcome.split
    if not outcome.tolerance > 0:
        raise CalibrationError("all calibration frames have the same score; are they copies of one frame?")
    reference.networks.save(folder / NETWORKS)
    save_file(bank_tensors({name: one.bank for name, one in reference.banks.items()}), folder / BANKS)
    prepared = [outcome.normals.prepared[i] for i in split.calibrate]
    save_file(
        {
            "image": np.stack([one.image for one in prepared]),
            "cloud": np.stack([one.cloud for one in prepared]),
            "inspect": np.stack([one.inspect for one in prepared]),
            "scores": np.array([outcome.score(i) for i in split.calibrate], dtype=np.float32),
            **_surface_inputs(prepared),
        },
        folder / INPUTS,
    )
    if outcome.normals.heights is not None:
        save_file(height_tensors(outcome.normals.heights), folder / HEIGHTS)
    write_masks(outcome.normals.masks, folder)
    record = CalibrationRecord(
        format=FORMAT,
        asperity=runtime.__version__,
        created_us=time.time_ns() // 1000,
        recipe=outcome.options.recipe or plain_name(source),
        source=source.absolute().name,
        options=outcome.options,
        geometry=outcome.normals.geometry,
        network=reference.network,
        weights=reference.networks.origins,
        rgb_taps=reference.networks.profile.rgb_taps,
        rgb_norm=reference.networks.profile.rgb_norm,
        decision=outcome.decision,
        silhouette=outcome.shape.ranges,
        false_rejects=outcome.false_rejects,
        normal_frames=outcome.counts(),
        refused=outcome.normals.refused,
        repeats=outcome.normals.parts.repeats,
        frames=outcome.figures(),
        suspects=outcome.suspects(),
        golden=_write_golden(outcome, folder),
        golden_tolerance=outcome.tolerance,
        left_out=outcome.left_out,
        choice=outcome.choice,
        adaptation=_adaptation_figures(outcome),
        refit=outcome.refit,
        stage_s=dict(outcome.stage_s),
        smallest_defects=outcome.smallest_defects,
    )
    save_record(record, folder)
    return record


def _surface_inputs(prepared: Sequence[Prepared]) -> dict[str, NDArray[np.generic]]:
    """What modalities of the surface take, where there are any."""
    found = {name: [getattr(one, name) for one in prepared] for name in ("geometry", "height", "descriptor")}
    return {name: np.stack(values) for name, values in found.items() if values[0] is not None}


def plain_name(source: Path) -> str:
    """The source folder's name in the letters that a recipe's name may have."""
    return re.sub(r"[^a-z0-9_]+", "-", source.absolute().name.lower()).strip("-")[:32] or "product"


def _write_golden(outcome: Outcome, folder: Path) -> tuple[GoldenCandidate, ...]:
    held_out = [i for i in outcome.held_out if i in outcome.distances and outcome.normals.items[i].sample.rgb.is_file()]
    if len(held_out) < FEWEST:
        raise CalibrationError(
            f"source files of {len(held_out)} held-out frames are at hand, and {FEWEST} are needed as golden frames: "
            "add more frames, or calibrate again from all of them"
        )
    near, normal = choose_golden([outcome.score(i) for i in held_out], outcome.decision.threshold, outcome.tolerance)
    chosen = [(f"normal_{rank}", held_out[position]) for rank, position in enumerate(normal)]
    return tuple(_candidate(outcome, folder, name, index) for name, index in [*chosen, ("near", held_out[near])])


def _candidate(outcome: Outcome, folder: Path, name: str, index: int) -> GoldenCandidate:
    frame = outcome.normals.items[index].frame()
    write_frame(folder / "golden", name, frame.rgb, points_in(frame, outcome.normals.geometry.unit))
    above = outcome.score(index) > outcome.decision.threshold
    one = outcome.distances[index]
    return GoldenCandidate(
        name=name,
        source_name=outcome.normals.names[index],
        kind="near" if name == "near" else "normal",
        verdict="ng" if above else "ok",
        reason=int(Reason.SCORE_ABOVE_THRESHOLD if above else Reason.GOOD),
        score=outcome.score(index),
        image_distances=one.image_distances(),
    )


def _adaptation_figures(outcome: Outcome) -> dict[str, float]:
    if outcome.adaptation is None:
        return outcome.refit.adaptation if outcome.refit is not None else {}
    curves = outcome.adaptation.curves
    last = {name: values[-1] for name, values in curves.terms.items() if values and values[-1] == values[-1]}
    spread = {f"{name}_spread": share for name, share in outcome.adaptation.spread.items()}
    return {"loss": curves.loss[-1], **last, **spread, "steps": float(len(curves.loss))}
