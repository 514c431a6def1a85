"""The gate opens only for an engine that judges every golden frame as the exporter's did, by the right evidence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.engines import Engine, Progress
from asperity.runtime.engines.own_threshold import cache_path, rank_correlation, take_threshold
from asperity.runtime.engines.parity_gate import gate_steps, own_evidence, pass_gate, prove, spoiled_modalities
from asperity.runtime.errors import EngineError, FrameRefused, ParityError
from asperity.runtime.frame import EngineInfo, Frame, ModalityScores, Prepared, Scores, Silhouette, Window
from asperity.runtime.manifest import Decision, Modality
from asperity.runtime.reasons import Reason
from asperity.runtime.security.signing_keys import TrustStore
from tests.bundle_factory import GRID, SCORES, THRESHOLD, ToyBundle, write_toy_bundle

MEAN, STD = 2.0, 0.5
SAME = EngineInfo("cpu", "test", "fp32")


def scores_of(rgb_z: float, points_z: float) -> Scores:
    """Scores whose fused score is (rgb_z + points_z) / 2 with the toy decision."""

    def modality(z: float) -> ModalityScores:
        return ModalityScores(np.full((GRID, GRID), 1.0, np.float32), MEAN + STD * z)

    return Scores(
        modalities={"rgb": modality(rgb_z), "points": modality(points_z)},
        scored=np.ones((GRID, GRID), bool),
        window=Window(0, 0, 20),
        silhouette=Silhouette(area_mm2=100, length_mm=10, width_mm=10, height_mm=10, missing_share=0),
    )


def golden_scores(name: str) -> Scores:
    """What the toy bundle's exporter saw: fused scores as in its manifest."""
    return {
        "normal_0": scores_of(-0.4, -0.4),
        "normal_1": scores_of(0.1, 0.1),
        "near": scores_of(0.6, 0.6),
        "geometry": scores_of(0.2, 2.8),
        "colour": scores_of(3.2, 0.0),
    }[name]


@dataclass
class FakeEngine(Engine):
    """Says of golden frames what the exporter saw, changed by ``change``; of calibration inputs ``rescored``."""

    change: Callable[[str, Scores], Scores] = lambda _, scores: scores
    info: EngineInfo = SAME
    rescored: list[float] = field(default_factory=list)
    prepared: int = 0

    def describe(self) -> EngineInfo:
        return self.info

    def score(self, frame: Frame, progress: Progress) -> Scores:
        progress("pre")
        return self.change(frame.part_id, golden_scores(frame.part_id))

    def score_prepared(self, prepared: Prepared, progress: Progress) -> Scores:
        z = self.rescored[self.prepared % len(self.rescored)]
        self.prepared += 1
        return scores_of(z, z)

    def close(self) -> None:
        pass


@pytest.fixture
def toy(tmp_path: Path) -> ToyBundle:
    return write_toy_bundle(tmp_path / "bundle", TrustStore(tmp_path / "keys"))


@pytest.fixture
def bundle(toy: ToyBundle) -> Bundle:
    return open_bundle(toy.path, toy.trust)


def test_an_engine_that_agrees_passes(bundle: Bundle) -> None:
    checks = pass_gate(bundle, FakeEngine())
    assert [c.judgement.score for c in checks] == pytest.approx([g.score for g in bundle.manifest.golden])
    assert prove(bundle, FakeEngine()) == bundle.manifest.decision


def only(frame: str, scores: Scores) -> Callable[[str, Scores], Scores]:
    return lambda name, same: scores if name == frame else same


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (only("normal_0", scores_of(-0.2, -0.4)), ("normal_0", "-0.4000", "-0.3000")),
        (only("normal_1", scores_of(5.0, 5.0)), ("normal_1", "expected ok", "ng")),
        (only("near", scores_of(0.8, 0.8)), ("near", "expected ok", "ng")),
        (only("geometry", scores_of(0.2, 0.2)), ("geometry", "expected ng", "ok")),
        (only("colour", scores_of(0.0, 3.2)), ("colour", "rgb distance")),
        (only("geometry", scores_of(2.8, 0.2)), ("geometry", "points distance")),
        (only("colour", replace(scores_of(0, 0), scored=np.zeros((GRID, GRID), bool))), ("colour", "unknown")),
        (only("normal_0", scores_of(float("nan"), 0.0)), ("normal_0", "unknown")),
        (
            only("normal_0", replace(scores_of(-0.4, -0.4), silhouette=Silhouette(0.5, 1, 1, 1, 0))),
            ("normal_0", "SHAPE_OUT_OF_RANGE"),
        ),
        (lambda _name, _scores: scores_of(0.0, 0.0), ("normal_0",)),
    ],
    ids=["shifted", "normal ng", "near ng", "geometry unseen", "colour by points", "geometry by colour", "unscored",
         "not a number", "shape", "constant"],
)  # fmt: skip
def test_an_engine_that_disagrees_does_not(
    bundle: Bundle, change: Callable[[str, Scores], Scores], words: tuple[str, ...]
) -> None:
    with pytest.raises(ParityError) as caught:
        pass_gate(bundle, FakeEngine(change))
    for word in words:
        assert word in str(caught.value)


