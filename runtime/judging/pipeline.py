"""A frame's path on the engine thread: score, decide, result; the same for every engine.

Nothing here can say ok: only ``scoring.decide`` can. Whatever goes wrong ends in an unknown with its reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asperity.runtime.clock import Now, look
from asperity.runtime.engines import Engine, Progress
from asperity.runtime.errors import EngineError, EngineLostError, FrameRefused
from asperity.runtime.frame import ByteArray, EngineInfo, FloatArray, Frame, Result, Scores, Span, Window
from asperity.runtime.manifest import Decision, Manifest
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.digest import frame_digest
from asperity.runtime.vision.scoring import decide, fused_map

SHARED_CLOCKS = frozenset({"ptp", "realtime"})
"""Clocks of a camera that may be compared with the machine's own."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What frames are judged with: an opened bundle and its engine, verified on its golden frames."""

    name: str
    bundle: str
    """First digits of the bundle's sha256."""
    manifest: Manifest
    decision: Decision
    """The engine's own (threshold and constants), or with an operator's threshold in place of it."""
    engine: Engine
    info: EngineInfo
    golden_steps: Callable[[Progress], Iterator[object]]
    """The self-test: scores a golden frame again at each step, by the proven threshold; raises ParityError or
    EngineError. In steps, so that other stations' frames take their turns between them."""
    proven_threshold: float
    """The threshold that the engine took from the calibration frames."""
    simulated: bool = False
    older: str = ""
    """Why this bundle opened only on request, as text: a newer one was served (``judging.served_bundles``)."""


@dataclass(frozen=True, slots=True)
class Job:
    """An admitted frame on its way to the engine thread."""

    born: Result
    """Its result so far: unknown, with the identity in it."""
    frame: Frame
    recipe: str | None
    """The recipe that the frame or its trigger expects; None: the active one."""
    t_recv_ns: int
    """Monotonic."""
    stale_ns: int
    """Monotonic time after which the frame is too old to be judged."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The engine thread's report on a job. ``detail`` is the reason, as text: for the log."""

    result: Result
    detail: str = ""
    distance_map: FloatArray | None = None
    """grid x grid, standardised and fused; for people."""
    window: Window | None = None
    picture: ByteArray | None = None
    """Of the frame: H x W x 3, for people; None: the engine thread never saw the frame."""
    lost: EngineLostError | None = None
    """The engine can score nothing more."""
    spans: tuple[Span, ...] = ()
    """What was done when, from arrival on, of a frame that was scored: for a trace."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A job whose turn has come, and what it is judged by."""

    job: Job
    recipe: Recipe | None
    previous_digest: int | None
    """Of the camera's frame before."""


def age_ns(frame: Frame, now_us: int) -> int:
    """How old the exposure is on arrival, as far as the clocks can be compared; negative: the camera's runs ahead."""
    if frame.clock not in SHARED_CLOCKS:
        return 0
    return (now_us - frame.t_exposure_us) * 1000


def inspect(
    job: Job,
    recipe: Recipe | None,
    previous_digest: int | None,
    progress: Progress,
    clock: Callable[[], Now] = look,
) -> tuple[Outcome, int]:
    """Judge one frame; returns the outcome and the frame's digest (for the next call's ``previous_digest``).

    Raises nothing: a frame that cannot be judged is an unknown with its reason.
    """
    return inspect_together([Turn(job, recipe, previous_digest)], progress, clock)[0]


def inspect_together(
    turns: Sequence[Turn], progress: Progress, clock: Callable[[], Now] = look
) -> list[tuple[Outcome, int]]:
    """As ``inspect``, for frames of several stations whose recipes share one engine. One frame's failure does not
    affect the others."""
    looked_at = [_look_at(turn, clock) for turn in turns]
    scorable = [turn for turn, (_, _, refusal) in zip(turns, looked_at, strict=True) if refusal is None]
    found = iter(_score(scorable, progress))
    outcomes = [
        (_waited(turn.job, _outcome(born, turn.recipe, refusal or next(found), clock)), digest)
        for turn, (born, digest, refusal) in zip(turns, looked_at, strict=True)
    ]
    return [
        (replace(outcome, picture=turn.job.frame.rgb), digest)
        for turn, (outcome, digest) in zip(turns, outcomes, strict=True)
    ]


