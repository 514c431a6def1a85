"""The golden frames of a bundle: held-out normal ones, one near the threshold, and two that the exporter spoils."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from asperity.calibration.record import CalibrationFolder
from asperity.export.spoil import Kind, spoil
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cameras.mvtec_files import read_frame, write_frame
from asperity.runtime.engines import Engine
from asperity.runtime.engines.parity_gate import (
    VERDICT_NAMES,
    GoldenCheck,
    no_progress,
    own_evidence,
    run_golden,
    spoiled_modalities,
    usual_distances,
)
from asperity.runtime.errors import CalibrationError, ParityError
from asperity.runtime.frame import Frame, ModalityName
from asperity.runtime.manifest import Decision, GoldenFrame
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.preprocess import Masks

MARGIN_TOLERANCES = 2.0
"""A golden frame's score is at least this many golden tolerances away from the threshold, so that an engine within
tolerance, whose own threshold may move as far, gives the same verdict."""
MIN_NORMAL = 2
KINDS: tuple[Kind, Kind] = ("spoiled_geometry", "spoiled_colour")

GoldenKind = Literal["normal", "near", "spoiled_geometry", "spoiled_colour"]


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Golden frames with what the exporting engine says of them."""

    golden: tuple[GoldenFrame, ...]
    frames: list[Frame]
    spoiled: tuple[str, ...]
    """What was done to the spoiled ones: geometry, colour. Empty in a bundle for timing only, which has none."""

    def write(self, bundle_dir: Path) -> None:
        """Write ``golden/rgb`` and ``golden/xyz``."""
        for golden, frame in zip(self.golden, self.frames, strict=True):
            if frame.xyz is None:
                raise CalibrationError(f"golden frame {golden.name} has no points; calibrate again")
            write_frame(bundle_dir / "golden", golden.name, frame.rgb, frame.xyz)


def make_golden(folder: CalibrationFolder, draft: Bundle, engine: Engine) -> GoldenSet:
    """Judge the calibration's candidates by ``engine``, choose among them, and spoil one in either modality.

    For timing only nothing is spoiled: there is no verdict to hold the engine to, only scores.

    Raises CalibrationError when too few candidates are left or the networks see no spoiled form.
    """
    manifest, decision = draft.manifest, draft.manifest.decision
    margin = 0.0 if decision.timing_only else MARGIN_TOLERANCES * manifest.golden_tolerance
    judged = [(frame, _check(frame, "normal", engine, draft)) for frame in _candidates(folder)]
    normal, near = choose(judged, decision, margin)
    chosen = [*normal, near]
    base = min(normal, key=lambda pair: _score(pair[1]))[0]
    whats = []
    masks = Masks(draft.inspect_mask(), draft.ignore_mask())
    for kind in () if decision.timing_only else KINDS:
        usual = usual_distances(check for _, check in normal)
        judge = partial(_seen, kind=kind, engine=engine, draft=draft, margin=margin, usual=usual)
        spoiled = spoil(kind, base, manifest.geometry, masks, judge)
        name = kind.removeprefix("spoiled_")
        frame = replace(spoiled.frame, part_id=name)
        chosen.append((frame, _check(frame, kind, engine, draft)))
        whats.append(spoiled.what)
    return GoldenSet(
        golden=tuple(check.golden for _, check in chosen),
        frames=[frame for frame, _ in chosen],
        spoiled=tuple(whats),
    )


def choose(
    judged: list[tuple[Frame, GoldenCheck]], decision: Decision, margin: float
) -> tuple[list[tuple[Frame, GoldenCheck]], tuple[Frame, GoldenCheck]]:
    """(normal frames, the one near the threshold): all judged by their score and at least ``margin`` off the threshold.

    Raises CalibrationError when fewer than two normal ones and a near one are left.
    """
    by_score = (Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD, Reason.TIMING_ONLY)
    stable = [
        (frame, check)
        for frame, check in judged
        if check.judgement.reason in by_score and abs(_score(check) - decision.threshold) >= margin
    ]
    stable.sort(key=lambda pair: abs(_score(pair[1]) - decision.threshold))
    normal = [pair for pair in stable[1:] if pair[1].golden.verdict != "ng"]
    if len(normal) < MIN_NORMAL:
        told = "; ".join(f"{check.golden.name}: {check.judgement.detail}" for _, check in judged)
        raise CalibrationError(
            f"the calibration folder holds too few golden frames for a parity gate: two normal ones and one near the "
            f"threshold are needed, each at least {margin:.3g} off it ({told}); calibrate again with more normal frames"
        )
    frame, check = stable[0]
    return normal, (frame, replace(check, golden=msgspec.structs.replace(check.golden, kind="near")))


def _candidates(folder: CalibrationFolder) -> list[Frame]:
    record = folder.record
    return [
        read_frame(
            *folder.golden_paths(golden.name), camera="golden", camera_session="golden", seq=seq, part_id=golden.name,
            unit=record.geometry.unit,
        )
        for seq, golden in enumerate(record.golden)
    ]  # fmt: skip


def _check(frame: Frame, kind: GoldenKind, engine: Engine, draft: Bundle) -> GoldenCheck:
    """The engine's word on a frame, as a golden frame of the bundle. Raises ParityError when there is none."""
    unsaid = GoldenFrame(
        name=frame.part_id,
        kind=kind,
        verdict="ng",
        reason=int(Reason.NOT_JUDGED),
        score=0.0,
    )
    check = run_golden(frame, unsaid, engine, draft.manifest.decision, draft.manifest, no_progress)
    judgement = check.judgement
    if judgement.score is None:
        raise ParityError(f"golden frame {frame.part_id} was not judged ({judgement.detail}); calibrate again")
    said = msgspec.structs.replace(
        unsaid,
        verdict=VERDICT_NAMES[judgement.verdict],
        reason=int(judgement.reason),
        score=judgement.score,
        image_distances={name: one.image_distance for name, one in check.scores.modalities.items()},
    )
    return replace(check, golden=said)


def _seen(
    frame: Frame, kind: Kind, engine: Engine, draft: Bundle, margin: float, usual: dict[ModalityName, float]
) -> tuple[bool, str]:
    """Whether the engine rejects a spoiled frame by its score, with a margin, because of each spoiled modality."""
    try:
        check = _check(frame, kind, engine, draft)
    except ParityError as error:
        return False, str(error)
    decision = draft.manifest.decision
    above = _score(check) - decision.threshold > margin
    own = all(own_evidence(check.scores, name, decision, usual) for name in spoiled_modalities(kind, decision))
    return above and own, f"score {_score(check):.3g}, threshold {decision.threshold:.3g}"


def _score(check: GoldenCheck) -> float:
    return check.golden.score
