"""A bundle that judges by the surface's picture and histograms too: the whole way, with tiny networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asperity.calibration.calibrate import calibrate
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import PROFILES, Profile, network_for
from asperity.calibration.record import CalibrationFolder, load_folder
from asperity.export import bundle as export
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.parity_gate import check_evidence, no_progress, pass_gate, prove, usual_distances
from asperity.runtime.errors import EngineError, ParityError, UsageError
from asperity.runtime.frame import Frame
from asperity.runtime.manifest import WeightsOrigin
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.features import KNOWN, frozen_patches, refuse_unknown
from asperity.runtime.vision.points import filled_patches, group
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.scoring import decide
from tests.calibration.tiny_station import TINY, part, tiny_profile, write_source

__all__ = ["tiny_profile"]

ALL = ("rgb", "points", "geometry", "height", "descriptor")


class Cells(nn.Module):
    """A colour network that can be exported: every cell's pixels, mixed."""

    def __init__(self) -> None:
        super().__init__()
        cell = TINY.image_px // TINY.rgb_grid
        self.mix = nn.Conv2d(3, TINY.rgb_channels, cell, cell)

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.mix(image)).flatten(2).transpose(1, 2)


class Highest(nn.Module):
    """A point network that can be exported: the largest of each group's mixed points."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, TINY.points_channels)

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        return torch.relu(self.mix(groups)).amax(2) + 0.0 * centres.sum(2, keepdim=True)


def build_small(chosen: Profile, *, seed: int = 0, **_: object) -> TorchNetworks:
    """In place of ``calibration.networks.torch_networks.build``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        origins = (WeightsOrigin("cells", "handmade", "00", "CC0"), WeightsOrigin("highest", "handmade", "00", "CC0"))
        return TorchNetworks(chosen, Cells(), Highest(), origins, "cpu")  # type: ignore[arg-type]


@dataclass
class Made:
    """A calibration of all modalities and the bundle of it."""

    source: Path
    folder: CalibrationFolder
    bundle: Bundle