def _look_at(turn: Turn, clock: Callable[[], Now]) -> tuple[Result, int, FrameRefused | None]:
    """Before a frame is scored: its result so far, its digest, and why it must not be scored."""
    job, recipe, start_ns = turn.job, turn.recipe, clock().ns
    digest = frame_digest(job.frame)
    born = replace(job.born, latency_us={"recv": (start_ns - job.t_recv_ns) // 1000})
    if recipe is None:
        return born, digest, FrameRefused(Reason.NOT_RUNNING, "no recipe is active")
    born = replace(born, recipe=recipe.name, bundle=recipe.bundle, simulated=recipe.simulated)
    return born, digest, _refusal(job, recipe.name, start_ns, digest == turn.previous_digest)


def _score(turns: Sequence[Turn], progress: Progress) -> Sequence[Scores | Exception]:
    """What the engine that these frames share says of each; whatever it raises costs them, never the station."""
    engines = [turn.recipe.engine for turn in turns if turn.recipe is not None]
    frames = [turn.job.frame for turn in turns]
    try:
        if len(frames) <= 1:
            return [engine.score(frame, progress) for engine, frame in zip(engines, frames, strict=True)]
        found = engines[0].score_batch(frames, progress)
        if len(found) != len(frames):
            raise EngineError(f"the engine returned {len(found)} answers for {len(frames)} frames")
    except Exception as error:  # noqa: BLE001 - see above
        return [error] * len(frames)
    return found


def _outcome(born: Result, recipe: Recipe | None, found: Scores | Exception, clock: Callable[[], Now]) -> Outcome:
    """The result of a frame that was scored, or of one for which there are no scores."""
    try:
        if isinstance(found, Exception):
            raise found
        if recipe is None:
            raise EngineError("it was scored without a recipe")
        return _judge(born, recipe, found, clock)
    except FrameRefused as error:
        return Outcome(born.unknown(error.reason), str(error))
    except EngineLostError as error:
        return Outcome(born.unknown(Reason.ENGINE), str(error), lost=error)
    except EngineError as error:
        return Outcome(born.unknown(Reason.ENGINE), str(error))
    except Exception as error:  # noqa: BLE001 - whatever an engine raises or gives costs this frame alone
        return Outcome(born.unknown(Reason.ENGINE), f"{type(error).__name__}: {error}")


def _waited(job: Job, outcome: Outcome) -> Outcome:
    """With the wait for its turn before what was done with it."""
    if not outcome.spans:
        return outcome
    begun_ns = job.t_recv_ns + 1000 * outcome.result.latency_us["recv"]
    return replace(outcome, spans=(Span("recv", "desk", job.t_recv_ns, begun_ns), *outcome.spans))


def _refusal(job: Job, recipe: str, now_ns: int, repeated: bool) -> FrameRefused | None:
    """Why the frame must not be scored."""
    if now_ns > job.stale_ns:
        waited_ms = (now_ns - job.t_recv_ns) / 1e6
        return FrameRefused(Reason.STALE, f"too old after waiting {waited_ms:.0f} ms in the queue")
    if job.recipe is not None and job.recipe != recipe:
        return FrameRefused(Reason.WRONG_RECIPE, f"it expects recipe {job.recipe}, but {recipe} is active")
    if repeated:
        return FrameRefused(Reason.FROZEN_IMAGE, "colour and 3D data are identical to the previous frame")
    return None


def _judge(born: Result, recipe: Recipe, scores: Scores, clock: Callable[[], Now]) -> Outcome:
    start_ns, thread = clock().ns, threading.current_thread().name
    judgement = decide(scores, recipe.decision, recipe.manifest.silhouette, recipe.manifest.geometry)
    stages = {stage: int(us) for stage, us in scores.stage_us.items()}
    end_ns = clock().ns
    latency_us = {**born.latency_us, **stages, "post": (end_ns - start_ns) // 1000}
    spans = (*scores.spans, Span("post", thread, start_ns, end_ns))
    result = replace(
        born,
        verdict=judgement.verdict,
        reason=judgement.reason,
        score=judgement.score,
        threshold=judgement.threshold,
        p_value=judgement.p_value,
        region=judgement.region,
        modality=judgement.modality or "",
        latency_us=latency_us,
    )
    if judgement.score is None:
        return Outcome(result, judgement.detail, spans=spans)
    distance_map = fused_map(scores.modalities, recipe.decision)
    shown = distance_map if np.isfinite(distance_map).all() else None
    spans = (*spans, Span("map", thread, end_ns, clock().ns))
    return Outcome(result, judgement.detail, shown, scores.window, spans=spans)
