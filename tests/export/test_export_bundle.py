"""From a calibration folder to a bundle that proves itself, and every way in which it must not come to be."""

from __future__ import annotations

import errno
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from asperity.calibration.record import load_folder, save_record
from asperity.export import bundle, spoil
from asperity.export.bundle import ExportReport, export_bundle
from asperity.export.commands.shown import report_told
from asperity.export.golden import make_golden
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.commands.score import judge
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.parity_gate import VERDICT_NAMES, no_progress, pass_gate, prove, run_golden
from asperity.runtime.errors import BundleError, CalibrationError, DataError, ParityError, UsageError
from asperity.runtime.security.signing_keys import TrustStore
from tests.bundle_factory import seal, zeroed
from tests.conftest import LiteBundle

GRAPHS = ["rgb.onnx", "points.onnx", "adaptor_rgb.onnx", "adaptor_points.onnx", "adaptor_points_full.onnx"]
BANKS = ["rgb", "points"]


@pytest.fixture
def copy(lite_bundle: LiteBundle, tmp_path: Path) -> Path:
    """A copy of the shared bundle, to be damaged."""
    return Path(shutil.copytree(lite_bundle.path, tmp_path / "bundle"))


@pytest.fixture
def folder(lite_bundle: LiteBundle, tmp_path: Path) -> Path:
    """A copy of the shared calibration folder."""
    return Path(shutil.copytree(lite_bundle.calibration, tmp_path / "calibration"))


