"""An engine computes its own threshold: a threshold belongs to (bundle, engine, precision) (lsfa 11).

The bundle carries the calibration frames' model inputs and the torch reference's scores of them. Another engine scores
the same inputs; it is refused when its scores are not the reference's up to rounding, and otherwise its threshold is
the order statistic of its own scores at the rank that the reference's threshold has. Numpy only.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.runtime.bundle.reader import Bundle, CalibrationInputs
from asperity.runtime.engines import Engine
from asperity.runtime.errors import EngineError, ParityError
from asperity.runtime.files import read_file, write_whole
from asperity.runtime.frame import EngineInfo
from asperity.runtime.manifest import Decision
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.vision.scoring import fused_score

MAX_SHIFT_STD = 0.3
"""No calibration score may move by more than this share of the reference scores' standard deviation."""
MIN_RANK_CORRELATION = 0.98
MAX_CACHE_BYTES = 4 * 2**20

Progress = Callable[[str], None]


class Parity(msgspec.Struct, frozen=True):
    """How far an engine's scores of the calibration inputs are from the torch reference's."""

    engine: str
    device: str
    precision: str
    frames: int
    reference_std: float
    largest_shift: float
    """Largest |engine - reference|, in units of ``reference_std``."""
    mean_shift: float
    rank_correlation: float
    """Spearman's."""


class CachedScores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine's scores of the calibration inputs, in their order. Checked against the bundle at every use."""

    bundle: str
    engine: str
    device: str
    precision: str
    scores: tuple[float, ...]


def rescore(inputs: CalibrationInputs, engine: Engine, decision: Decision, progress: Progress) -> NDArray[np.float64]:
    """The engine's fused scores (n,) of the calibration inputs. Raises EngineError on a score that is not a number."""
    scores = np.empty(len(inputs))
    for index in range(len(inputs)):
        seen = engine.score_prepared(inputs.prepared(index), progress)
        scores[index] = fused_score(seen.modalities, decision)
        if not math.isfinite(scores[index]):
            raise EngineError(f"calibration input {index} scores {scores[index]}; this engine must not judge parts")
    return scores


def compare(scores: NDArray[np.float64], reference: NDArray[np.floating], info: EngineInfo) -> Parity:
    """Figures of agreement between an engine's scores and the reference's, both (n,). Raises ParityError when n < 3."""
    if len(scores) != len(reference) or len(reference) < 3:
        raise ParityError(
            f"{len(scores)} scores cannot be compared with {len(reference)} reference scores; export again"
        )
    reference = reference.astype(np.float64)
    spread = float(reference.std())
    if not spread > 0:
        raise ParityError("the reference scores of the calibration frames are all equal; calibrate again")
    shift = np.abs(scores - reference) / spread
    return Parity(
        engine=info.name,
        device=info.device,
        precision=info.precision,
        frames=len(reference),
        reference_std=spread,
        largest_shift=float(shift.max()),
        mean_shift=float(shift.mean()),
        rank_correlation=rank_correlation(scores, reference),
    )


def check_parity(parity: Parity) -> None:
    """Raises ParityError when scores move by more than 0.3 standard deviations or their ranks disagree (lsfa 11)."""
    told = f"engine {parity.engine} ({parity.device}, {parity.precision})"
    if not parity.largest_shift <= MAX_SHIFT_STD:
        raise ParityError(
            f"{told} moves a calibration score by {parity.largest_shift:.3f} standard deviations of normal scores; at "
            f"most {MAX_SHIFT_STD} are allowed: use another precision or engine"
        )
    if not parity.rank_correlation >= MIN_RANK_CORRELATION:
        raise ParityError(
            f"{told} ranks the calibration frames differently (correlation {parity.rank_correlation:.4f}, at least "
            f"{MIN_RANK_CORRELATION} is needed): use another precision or engine"
        )