def test_a_gross_score_may_move_with_its_distance_from_the_threshold_and_a_normal_one_may_not(toy: ToyBundle) -> None:
    toy.edit(lambda m: m.update(golden_tolerance=0.001))
    bundle = open_bundle(toy.path, toy.trust)
    pass_gate(bundle, FakeEngine(only("colour", scores_of(3.14, 0.0))))  # 1.57 for 1.6, 0.85 above the threshold
    for name, moved in (("colour", scores_of(3.1, 0.0)), ("normal_0", scores_of(-0.37, -0.4))):
        with pytest.raises(ParityError, match=name):
            pass_gate(bundle, FakeEngine(only(name, moved)))


@pytest.mark.parametrize("error", [EngineError("broken"), FrameRefused(Reason.CAMERA_MOVED, "moved")])
def test_a_golden_frame_that_is_refused_or_fails_closes_the_gate(bundle: Bundle, error: Exception) -> None:
    def fail(_name: str, _scores: Scores) -> Scores:
        raise error

    with pytest.raises(ParityError, match="normal_0"):
        pass_gate(bundle, FakeEngine(fail))


def test_constants_that_were_signed_into_the_bundle_do_not_pass_either(toy: ToyBundle) -> None:
    """An exporter of constants cannot write a bundle: ok and ng are both needed, so one score contradicts."""
    toy.edit(lambda m: [g.update(score=THRESHOLD + 1, verdict="ng", reason=2) for g in m["golden"]])
    from asperity.runtime.errors import BundleError

    with pytest.raises(BundleError, match="golden"):
        open_bundle(toy.path, toy.trust)


def test_own_evidence_asks_for_the_modality_that_decides(bundle: Bundle) -> None:
    decision, usual = bundle.manifest.decision, {"rgb": MEAN, "points": MEAN}
    assert own_evidence(scores_of(3.0, 0.0), "rgb", decision, usual)
    assert not own_evidence(scores_of(3.0, 0.0), "points", decision, usual)
    assert not own_evidence(scores_of(3.0, 3.0), "rgb", decision, usual)
    assert not own_evidence(scores_of(0.0, 0.0), "rgb", decision, usual)


def test_distances_that_were_signed_into_the_bundle_are_no_evidence(toy: ToyBundle) -> None:
    """With normal frames said to be far below what they measure, anything would decide by itself."""
    toy.edit(lambda m: [g.update(image_distances={"rgb": -1e9, "points": -1e9}) for g in m["golden"]])
    bundle = open_bundle(toy.path, toy.trust)
    pass_gate(bundle, FakeEngine())
    with pytest.raises(ParityError, match="points distance"):
        pass_gate(bundle, FakeEngine(only("geometry", scores_of(2.8, 0.2))))


def test_the_gate_is_not_passed_before_its_last_step(bundle: Bundle) -> None:
    engine = FakeEngine(only("colour", scores_of(0.0, 3.2)))
    steps = gate_steps(bundle, engine, bundle.manifest.decision)
    assert len([next(steps) for _ in bundle.manifest.golden]) == 5
    with pytest.raises(ParityError, match="rgb distance"):
        next(steps)


OTHER = EngineInfo("cuda", "gpu 0", "fp16")


def reference(bundle: Bundle) -> list[float]:
    return [float(v) for v in bundle.calibration_inputs().scores]


def test_another_engine_takes_its_own_threshold_at_the_same_rank(bundle: Bundle, tmp_path: Path) -> None:
    moved = [v + 0.02 for v in reference(bundle)]
    engine = FakeEngine(info=OTHER, rescored=moved)
    decision, parity = take_threshold(bundle, engine, lambda _: None, tmp_path / "cache")
    assert (decision.engine, decision.precision) == ("cuda", "fp16")
    assert decision.calibration_scores == pytest.approx(sorted(moved))
    rank = sum(v <= THRESHOLD for v in SCORES)
    assert decision.threshold == pytest.approx(SCORES[rank - 1] + 0.02, abs=1e-6)
    assert parity.largest_shift == pytest.approx(0.02 / np.std(SCORES), rel=1e-3)
    assert parity.rank_correlation == pytest.approx(1.0)

    again = FakeEngine(info=OTHER, rescored=[0.0])
    assert take_threshold(bundle, again, lambda _: None, tmp_path / "cache")[0] == decision
    assert again.prepared == 0


