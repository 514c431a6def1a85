"""The runtime's features, distances and maps against the plainly written published pipeline, on every profile.

In the quick test ``paper`` runs at its own grid, widths and adaptors, with fewer point groups and an RGB backbone that
is a stand-in of its output's shape; the soak tests run it whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asperity.benchmarks.published_form.torch_form import (
    PublishedBank,
    PublishedPipeline,
    PublishedScores,
    farthest_points,
    fused_map,
    fused_score,
    pixel_map,
)
from asperity.calibration.features.embedding import fit_station_statistics
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.profiles import PROFILES, Profile, network_for
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.frame import ModalityScores, Prepared, Silhouette, Window
from asperity.runtime.manifest import Decision, Geometry, Modality, Network
from asperity.runtime.vision import maps, scoring
from asperity.runtime.vision.distances import ModalityBank, RowStatistics, measure
from asperity.runtime.vision.features import adapted_patches, frozen_patches, points_slots
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.points import farthest_points as runtime_farthest_points
from asperity.runtime.vision.preprocess import prepare

torch.set_num_threads(1)

TOKENS = 5e-6
"""Tolerance of tokens: largest difference relative to the largest value, float32."""
DISTANCES = 2e-5
"""Of patch distances, likewise: the bank lies near the queries, so digits cancel."""
IMAGE = 1e-5
"""Of image distances and of the fused score and map, relative."""


NO_BANK = PublishedBank(torch.empty(0, 1), 0.0, 1.0)


class StandInBackbone(nn.Module):
    """A convolution of a ViT-B/8's output shape: (1, 3, 224, 224) -> (1, 784, 768)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.patches(images).flatten(2).transpose(1, 2))


def geometry() -> Geometry:
    return Geometry(
        method="none", why="test", unit="mm", height_px=240, width_px=240, plane=None, plane_cut_mm=1.0,
        point_spacing_mm=0.4, plane_noise_mm=0.05, cluster_gap_px=3, side_px=224, mm_per_px=0.4, min_points=50,
        moved_share=0.3, moved_mm=2.0,
    )  # fmt: skip