@pytest.fixture
def same_graphs(lite_bundle: LiteBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting graphs takes seconds and is tested elsewhere: here the shared bundle's are taken."""

    def copy_graphs(_networks: Any, _network: Any, out_dir: Path) -> None:
        for name in GRAPHS:
            shutil.copy(lite_bundle.path / name, out_dir)

    monkeypatch.setattr(bundle, "export_graphs", copy_graphs)


def reseal(path: Path, trust: TrustStore, manifest: dict[str, Any] | None = None) -> None:
    """Hash the files as they are now and sign: what somebody with the key could do."""
    values = manifest or msgspec.json.decode((path / "manifest.json").read_bytes())
    seal(path, values, trust.key_for_signing())


def cpu(bundle: Bundle) -> CpuEngine:
    return CpuEngine.open(bundle, threads=1)


def test_the_bundle_opens_and_passes_its_gate_with_a_fresh_engine(lite_bundle: LiteBundle) -> None:
    bundle = open_bundle(lite_bundle.path, lite_bundle.trust)
    engine = cpu(bundle)
    decision = prove(bundle, engine)
    manifest, record = bundle.manifest, load_folder(lite_bundle.calibration).record
    assert (decision.engine, decision.precision) == ("cpu", "fp32") and decision == manifest.decision
    assert decision.threshold == pytest.approx(record.decision.threshold, abs=1e-3)
    assert decision.threshold in decision.calibration_scores
    assert {g.kind for g in manifest.golden} == {"normal", "near", "spoiled_geometry", "spoiled_colour"}
    assert all(abs(g.score - decision.threshold) > manifest.golden_tolerance for g in manifest.golden)
    assert manifest.frame_p99_ms > 1
    assert set(bundle.graph_names()) == {name.removesuffix(".onnx") for name in GRAPHS}
    # A calibration input scores the same by the engine as by torch at calibration.
    inputs = bundle.calibration_inputs()
    from asperity.runtime.vision.scoring import fused_score

    seen = engine.score_prepared(inputs.prepared(0), no_progress)
    assert fused_score(seen.modalities, decision) == pytest.approx(float(inputs.scores[0]), abs=1e-3)
    assert not [p for p in lite_bundle.path.parent.iterdir() if p.name.startswith(".bundle")]


def test_spoiled_frames_differ_from_a_normal_one_in_their_modality_only(lite_bundle: LiteBundle) -> None:
    golden = {g.kind: frame for g, frame in open_bundle(lite_bundle.path, lite_bundle.trust).golden_frames()}
    normal = [f for g, f in open_bundle(lite_bundle.path, lite_bundle.trust).golden_frames() if g.kind == "normal"]
    geometry, colour = golden["spoiled_geometry"], golden["spoiled_colour"]
    assert geometry.xyz is not None and colour.xyz is not None
    base = next(f for f in normal if np.array_equal(f.rgb, geometry.rgb))
    assert base.xyz is not None
    assert np.array_equal(base.xyz, colour.xyz)
    changed = (geometry.xyz != base.xyz).any(axis=2)
    assert 0 < changed.mean() < 0.1
    assert 0 < (colour.rgb != base.rgb).any(axis=2).mean() < 0.1


def scrambled(graph: bytes, scale: float) -> bytes:
    """The same graph with noise for weights, which no look at the file can call constant."""
    rng = np.random.default_rng(0)
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 16:
            noise = (scale * rng.standard_normal(values.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(noise, tensor.name))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", GRAPHS)
def test_a_zeroed_graph_does_not_open_though_signed_again(copy: Path, lite_bundle: LiteBundle, name: str) -> None:
    (copy / name).write_bytes(zeroed((copy / name).read_bytes()))
    reseal(copy, lite_bundle.trust)
    with pytest.raises(BundleError, match=name):
        open_bundle(copy, lite_bundle.trust)


@pytest.mark.parametrize("name", BANKS)
def test_a_zeroed_bank_does_not_open_though_signed_again(copy: Path, lite_bundle: LiteBundle, name: str) -> None:
    banks = load_file(copy / "banks.safetensors")
    save_file({**banks, name: np.zeros_like(banks[name])}, copy / "banks.safetensors")
    reseal(copy, lite_bundle.trust)
    with pytest.raises(BundleError, match=f"bank {name}"):
        open_bundle(copy, lite_bundle.trust)


NEXT_TO_NOTHING = 1e-6


@pytest.mark.parametrize(
    ("name", "scale"),
    # An adaptor of nothing leaves the frozen features as they are: hardly trained, that is what it should do.
    [("rgb.onnx", NEXT_TO_NOTHING), ("points.onnx", NEXT_TO_NOTHING), ("adaptor_rgb.onnx", 1.0),
     ("adaptor_points.onnx", 1.0)],
)  # fmt: skip
def test_a_graph_of_other_weights_opens_and_does_not_pass(
    copy: Path, lite_bundle: LiteBundle, name: str, scale: float
) -> None:
    (copy / name).write_bytes(scrambled((copy / name).read_bytes(), scale))
    if name == "adaptor_points.onnx":
        reseal(copy, lite_bundle.trust)
        with pytest.raises(BundleError, match="adaptor_points_full"):
            open_bundle(copy, lite_bundle.trust)
        full = copy / "adaptor_points_full.onnx"
        full.write_bytes(scrambled(full.read_bytes(), scale))
    reseal(copy, lite_bundle.trust)
    bundle = open_bundle(copy, lite_bundle.trust)
    with pytest.raises(ParityError, match="golden frame"):
        pass_gate(bundle, cpu(bundle))


def damage(path: Path, what: str) -> None:
    """A modality made blind in a way that only its scores show."""
    if what.endswith(".onnx"):
        (path / what).write_bytes(scrambled((path / what).read_bytes(), NEXT_TO_NOTHING))
        return
    banks = load_file(path / "banks.safetensors")
    small = 1e-6 * np.random.default_rng(0).standard_normal(banks[what].shape)
    save_file({**banks, what: small.astype(np.float32)}, path / "banks.safetensors")


@pytest.mark.parametrize("what", ["rgb.onnx", "points.onnx", *BANKS])
def test_not_even_with_golden_frames_scored_anew(copy: Path, lite_bundle: LiteBundle, what: str) -> None:
    """Somebody with the key blinds a modality, writes what the blind engine says into the manifest, and signs."""
    damage(copy, what)
    reseal(copy, lite_bundle.trust)
    bundle = open_bundle(copy, lite_bundle.trust)
    engine, decision = cpu(bundle), bundle.manifest.decision
    values = msgspec.json.decode((copy / "manifest.json").read_bytes())
    for row, (golden, frame) in zip(values["golden"], bundle.golden_frames(), strict=True):
        seen = run_golden(frame, golden, engine, decision, bundle.manifest, no_progress)
        row |= {
            "verdict": VERDICT_NAMES[seen.judgement.verdict],
            "reason": int(seen.judgement.reason),
            "score": seen.judgement.score,
            "image_distances": {name: one.image_distance for name, one in seen.scores.modalities.items()},
        }
    reseal(copy, lite_bundle.trust, values)
    with pytest.raises(BundleError, match="golden frame"):
        prove(open_bundle(copy, lite_bundle.trust), engine)


def test_swapped_and_exchanged_banks_do_not_pass(copy: Path, lite_bundle: LiteBundle) -> None:
    banks = load_file(copy / "banks.safetensors")
    save_file({**banks, "points": banks["points"][:, ::-1].copy()}, copy / "banks.safetensors")
    reseal(copy, lite_bundle.trust)
    bundle = open_bundle(copy, lite_bundle.trust)
    with pytest.raises(ParityError):
        pass_gate(bundle, cpu(bundle))


def exported(folder: Path, target: Path, trust: TrustStore, **more: Any) -> ExportReport:
    return export_bundle(folder, target, trust, threads=1, timing_s=0.0, **more)


def beside(target: Path) -> list[str]:
    """What an export left beside its target."""
    return [p.name for p in target.parent.iterdir() if p.name != "calibration"]


@pytest.mark.usefixtures("same_graphs")
def test_a_bundle_that_is_there_is_replaced_only_when_told_so(
    folder: Path, copy: Path, lite_bundle: LiteBundle, tmp_path: Path
) -> None:
    before = open_bundle(copy, lite_bundle.trust).digest
    with pytest.raises(UsageError, match="--force"):
        exported(folder, copy, lite_bundle.trust)
    assert open_bundle(copy, lite_bundle.trust).digest == before
    report = exported(folder, copy, lite_bundle.trust, force=True)
    assert open_bundle(copy, lite_bundle.trust).digest == report.digest != before
    assert beside(copy) == ["bundle"]
    parity = json.loads((folder / "report" / "parity.json").read_text())
    assert parity["scores"]["rank_correlation"] > 0.98 and len(parity["tokens"]) == 6
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="is not a bundle"):
        exported(folder, tmp_path / "mine", lite_bundle.trust, force=True)


def test_networks_that_see_nothing_are_not_exported(lite_bundle: LiteBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, folder = open_bundle(lite_bundle.path, lite_bundle.trust), load_folder(lite_bundle.calibration)
    engine = cpu(bundle)
    with monkeypatch.context() as patched:
        patched.setattr(spoil, "HEIGHT_SHARES", (1e-6,))
        patched.setattr(spoil, "RIPPLES", ((1e-6, 0.1),))
        with pytest.raises(CalibrationError, match="cannot detect gross defects of geometry"):
            make_golden(folder, bundle, engine)
    monkeypatch.setattr(spoil, "HEIGHT_SHARES", (0.1,))
    monkeypatch.setattr(spoil, "STAINS", ((0.01, 0.001),))
    monkeypatch.setattr(spoil, "CHEQUERS", ())
    with pytest.raises(CalibrationError, match="cannot detect gross defects of colour"):
        make_golden(folder, bundle, engine)


@pytest.mark.usefixtures("same_graphs")
def test_for_timing_only_they_are_and_no_frame_gets_a_verdict(
    folder: Path, lite_bundle: LiteBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks that see no spoiled frame: refused as ever, exported when asked for timing only."""
    for name in ("HEIGHT_SHARES", "STAINS"):
        monkeypatch.setattr(spoil, name, ())
    monkeypatch.setattr(spoil, "RIPPLES", ((1e-6, 0.1),))
    target = folder.parent / "timing"
    with pytest.raises(CalibrationError, match="cannot detect gross defects"):
        exported(folder, target, lite_bundle.trust)
    report = exported(folder, target, lite_bundle.trust, timing_only=True)
    assert report.spoiled == () and report_told(report)["timing_only"]
    bundle = open_bundle(target, lite_bundle.trust)
    assert {(g.kind, g.verdict) for g in bundle.manifest.golden} == {("normal", "unknown"), ("near", "unknown")}
    engine = cpu(bundle)
    decision = prove(bundle, engine)
    manifest, ordinary = bundle.manifest, open_bundle(lite_bundle.path, lite_bundle.trust).manifest.decision
    assert decision.timing_only and not ordinary.timing_only
    assert decision.threshold == pytest.approx(ordinary.threshold, abs=1e-6), "the numbers are the same"
    # Every frame of the ordinary bundle, the spoiled ones too: a score each, a verdict for none.
    for golden, frame in open_bundle(lite_bundle.path, lite_bundle.trust).golden_frames():
        judgement, scores, line = judge(frame, engine, decision, manifest)
        assert (line["verdict"], line["accept"], line["reason"]) == ("unknown", False, "TIMING_ONLY")
        assert judgement.score == pytest.approx(golden.score, abs=1e-3)
        assert scores is not None and scores.modalities["points"].distance_map.any()


@pytest.mark.usefixtures("same_graphs")
def test_an_engine_that_moves_scores_is_not_exported(folder: Path, lite_bundle: LiteBundle) -> None:
    inputs = load_file(folder / "calibration_inputs.safetensors")
    scores = inputs["scores"].copy()
    scores[0] += 0.5 * scores.std()
    save_file({**inputs, "scores": scores}, folder / "calibration_inputs.safetensors")
    with pytest.raises(ParityError, match="standard deviations"):
        exported(folder, folder.parent / "bundle", lite_bundle.trust)
    assert beside(folder) == []


@pytest.mark.usefixtures("same_graphs")
def test_frames_that_made_the_banks_keep_the_references_threshold(folder: Path, lite_bundle: LiteBundle) -> None:
    record = load_folder(folder).record
    options = msgspec.structs.replace(record.options, held_out="leave_one_out")
    save_record(msgspec.structs.replace(record, options=options), folder)
    inputs = load_file(folder / "calibration_inputs.safetensors")
    # Leave-one-out scores, which no engine can reproduce against the whole banks.
    save_file({**inputs, "scores": inputs["scores"] + 3.0}, folder / "calibration_inputs.safetensors")
    target = folder.parent / "bundle"
    exported(folder, target, lite_bundle.trust)
    bundle = open_bundle(target, lite_bundle.trust)
    assert bundle.manifest.held_out == "leave_one_out"
    assert bundle.manifest.decision.threshold == record.decision.threshold
    assert np.allclose(bundle.calibration_inputs().scores, inputs["scores"], atol=1e-3)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 1 MB: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("same_graphs")
def test_a_full_disk_leaves_nothing_behind(folder: Path, lite_bundle: LiteBundle, small_files: None) -> None:
    with pytest.raises(DataError, match="could not be written"):
        exported(folder, folder.parent / "bundle", lite_bundle.trust)
    assert beside(folder) == []


def test_the_systems_word_for_a_full_disk_becomes_a_sentence(
    folder: Path, lite_bundle: LiteBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle, "export_graphs", full)
    with pytest.raises(DataError, match=r"the disk is full.*free some space"):
        exported(folder, folder.parent / "bundle", lite_bundle.trust)
    assert beside(folder) == []


def test_incomplete_calibration_folders_are_named(folder: Path, lite_bundle: LiteBundle, tmp_path: Path) -> None:
    target = tmp_path / "new" / "bundle"
    with pytest.raises(DataError, match=r"calibration\.json"):
        exported(tmp_path / "nowhere", target, lite_bundle.trust)
    (folder / "networks.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"networks\.safetensors"):
        exported(folder, target, lite_bundle.trust)
    (folder / "banks.safetensors").unlink()
    with pytest.raises(DataError, match=r"banks\.safetensors is missing"):
        exported(folder, target, lite_bundle.trust)
    record = load_folder(lite_bundle.calibration).record
    save_record(msgspec.structs.replace(record, recipe="Teil A"), folder)
    shutil.copy(lite_bundle.calibration / "banks.safetensors", folder)
    with pytest.raises(DataError, match="Teil A"):
        exported(folder, target, lite_bundle.trust)
    small = msgspec.structs.replace(record.geometry, side_px=record.network.grid - 1)
    save_record(msgspec.structs.replace(record, geometry=small), folder)
    with pytest.raises(DataError, match=r"has geometry\.side_px 27: .*; calibrate again"):
        exported(folder, target, lite_bundle.trust)
    assert not target.exists()