def rank_correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Spearman's rank correlation, ties by mean rank; 0 when one of them is constant."""
    from scipy.stats import rankdata

    x, y = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    scale = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def rank_of(threshold: float, reference: NDArray[np.floating] | tuple[float, ...]) -> int:
    """How many reference scores are at or below the threshold: the rank k of a conformal threshold, from 1."""
    tolerance = 1e-6 * max(1.0, abs(threshold))
    rank = int((np.asarray(reference, dtype=np.float64) <= threshold + tolerance).sum())
    if rank == 0:
        raise ParityError(f"threshold {threshold} is below every calibration score; calibrate again")
    return rank


def own_decision(
    scores: NDArray[np.float64], decision: Decision, info: EngineInfo, held_out: Literal["split", "leave_one_out"]
) -> Decision:
    """The decision in this engine's name, with its calibration scores and its threshold at the reference's rank.

    With several frames per part and more than one part above the threshold, that rank is of frames and may differ from
    the k-th worst part by what the scores differ (``check_parity``); with none above, it is the highest score.
    Where the inputs were not held out, scores of them say nothing about new parts: the threshold stays as it is.
    """
    own = msgspec.structs.replace(decision, engine=info.name, precision=info.precision)
    if held_out == "leave_one_out":
        return own
    ascending = sorted(float(score) for score in scores)
    rank = rank_of(decision.threshold, decision.calibration_scores)
    return msgspec.structs.replace(own, threshold=ascending[rank - 1], calibration_scores=tuple(ascending))


def take_threshold(
    bundle: Bundle, engine: Engine, progress: Progress, cache: Path | None = None
) -> tuple[Decision, Parity]:
    """This engine's decision for this bundle, and how near its scores are to the reference's.

    The scores are kept in ``cache`` (by default a folder beside the bundle), keyed by bundle, engine, device and
    precision; the cache holds no threshold, and what it holds is compared with the signed reference at every use.
    Raises ParityError when this engine must not judge, EngineError when it fails.
    """
    info, manifest = engine.describe(), bundle.manifest
    inputs = bundle.calibration_inputs()
    path = cache_path(bundle, info, cache)
    scores = _cached(path, bundle, info, len(inputs))
    if scores is None:
        scores = rescore(inputs, engine, manifest.decision, progress)
        _store(path, CachedScores(bundle.digest, info.name, info.device, info.precision, tuple(map(float, scores))))
    parity = compare(scores, inputs.scores, info)
    check_parity(parity)
    return own_decision(scores, manifest.decision, info, manifest.held_out), parity


def decision_for(bundle: Bundle, engine: Engine, progress: Progress) -> Decision:
    """The bundle's decision when it was taken by this kind of engine and precision, else the engine's own."""
    info, decision = engine.describe(), bundle.manifest.decision
    if (info.name, info.precision) == (decision.engine, decision.precision):
        return decision
    return take_threshold(bundle, engine, progress)[0]


def cache_path(bundle: Bundle, info: EngineInfo, cache: Path | None = None) -> Path:
    """``BUNDLE.cache/scores-ENGINE-PRECISION-HASH.json``; the hash covers bundle, engine, device and precision."""
    key = hashlib.sha256("\n".join((bundle.digest, info.name, info.device, info.precision)).encode()).hexdigest()
    label = re.sub(r"[^a-z0-9]+", "-", f"{info.name}-{info.precision}".lower())
    folder = cache or bundle.path.with_name(bundle.path.name + ".cache")
    return folder / f"scores-{label}-{key[:16]}.json"


def _cached(path: Path, bundle: Bundle, info: EngineInfo, n: int) -> NDArray[np.float64] | None:
    """Scores of an earlier start; None when there are none that belong to this bundle, engine and device."""
    try:
        found = decode_json(read_file(path, MAX_CACHE_BYTES), CachedScores)
    except (OSError, TextRefused):
        return None
    expected = (bundle.digest, info.name, info.device, info.precision, n)
    if (found.bundle, found.engine, found.device, found.precision, len(found.scores)) != expected:
        return None
    return np.asarray(found.scores)


def _store(path: Path, scores: CachedScores) -> None:
    """Keep the scores for the next start. A cache that cannot be written costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(scores))
    except OSError:
        return