def frame(network: Network, seed: int) -> Prepared:
    """A bumpy disc with a hole and speckled colours, its points a little off the pixel grid."""
    rng = np.random.default_rng(seed)
    side = network.cloud_px
    rows, columns = np.mgrid[:side, :side] * (90.0 / side)
    distance = np.hypot(rows - 45, columns - 40)
    height = 500 + 2 * np.sin(rows / 7) * np.cos(columns / 9)
    cloud = np.stack([columns - 45, rows - 45, height], axis=2) + rng.normal(0, 0.05, (side, side, 3))
    part = (distance < 33) & (distance > 8) & (rng.random((side, side)) > 0.02)
    cloud[~part] = 0
    shade = rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)
    image = np.kron(shade, np.ones((network.image_px // 14,) * 2 + (1,), np.uint8))
    inspect = np.ones((network.grid, network.grid), bool)
    inspect[: network.grid // 3] = False
    return Prepared(image, cloud.astype(np.float32), inspect, Window(0, 0, 224), Silhouette(1, 1, 1, 1, 0))


def setting(name: str) -> tuple[Profile, Network, TorchNetworks]:
    profile = PROFILES[name]
    if name == "paper":
        profile = replace(profile, groups=96, group_size=32, point_bn="batch", cloud_px=112)
    small = replace(profile, rgb_backbone="efficientnet_lite0", rgb_taps=(0,))
    networks = build(small if name == "paper" else profile, seeded=True)
    if name == "paper":
        torch.manual_seed(3)
        networks.modules["rgb"] = StandInBackbone().eval()
    networks.set_adaptors(*networks.new_adaptors(seed=7))
    return profile, network_for(profile, geometry(), "lsfa"), networks


@dataclass(frozen=True)
class Differences:
    """Ours against the published pipeline, each relative to its largest value (image distances: to themselves)."""

    tokens: float
    """The largest of both modalities' tokens, before and after the adaptors."""
    distances: float
    image: float
    score: float
    """Absolute: scores are standardised."""
    map: float
    quantised_map: float
    """Against the map through 8 bits and Pillow's boxes."""
    control: float
    """Distances of a pipeline that forgets the adaptors."""
    nonempty: float
    """Share of the grid."""


def differences(prepared: Prepared, other: Prepared, network: Network, networks: TorchNetworks) -> Differences:
    """Both pipelines on one frame, with one bank made of another frame's features."""
    plain = PublishedPipeline(network, networks.modules, *[NO_BANK] * 2, distance_dtype=torch.float64)
    frozen, plain_frozen = frozen_patches(prepared, network, networks), plain.frozen(prepared)
    nonempty = frozen.nonempty.reshape(-1)
    assert np.array_equal(nonempty, plain_frozen.nonempty.numpy())
    network = msgspec.structs.replace(network, points_slots=points_slots(int(nonempty.sum()), network.grid))
    adapted = adapted_patches(frozen, network, networks)
    plain_adapted = plain.adapted(plain_frozen)
    parents = np.arange(network.grid**2).reshape(network.grid, network.grid)
    factor = network.grid // network.rgb_grid
    parents = (parents // network.grid // factor) * network.rgb_grid + parents % network.grid // factor
    tokens = max(
        difference
        for ours, theirs in ((frozen, plain_frozen), (adapted, plain_adapted))
        for difference in (
            relative(ours.features["rgb"][parents.reshape(-1)], theirs.rgb.numpy()),
            relative(ours.features["points"][nonempty], theirs.points.numpy()[nonempty]),
        )
    )

    bank_patches = adapted_patches(frozen_patches(other, network, networks), network, networks)
    banks = [
        standardised(bank_patches.features["rgb"]),
        standardised(bank_patches.features["points"][bank_patches.nonempty.reshape(-1)]),
    ]
    usuals = [usual(rows) if network.distances == "local" else None for rows, _, _ in banks]
    plain.rgb_bank, plain.points_bank = (
        PublishedBank(torch.from_numpy(rows), m, s, (torch.from_numpy(u.mean), torch.from_numpy(u.std)) if u else None)
        for (rows, m, s), u in zip(banks, usuals, strict=True)
    )
    for_rgb, for_points = (
        ModalityBank(MemoryBank(rows), m, s, u) for (rows, m, s), u in zip(banks, usuals, strict=True)
    )
    seen, scored = measure(adapted, prepared.inspect, {"rgb": for_rgb, "points": for_points})
    rgb, points = seen["rgb"], seen["points"]
    theirs = plain.score_tokens(plain_adapted, prepared)
    assert np.array_equal(scored, theirs.scored)
    flat = scored.reshape(-1)
    both = (
        (rgb.distance_map.reshape(-1)[flat], theirs.rgb_distances.numpy()[flat]),
        (points.distance_map.reshape(-1)[flat], theirs.points_distances.numpy()[flat]),
    )
    images = (
        (rgb.image_distance, theirs.rgb_image_distance), (points.image_distance, theirs.points_image_distance),
    )  # fmt: skip
    decision = a_decision(rgb, points)
    ours_map = maps.pixel_map(scoring.fused_map(seen, decision))
    height = np.ptp(ours_map)
    control = plain.score_tokens(plain_frozen, prepared)
    return Differences(
        tokens=tokens,
        distances=max(relative(*pair) for pair in both),
        image=max(abs(ours - his) / his for ours, his in images),
        score=abs(scoring.fused_score(seen, decision) - fused_score(theirs, decision)),
        map=float(np.abs(ours_map - fused_map(theirs, decision, quantised=False)).max() / height),
        quantised_map=float(np.abs(ours_map - fused_map(theirs, decision)).max() / height),
        control=relative(both[0][0], control.rgb_distances.numpy()[flat]),
        nonempty=float(nonempty.mean()),
    )


def within_tolerance(found: Differences) -> None:
    assert 0.1 < found.nonempty < 0.9
    assert found.tokens < TOKENS
    assert found.distances < DISTANCES
    assert found.image < IMAGE
    assert found.score < 1e-5
    assert found.map < 5e-5
    # Eight bits and Pillow's boxes in place of the Gaussian: the published map is coarser, not another one.
    assert found.quantised_map < 0.05
    assert found.control > 100 * TOKENS, "control: without the adaptors the distances are others"


@pytest.mark.parametrize("name", PROFILES)
def test_runtime_equals_the_published_pipeline(name: str) -> None:
    _, network, networks = setting(name)
    within_tolerance(differences(frame(network, 0), frame(network, 1), network, networks))


def virtual_frames(profile: Profile, count: int) -> tuple[Network, list[Prepared]]:
    """Normal frames of the virtual roll, prepared as a calibration does."""
    camera = VirtualCamera("roll", seed=5)
    frames = [camera.frame(index).frame for index in range(count)]
    fitted = fit_geometry(frames)
    network = network_for(profile, fitted, "lsfa")
    return network, [prepare(one, fitted, network) for one in frames]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["lite", "edge", pytest.param("paper", marks=pytest.mark.soak)])
def test_whole_profiles_equal_the_published_pipeline_on_virtual_frames(name: str) -> None:
    """Full size; `lite` and `edge` with their shipped weights, `paper` seeded, with the station's statistics."""
    profile = PROFILES[name]
    network, frames = virtual_frames(profile, 4)
    networks = build(profile)
    fit_station_statistics(frames, network, networks, profile)
    networks.set_adaptors(*networks.new_adaptors(seed=7))
    found = differences(frames[0], frames[1], network, networks)
    print(name, "virtual", found)
    within_tolerance(found)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_paper_at_full_size_equals_the_published_pipeline() -> None:
    profile = PROFILES["paper"]
    network = network_for(profile, geometry(), "lsfa")
    networks = build(profile, seeded=True)
    prepared, other = frame(network, 0), frame(network, 1)
    fit_station_statistics([prepared, other], network, networks, profile)
    networks.set_adaptors(*networks.new_adaptors(seed=7))
    found = differences(prepared, other, network, networks)
    print("paper random", found)
    within_tolerance(found)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def standardised(features: np.ndarray) -> tuple[np.ndarray, float, float]:
    mean, std = float(features.mean()), float(features.std())
    return ((features - mean) / std).astype(np.float32), mean, std


def usual(rows: np.ndarray) -> RowStatistics:
    """Some mean and spread at every row, of the size that distances have."""
    rng = np.random.default_rng(len(rows))
    typical = float(np.sqrt(rows.shape[1]))
    return RowStatistics(
        *(rng.uniform(low, high, len(rows)).astype(np.float32) * typical for low, high in ((0.2, 0.6), (0.1, 0.4)))
    )


def a_decision(rgb: ModalityScores, points: ModalityScores) -> Decision:
    def modality(scores: ModalityScores, weight: float) -> Modality:
        return Modality(
            feature_mean=0.0, feature_std=1.0, image_mean=0.5 * scores.image_distance,
            image_std=max(scores.image_distance, 1e-3), patch_mean=float(scores.distance_map.mean()),
            patch_std=float(scores.distance_map.std()), weight=weight, bank_rows=1,
        )  # fmt: skip

    return Decision(
        engine="torch", precision="float32", rgb=modality(rgb, 0.4), points=modality(points, 0.6), fusion="average",
        threshold=1.0, alpha=0.02, alpha_total=0.02, calibration_scores=(0.0,),
    )  # fmt: skip


def test_sampling_equals_the_runtimes() -> None:
    points = np.random.default_rng(4).normal(size=(500, 3))
    assert np.array_equal(farthest_points(torch.from_numpy(points), 64).numpy(), runtime_farthest_points(points, 64))


def test_a_flat_map_survives_quantisation() -> None:
    assert not pixel_map(torch.zeros(784), 28).any()
    np.testing.assert_allclose(pixel_map(torch.full((784,), 2.5), 28), 2.5, rtol=1e-2)


def test_published_scores_of_a_frame_with_nothing_to_score_are_zero() -> None:
    profile, network, networks = setting("lite")
    prepared = frame(network, 0)
    prepared = replace(prepared, inspect=np.zeros_like(prepared.inspect))
    bank = [
        PublishedBank(torch.randn(9, channels), 0.0, 1.0)
        for channels in (profile.rgb_channels, profile.points_channels)
    ]
    scores = PublishedPipeline(network, networks.modules, *bank).score(prepared)
    assert isinstance(scores, PublishedScores)
    assert not scores.scored.any()
    assert (scores.rgb_image_distance, scores.points_image_distance) == (0.0, 0.0)