@pytest.fixture(scope="module")
def made(tiny_profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("surface")
    source = write_source(home / "dome", 40)
    options = CalibrateOptions(profile="tiny", method="frozen", unit="m", modalities=ALL[::-1])

    def restored(chosen: Profile, path: Path, *_: Any) -> Any:
        networks = build_small(chosen)
        networks.load(path)
        return networks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asperity.calibration.calibrate.build", build_small)
        patch.setattr("asperity.calibration.calibrate.write_report", lambda outcome, record, folder: None)
        patch.setattr(export, "restore", restored)
        trust = TrustStore(home / "keys")
        trust.new_key("test")
        folder = calibrate(source, home / "out", options)
        export.export_bundle(folder.path, home / "bundle", trust, threads=1, timing_s=0.1)
        yield Made(source, folder, open_bundle(home / "bundle", trust))


def frame(seed: int, bump_mm: float = 0.0) -> Frame:
    rgb, xyz = part(seed, bump_mm=bump_mm)
    return Frame(camera="c", camera_session="s", seq=seed, rgb=rgb, xyz=xyz, unit="m")


def test_the_bundle_holds_all_that_its_modalities_need_and_opens(made: Made) -> None:
    manifest = made.bundle.manifest
    assert manifest.network.modalities == ALL and tuple(manifest.decision.modalities()) == ALL
    assert manifest.network.picture is not None and manifest.network.descriptor is not None
    assert tuple(made.bundle.banks()) == ALL
    assert sorted(made.bundle.graph_names()) == ["points", "rgb"], "the picture takes the colour graph's second pass"
    inputs = made.bundle.calibration_inputs()
    assert not any(one is None for one in (inputs.geometry, inputs.height, inputs.descriptor, made.bundle.heights()))
    assert all(golden.distances().keys() == set(ALL) for golden in manifest.golden)


def test_the_engine_scores_every_modality_and_finds_a_bump_by_each_of_shape(made: Made) -> None:
    engine = CpuEngine.open(made.bundle, 1)
    decision = prove(made.bundle, engine)
    normal, bumped = (engine.score(frame(200, bump_mm), no_progress) for bump_mm in (0.0, 4.0))
    assert tuple(normal.modalities) == ALL
    for name, one in decision.modalities().items():
        far = bumped.modalities[name].image_distance - normal.modalities[name].image_distance
        assert (far > 3 * one.image_std) == (name != "rgb"), name
    judged = decide(bumped, decision, made.bundle.manifest.silhouette, made.bundle.manifest.geometry)
    assert judged.verdict.name == "NG"


def test_torch_and_engine_agree_and_stored_inputs_are_what_frames_become(made: Made) -> None:
    network, inputs = made.bundle.manifest.network, made.bundle.calibration_inputs()
    prepared = inputs.prepared(0)
    engine = CpuEngine.open(made.bundle, 1)
    scores = engine.score_prepared(prepared, no_progress)
    networks = build_small(PROFILES["tiny"])
    networks.load(made.folder.networks_path)
    patches = frozen_patches(prepared, network, networks)
    assert tuple(patches.features) == ALL and scores.scored.any()
    # The same frame on the way from its source.
    ready = [
        prepare(frame(seed), made.bundle.manifest.geometry, network, heights=made.bundle.heights())
        for seed in range(40)
    ]
    assert any(np.array_equal(one.geometry, prepared.geometry) for one in ready if one.geometry is not None)
    assert any(np.array_equal(one.descriptor, prepared.descriptor) for one in ready if one.descriptor is not None)


def test_a_modality_that_sees_no_spoiled_geometry_does_not_pass_the_gate(made: Made) -> None:
    class Blind(CpuEngine):
        def score(self, one: Frame, progress: Any) -> Any:
            seen = super().score(one, progress)
            calm = replace(seen.modalities["descriptor"], image_distance=usual)
            return replace(seen, modalities=seen.modalities | {"descriptor": calm})

    seeing = CpuEngine.open(made.bundle, 1)
    decision = prove(made.bundle, seeing)
    checks = pass_gate(made.bundle, seeing, decision)
    usual = usual_distances(checks)["descriptor"]
    blind = Blind.open(made.bundle, 1)
    with pytest.raises(ParityError):
        pass_gate(made.bundle, blind, decision)
    seen = [
        replace(c, scores=blind.score(f, no_progress))
        for c, (_, f) in zip(checks, made.bundle.golden_frames(), strict=True)
    ]
    with pytest.raises(ParityError, match="descriptor distance"):
        check_evidence(seen, decision)


def test_a_frame_prepared_without_its_picture_is_an_engine_error(made: Made) -> None:
    engine = CpuEngine.open(made.bundle, 1)
    for name in ("geometry", "height", "descriptor"):
        bare = replace(made.bundle.calibration_inputs().prepared(0), **{name: None})
        with pytest.raises(EngineError, match=name):
            engine.score_prepared(bare, no_progress)


def test_an_engine_without_kernels_for_a_modality_says_so() -> None:
    with pytest.raises(EngineError, match="geometry, height, descriptor are not known"):
        refuse_unknown(ALL, known=("rgb", "points"))
    refuse_unknown(ALL, KNOWN)


def test_frames_can_be_judged_without_the_point_encoder(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asperity.calibration.calibrate.build", build_small)
    monkeypatch.setattr("asperity.calibration.calibrate.write_report", lambda outcome, record, folder: None)
    options = CalibrateOptions(profile="tiny", method="frozen", unit="m", modalities=("rgb", "geometry"))
    record = load_folder(calibrate(made.source, tmp_path, options).path).record
    assert record.network.modalities == ("rgb", "geometry") and tuple(record.decision.modalities()) == (
        "rgb",
        "geometry",
    )
    with pytest.raises(UsageError, match="lsfa adapts rgb and points together"):
        calibrate(made.source, tmp_path / "lsfa", msgspec.structs.replace(options, method="lsfa"))
    for asked, words in (
        (("rgb",), "one or more of"),
        (("points", "geometry"), "name rgb"),
        (("rgb", "smell"), "smell"),
    ):
        with pytest.raises(UsageError, match=words):
            calibrate(made.source, tmp_path / "no", msgspec.structs.replace(options, modalities=asked))


def test_filled_patches_are_those_of_the_groups(made: Made) -> None:
    geometry = made.bundle.manifest.geometry
    for pooling in ("valid_mean", "published"):
        network = msgspec.structs.replace(network_for(PROFILES["tiny"], geometry, "none"), pooling=pooling)
        cloud = prepare(frame(3), geometry, network).cloud
        assert np.array_equal(filled_patches(cloud, network), group(cloud, network).nonempty)
