"""Whole bundles of `lite` and `fast` with their real networks through the CUDA engine on the CPU stand-in: gate and
threshold. With ``RECORD=FILE`` in the environment what was seen of `lite` is written there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.cuda.shim.graphs import OnnxGraphs
from asperity.runtime.cuda.shim.streams import ShimFrameDevice
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.cuda import CudaEngine, Settings
from asperity.runtime.engines.own_threshold import take_threshold
from asperity.runtime.engines.parity_gate import prove
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.scoring import decide
from tests.kept import kept


def silent(_stage: str) -> None:
    """Nobody follows the progress."""


def make_fast(folder: Path) -> None:
    """Normal frames of the virtual bracket, calibrated without the point branch, exported and signed."""
    import torch

    from asperity.calibration.calibrate import calibrate
    from asperity.calibration.options import CalibrateOptions
    from asperity.export.bundle import export_bundle
    from asperity.runtime.cameras.mvtec_files import write_frame
    from asperity.runtime.cameras.virtual.camera import VirtualCamera

    torch.set_num_threads(1)
    camera = VirtualCamera("bracket", size_px=128)
    for index in range(40):
        frame = camera.frame(index).frame
        assert frame.xyz is not None
        write_frame(folder / "normals" / "train" / "good", f"{index:03d}", frame.rgb, frame.xyz)
    options = CalibrateOptions(recipe="bracket", unit="m", strangest=0, profile="fast", method="frozen")
    calibration = calibrate(folder / "normals", folder, options)
    export_bundle(calibration.path, folder / "bundle", TrustStore(folder / "keys"), threads=1, timing_s=0.5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("profile", ["lite", "fast"])
def test_a_bundle_opens_on_the_stand_in_and_judges_as_on_the_cpu(profile: str, request: pytest.FixtureRequest) -> None:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    if profile == "lite":
        made = request.getfixturevalue("lite_bundle")
        path, trust = made.path, made.trust
    else:
        folder = kept("fast_bundle", make_fast)
        path, trust = folder / "bundle", TrustStore(folder / "keys")
    bundle, device = open_bundle(path, trust), ShimFrameDevice()
    graphs = OnnxGraphs({name: bundle.graph(name) for name in bundle.graph_names()}, device)
    engine, reference = CudaEngine.open(bundle, device, graphs, Settings(keep_warm_ms=0)), CpuEngine.open(bundle, 1)
    manifest = bundle.manifest
    assert manifest.decision.fusion == "squares"
    assert all(one.projected for one in manifest.decision.modalities().values()), "the profile's default whitens"
    decision = prove(bundle, engine, silent)
    assert (decision.engine, decision.precision) == ("cuda", "fp32")
    _, parity = take_threshold(bundle, engine, silent)
    seen: dict[str, object] = {
        "what": "a lite bundle through the CUDA engine on the CPU stand-in, networks in ONNX Runtime, beside the CPU",
        "command": "RECORD=FILE pytest -m soak tests/runtime/cuda/test_lite_station.py",
        "commit": commit(),
        "machine": machine(),
        "calibration_inputs": {name: getattr(parity, name) for name in parity.__struct_fields__},
        "golden": [],
    }
    golden_seen = []
    spread = float(np.std(manifest.decision.calibration_scores))
    for golden, frame in bundle.golden_frames():
        found, expected = engine.score(frame, silent), reference.score(frame, silent)
        assert np.array_equal(found.scored, expected.scored)
        mine, theirs = (
            decide(scores, manifest.decision, manifest.silhouette, manifest.geometry) for scores in (found, expected)
        )
        assert (mine.verdict, mine.reason, mine.region) == (theirs.verdict, theirs.reason, theirs.region)
        assert mine.score is not None and theirs.score is not None
        assert abs(mine.score - theirs.score) < 0.01 * spread
        for name, one in found.modalities.items():
            other = expected.modalities[name]
            np.testing.assert_allclose(one.distance_map, other.distance_map, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(one.image_distance, other.image_distance, rtol=1e-3)
        golden_seen.append(
            {
                "name": golden.name,
                "verdict": mine.verdict.name,
                "score": mine.score,
                "score_cpu": theirs.score,
                "largest_map_difference": max(
                    float(np.abs(one.distance_map - expected.modalities[name].distance_map).max())
                    for name, one in found.modalities.items()
                ),
            }
        )
    engine.close()
    if os.environ.get("RECORD") and profile == "lite":
        Path(os.environ["RECORD"]).write_text(json.dumps({**seen, "golden": golden_seen}, indent=1) + "\n")
