"""One frame on the bench: whatever an engine does, the outcome is ok, ng, or an unknown with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from asperity.runtime.clock import MS, Now
from asperity.runtime.engines import Progress
from asperity.runtime.engines.simulated import WORDS, SimulatedEngine, simulated_manifest
from asperity.runtime.errors import ConfigError, EngineError, FrameRefused
from asperity.runtime.frame import Frame, ModalityName, Result, Scores, Verdict
from asperity.runtime.judging.pipeline import Job, Outcome, Recipe, age_ns, inspect
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.vision.digest import frame_digest

RNG = np.random.default_rng(5)
NOW = Now(1_000_000_000, 1_700_000_000_000_000)


def frame(seq: int = 1, **changes: object) -> Frame:
    made = Frame(
        camera="cam1",
        camera_session="6f1c3b0e-0f5a-4c57-9a53-111111111111",
        seq=seq,
        rgb=RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8),
        xyz=RNG.normal(size=(32, 40, 3)).astype(np.float32),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def job(of: Frame, recipe: str | None = None, stale_ns: int = NOW.ns + 1000 * MS) -> Job:
    born = Result("st1", "s", 1, camera=of.camera, seq=of.seq)
    return Job(born, of, recipe, NOW.ns - 5 * MS, stale_ns)


class Scripted(SimulatedEngine):
    """The simulated engine with its scores changed, or its failure chosen, by the test."""

    def __init__(self, change: Callable[[Scores], Scores]) -> None:
        super().__init__("ok")
        self._change = change

    def score(self, frame: Frame, progress: Progress) -> Scores:
        return self._change(super().score(frame, progress))


def recipe(engine: SimulatedEngine) -> Recipe:
    manifest = simulated_manifest("r1")
    return Recipe("r1", "b0", manifest, manifest.decision, engine, engine.describe(), lambda progress: None, 1.0, True)


def inspected(engine: SimulatedEngine, of: Job | None = None, previous: int | None = None) -> Outcome:
    return inspect(of or job(frame()), recipe(engine), previous, lambda stage: None, lambda: NOW)[0]


@pytest.mark.parametrize(
    ("word", "verdict", "reason"),
    [
        ("ok", Verdict.OK, Reason.GOOD),
        ("ng", Verdict.NG, Reason.SCORE_ABOVE_THRESHOLD),
        ("shape", Verdict.NG, Reason.SHAPE_OUT_OF_RANGE),
        ("nan", Verdict.UNKNOWN, Reason.ENGINE),
        ("raise", Verdict.UNKNOWN, Reason.ENGINE),
        ("crash", Verdict.UNKNOWN, Reason.ENGINE),
        ("refuse", Verdict.UNKNOWN, Reason.TOO_FEW_POINTS),
    ],
)
def test_each_thing_an_engine_can_do(word: str, verdict: Verdict, reason: Reason) -> None:
    outcome = inspected(SimulatedEngine(word))
    assert (outcome.result.verdict, outcome.result.reason) == (verdict, reason)
    assert outcome.detail
    assert (outcome.distance_map is not None) == (reason in JUDGED)
    assert (outcome.result.recipe, outcome.result.bundle, outcome.result.simulated) == ("r1", "b0", True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("modality", ["rgb", "points"])
@pytest.mark.parametrize("where", ["image_distance", "distance_map"])
def test_a_number_that_is_none_is_never_judged(bad: float, modality: ModalityName, where: str) -> None:
    def spoil(scores: Scores) -> Scores:
        part = scores.modalities[modality]
        if where == "image_distance":
            part = replace(part, image_distance=bad)
        else:
            distances = part.distance_map.copy()
            distances[3, 4] = bad
            part = replace(part, distance_map=distances)
        return replace(scores, modalities=scores.modalities | {modality: part})

    outcome = inspected(Scripted(spoil))
    assert (outcome.result.verdict, outcome.result.reason) == (Verdict.UNKNOWN, Reason.ENGINE)
    assert outcome.result.score is None
    assert inspected(Scripted(lambda scores: scores)).result.verdict is Verdict.OK, "the unspoiled control is ok"


@pytest.mark.parametrize("error", [EngineError("x"), ValueError("x"), MemoryError(), KeyError("x"), RuntimeError("x")])
def test_whatever_an_engine_raises_costs_the_frame_only(error: Exception) -> None:
    def fail(scores: Scores) -> Scores:
        raise error

    assert inspected(Scripted(fail)).result.reason is Reason.ENGINE


def test_a_refusal_keeps_its_reason() -> None:
    def refuse(scores: Scores) -> Scores:
        raise FrameRefused(Reason.CAMERA_MOVED, "the border is off the plane")

    outcome = inspected(Scripted(refuse))
    assert (outcome.result.reason, outcome.detail) == (Reason.CAMERA_MOVED, "the border is off the plane")


def test_an_engine_is_not_asked_about_a_frame_that_must_not_be_scored() -> None:
    asked: list[Scores] = []

    def ask(scores: Scores) -> Scores:
        asked.append(scores)
        return scores

    engine, same = Scripted(ask), frame()
    assert inspected(engine, job(frame(), stale_ns=NOW.ns - 1)).result.reason is Reason.STALE
    assert inspected(engine, job(frame(), recipe="r2")).result.reason is Reason.WRONG_RECIPE
    assert inspected(engine, job(same), frame_digest(same)).result.reason is Reason.FROZEN_IMAGE
    assert not asked
    assert inspected(engine, job(frame(), recipe="r1"), frame_digest(same)).result.verdict is Verdict.OK
    assert len(asked) == 1


def test_without_a_recipe_nothing_is_judged() -> None:
    outcome, _ = inspect(job(frame()), None, None, lambda stage: None, lambda: NOW)
    assert outcome.result.reason is Reason.NOT_RUNNING


def test_a_frame_is_frozen_only_against_the_one_before_it() -> None:
    first, second = frame(), frame()
    again = replace(first, seq=9, t_exposure_us=77)
    digests = [inspect(job(f), recipe(SimulatedEngine()), None, lambda s: None)[1] for f in (first, second, again)]
    assert digests[0] == digests[2] != digests[1]


def test_stages_and_waiting_are_timed() -> None:
    latency_us = inspected(SimulatedEngine("ok")).result.latency_us
    assert set(latency_us) == {"recv", "pre", "rgb", "points", "knn", "post"}
    assert latency_us["recv"] == 5000


def test_progress_is_told_at_each_stage_end() -> None:
    stages: list[str] = []
    inspect(job(frame()), recipe(SimulatedEngine("ok")), None, stages.append, lambda: NOW)
    assert stages == ["pre", "rgb", "points", "knn"]


@pytest.mark.parametrize(
    ("clock", "exposed_ms_ago", "age_ms"), [("device", 900, 0), ("ptp", 900, 900), ("realtime", -50, -50)]
)
def test_age_counts_where_the_clock_is_shared(clock: str, exposed_ms_ago: int, age_ms: int) -> None:
    exposed = frame(t_exposure_us=NOW.wall_us - exposed_ms_ago * 1000, clock=clock)
    assert age_ns(exposed, NOW.wall_us) == age_ms * MS


def test_a_script_is_followed_by_seq_and_checked() -> None:
    engine = SimulatedEngine("ok ng refuse")
    verdicts = [inspected(engine, job(frame(seq))).result.reason for seq in (3, 4, 5, 3)]
    assert verdicts == [Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD, Reason.TOO_FEW_POINTS, Reason.GOOD]
    for bad in ("ok=", "oops", "ok=-5", "ok=1e9", "  "):
        if bad == "ok=":
            SimulatedEngine(bad)  # no milliseconds: at once
            continue
        with pytest.raises(ConfigError, match="script"):
            SimulatedEngine(bad)
    assert set(WORDS) >= {"ok", "ng", "nan", "raise", "stuck"}


def test_one_failing_frame_of_a_batch_costs_the_others_nothing() -> None:
    words = ["ok", "raise", "crash", "refuse", "ng"]
    seen = SimulatedEngine("ok").score_batch([frame(sensor=f"simulate:{word}") for word in words], lambda stage: None)
    assert [type(one) for one in seen] == [Scores, EngineError, EngineError, FrameRefused, Scores]
    assert "ZeroDivisionError" in str(seen[2])