def test_frames_that_made_the_banks_give_no_threshold_of_their_own(toy: ToyBundle, tmp_path: Path) -> None:
    toy.edit(lambda m: m.update(held_out="leave_one_out"))
    bundle = open_bundle(toy.path, toy.trust)
    engine = FakeEngine(info=OTHER, rescored=[v + 0.02 for v in reference(bundle)])
    decision, _ = take_threshold(bundle, engine, lambda _: None, tmp_path)
    assert (decision.engine, decision.threshold) == ("cuda", THRESHOLD)
    assert decision.calibration_scores == SCORES


def test_a_cache_that_was_changed_or_belongs_elsewhere_moves_no_threshold(bundle: Bundle, tmp_path: Path) -> None:
    good = FakeEngine(info=OTHER, rescored=reference(bundle))
    wanted = take_threshold(bundle, good, lambda _: None, tmp_path)[0]
    path = cache_path(bundle, OTHER, tmp_path)
    values = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**values, "scores": [9.0] * len(SCORES)}))
    with pytest.raises(ParityError, match="standard deviations"):
        take_threshold(bundle, good, lambda _: None, tmp_path)
    for junk in (b"", b"[]", msgspec.json.encode({**values, "bundle": "0" * 64}),
                 msgspec.json.encode({**values, "scores": values["scores"][1:]})):  # fmt: skip
        path.write_bytes(junk)
        assert take_threshold(bundle, good, lambda _: None, tmp_path)[0] == wanted
    assert cache_path(bundle, OTHER, tmp_path) != cache_path(bundle, replace(OTHER, device="gpu 1"), tmp_path)


def test_an_engine_whose_scores_moved_or_changed_places_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    scores = reference(bundle)
    far = [*scores]
    far[0] += 0.31 * float(np.std(scores))
    with pytest.raises(ParityError, match=r"0\.31\d standard deviations"):
        take_threshold(bundle, FakeEngine(info=OTHER, rescored=far), lambda _: None, tmp_path / "a")
    close = [*scores]
    close[0] += 0.29 * float(np.std(scores))
    take_threshold(bundle, FakeEngine(info=OTHER, rescored=close), lambda _: None, tmp_path / "b")
    with pytest.raises(EngineError, match="nan"):
        take_threshold(bundle, FakeEngine(info=OTHER, rescored=[float("nan")]), lambda _: None, tmp_path / "c")


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a = rng.normal(size=50).round(1)  # with ties
    b = a + rng.normal(size=50)
    assert rank_correlation(a, b) == pytest.approx(float(spearmanr(a, b).statistic))
    assert rank_correlation(a, np.zeros(50)) == 0.0


def test_an_unwritable_cache_costs_time_and_nothing_else(toy: ToyBundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy.path, tmp_path / "copy"))
    bundle = open_bundle(copy, toy.trust)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    engine = FakeEngine(info=OTHER, rescored=reference(bundle))
    assert take_threshold(bundle, engine, lambda _: None, blocked)[0].engine == "cuda"


def test_a_modality_that_does_not_count_need_not_see_and_one_of_each_kind_must_count() -> None:
    """A decision that leaves out colour, or all of shape, would accept every defect of that kind."""
    counts, left_out = (Modality(0.0, 1.0, MEAN, STD, 1.0, 1.0, weight, 10) for weight in (1.0, 0.0))
    decision = Decision(
        engine="cpu", precision="fp32", rgb=counts, points=left_out, geometry=counts, fusion="squares",
        threshold=1.0, alpha=0.1, alpha_total=0.1, calibration_scores=(0.0, 1.0),
    )  # fmt: skip
    assert spoiled_modalities("spoiled_geometry", decision) == ("geometry",)
    assert spoiled_modalities("normal", decision) == ()
    for kind, blind in (("spoiled_colour", {"rgb": left_out}), ("spoiled_geometry", {"geometry": left_out})):
        with pytest.raises(ParityError, match=rf"{kind}: no modality"):
            spoiled_modalities(kind, msgspec.structs.replace(decision, **blind))
