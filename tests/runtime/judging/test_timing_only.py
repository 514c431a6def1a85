"""A bundle for timing only: real scores, maps and times, and no road on which it says ok."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime import wire
from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.commands.watch import line
from asperity.runtime.engines.own_threshold import take_threshold
from asperity.runtime.engines.parity_gate import prove
from asperity.runtime.engines.simulated import TIMING_RECIPE, simulated_manifest
from asperity.runtime.errors import BundleError, ParityError, SignatureError
from asperity.runtime.frame import EngineInfo, Result, Verdict
from asperity.runtime.manifest import Decision, GoldenFrame, Manifest
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.scoring import decide
from tests.bundle_factory import ToyBundle, write_toy_bundle
from tests.runtime.engines.test_parity_gate import FakeEngine, scores_of
from tests.runtime.inspector.station_floor import Floor

SESSION = "7d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
MANIFEST = simulated_manifest(TIMING_RECIPE)


@given(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_whatever_the_numbers_there_is_no_verdict(rgb_z: float, points_z: float, threshold: float) -> None:
    decision = msgspec.structs.replace(MANIFEST.decision, threshold=threshold)
    with np.errstate(all="ignore"):
        judgement = decide(scores_of(rgb_z, points_z), decision, MANIFEST.silhouette, MANIFEST.geometry)
    assert judgement.verdict is Verdict.UNKNOWN
    assert judgement.reason in (Reason.TIMING_ONLY, Reason.ENGINE)
    assert (judgement.score is None) == (judgement.reason is Reason.ENGINE)


def test_the_numbers_are_those_of_the_same_frame_with_a_verdict() -> None:
    scores = scores_of(-3.0, -3.0)
    ordinary = simulated_manifest()
    seen = decide(scores, ordinary.decision, (), ordinary.geometry)
    timed = decide(scores, MANIFEST.decision, (), MANIFEST.geometry)
    assert seen.verdict is Verdict.OK
    assert (timed.score, timed.threshold, timed.region) == (seen.score, seen.threshold, seen.region)
    assert timed.p_value is None


# --- on a station


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    floor = Floor(tmp_path / "journal")
    assert floor.ask("prepare_recipe", recipe=TIMING_RECIPE).ok
    floor.settle()
    assert floor.station.controller.recipe is not None and floor.station.controller.recipe.name == TIMING_RECIPE
    return floor


def test_a_frame_gets_its_score_and_its_map_and_no_verdict(floor: Floor) -> None:
    for _ in range(12):
        floor.send()
        floor.serve()
    for result in floor.results:
        assert (result.verdict, result.reason, result.accept) == (Verdict.UNKNOWN, Reason.TIMING_ONLY, False)
        assert result.score is not None and result.threshold is not None and result.score <= result.threshold
        assert result.latency_us["total"] >= 0 and "knn" in result.latency_us
    assert len(floor.sockets.bulk) == 12
    records = [wire.decode_record_message(parts)[1] for parts in floor.of_kind("record")]
    assert all(not r.accept and r.verdict == 0 and r.flags & 1 == 0 and r.score == 0 for r in records)
    assert {r.reason_code for r in records} == {Reason.TIMING_ONLY}
    state = floor.state
    assert (state.ok, state.ng, state.unknown_by_reason) == (0, 0, {"TIMING_ONLY": 12})
    assert state.ready, "twelve frames without a verdict are no fault of the engine"
    assert "TIMING_ONLY" in line(floor.of_kind("result")[-1], json=False)
    assert "TIMING_ONLY" in line(floor.of_kind("state")[-1], json=False)
    warned = [event.code for event in floor.events if event.severity == "warning"]
    assert warned.count("TIMING_ONLY") == 1, "the alarm, not a line for every frame"


def test_it_is_in_sight_as_long_as_it_is_in_force(floor: Floor) -> None:
    assert "TIMING_ONLY" in floor.state.alarms
    told = [event.text for event in floor.events if event.code.startswith("RECIPE")]
    assert "TIMING ONLY" in told[-1] and "TIMING ONLY" not in told[0]
    floor.ask("reset")
    floor.settle()
    assert "TIMING_ONLY" in floor.state.alarms, "a reset does not hide it"
    floor.ask("prepare_recipe", recipe="a")
    floor.settle()
    assert "TIMING_ONLY" not in floor.state.alarms


def test_no_threshold_gives_it_a_verdict(floor: Floor) -> None:
    reply = floor.ask("set_threshold", threshold=1e9)
    assert (reply.ok, reply.code) == (False, "REFUSED") and "timing only" in (reply.text or "")
    floor.station.controller.set_threshold(1e9)  # past the refusal
    floor.settle()
    floor.send()
    floor.serve()
    assert (floor.results[-1].threshold, floor.reasons[-1]) == (1e9, "TIMING_ONLY")


def test_a_restart_owes_unknown_and_goes_on_so(floor: Floor, tmp_path: Path) -> None:
    floor.send()
    floor.close()  # as kill -9 leaves it: one frame admitted, none answered
    again = Floor(tmp_path / "journal", ready=False)
    again.ask("prepare_recipe", recipe=TIMING_RECIPE)
    again.settle()
    again.send()
    again.serve()
    assert {result.verdict for result in again.results} == {Verdict.UNKNOWN}
    assert set(again.reasons) >= {"RESTARTED"}


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.NG])
def test_no_result_with_a_verdict_can_have_the_reason(verdict: Verdict) -> None:
    with pytest.raises(ValueError, match="contradicts"):
        Result("st1", SESSION, 1, verdict=verdict, reason=Reason.TIMING_ONLY, score=0.0, threshold=1.0)


def test_a_receiver_disbelieves_a_message_that_says_ok_for_this_reason() -> None:
    honest = Result("st1", SESSION, 1, reason=Reason.TIMING_ONLY, score=0.0, threshold=1.0)
    forged = json.loads(wire.encode_result_body(honest)) | {"verdict": 1, "accept": True}
    read = wire.decode_result_body(json.dumps(forged).encode())
    assert (read.verdict, read.accept, read.reason) == (Verdict.UNKNOWN, False, Reason.TIMING_ONLY)
    assert Reason.TIMING_ONLY not in JUDGED


# --- the bundle


def for_timing(values: dict[str, Any]) -> None:
    """Make a toy manifest one for timing only; the files of the spoiled frames stay to be removed."""
    values["decision"]["timing_only"] = True
    values["golden"] = [
        {**golden, "verdict": "unknown", "reason": int(Reason.TIMING_ONLY)}
        for golden in values["golden"]
        if not golden["kind"].startswith("spoiled")
    ]


@pytest.fixture
def toy(tmp_path: Path) -> ToyBundle:
    toy = write_toy_bundle(tmp_path / "bundle", TrustStore(tmp_path / "keys"))
    for name in ("geometry", "colour"):
        (toy.path / "golden" / "rgb" / f"{name}.png").unlink()
        (toy.path / "golden" / "xyz" / f"{name}.tiff").unlink()
    toy.edit(for_timing)
    return toy


def refused(toy: ToyBundle, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        open_bundle(toy.path, toy.trust)


def test_it_opens_and_the_gate_holds_its_scores(toy: ToyBundle) -> None:
    bundle = open_bundle(toy.path, toy.trust)
    assert prove(bundle, FakeEngine()).timing_only
    with pytest.raises(ParityError, match="normal_0"):
        prove(bundle, FakeEngine(lambda name, same: scores_of(0.3, 0.3)))


def test_another_engine_s_own_threshold_is_for_timing_only_as_well(toy: ToyBundle) -> None:
    bundle = open_bundle(toy.path, toy.trust)
    scores = [float(score) for score in bundle.calibration_inputs().scores]
    engine = FakeEngine(info=EngineInfo("cuda", "test", "fp16"), rescored=scores)
    assert take_threshold(bundle, engine, lambda stage: None)[0].timing_only


def test_taking_the_word_out_breaks_the_signature(toy: ToyBundle) -> None:
    path = toy.path / "manifest.json"
    values = toy.manifest()
    del values["decision"]["timing_only"]
    path.write_bytes(msgspec.json.encode(values))
    with pytest.raises(SignatureError):
        open_bundle(toy.path, toy.trust)


def test_taking_it_out_with_the_key_leaves_a_bundle_that_does_not_open(toy: ToyBundle) -> None:
    toy.edit(lambda values: values["decision"].pop("timing_only"))
    refused(toy, "spoiled_geometry")


def test_nor_with_golden_frames_called_ok(toy: ToyBundle) -> None:
    def call_ok(values: dict[str, Any]) -> None:
        for golden in values["golden"]:
            golden.update(verdict="ok", reason=int(Reason.GOOD))

    toy.edit(call_ok)
    refused(toy, "timing only")


def test_a_bundle_with_verdicts_holds_no_golden_frame_without_one(tmp_path: Path) -> None:
    toy = write_toy_bundle(tmp_path / "other", TrustStore(tmp_path / "keys2"))
    toy.edit(lambda values: values["golden"][0].update(verdict="unknown", reason=int(Reason.TIMING_ONLY)))
    refused(toy, "unknown is for bundles for timing only")


def test_a_runtime_that_does_not_know_the_word_refuses_the_manifest(toy: ToyBundle) -> None:
    """The types as they were before: any field that they lack is refused."""
    before = msgspec.defstruct(
        "Decision",
        [
            (field.name, field.type, *([] if field.required else [field.default]))
            for field in msgspec.structs.fields(Decision)
            if field.name != "timing_only"
        ],
        forbid_unknown_fields=True,
        kw_only=True,
    )
    manifest = toy.manifest()
    with pytest.raises(msgspec.ValidationError, match="timing_only"):
        msgspec.convert(manifest["decision"], before)
    ordinary = msgspec.to_builtins(simulated_manifest().decision)
    assert "timing_only" not in ordinary, "other bundles open there as before"
    assert msgspec.convert(ordinary, before, strict=False)


def test_the_manifest_s_types_survive_a_round_trip() -> None:
    golden = GoldenFrame("normal_0", "normal", "unknown", int(Reason.TIMING_ONLY), 0.0, {"rgb": 1.0})
    manifest = msgspec.structs.replace(MANIFEST, golden=(golden,))
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest
