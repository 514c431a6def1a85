"""The networks of a profile together: shapes, budget, batches, seeds, and a way to disk and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from asperity.calibration.networks import TorchNetworks, build
from asperity.calibration.networks.points_lite import HEARING, PointsLite
from asperity.calibration.networks.surface import REACHES
from asperity.calibration.networks.torch_networks import restore
from asperity.calibration.pretraining.stations import cell_network
from asperity.calibration.profiles import BEFORE_TAPS, PROFILES, profile_as_calibrated
from asperity.runtime.errors import DataError

LITE = PROFILES["lite"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lite() -> TorchNetworks:
    return build(LITE)


def test_lite_fits_its_budget_and_gives_the_profiles_shapes(lite: TorchNetworks) -> None:
    rng = np.random.default_rng(0)
    tokens = lite.rgb(rng.normal(size=(1, 3, 224, 224)).astype(np.float32))
    assert tokens.shape == (LITE.rgb_grid**2, LITE.rgb_channels) and tokens.dtype == np.float32
    groups = rng.normal(size=(LITE.groups, LITE.group_size, 3)).astype(np.float32)
    points = lite.points(groups, rng.normal(size=(LITE.groups, 3)).astype(np.float32))
    assert points.shape == (LITE.groups, LITE.points_channels)
    assert encoder_macs(PointsLite(), LITE.groups, LITE.group_size) <= 0.9e9


def encoder_macs(encoder: PointsLite, groups: int, size: int) -> int:
    """Multiply-accumulates, from the layers' shapes."""

    def of(*layers: nn.Linear) -> int:
        return sum(layer.in_features * layer.out_features for layer in layers)

    net, relief = encoder.groups, encoder.relief
    # Each point against those of its group: distance, softmax and 9 moments; each pair of groups: about 20 products.
    per_point = of(net.linear1, net.linear2) + size * 12
    per_group = of(net.linear3, net.linear4, relief.linear1, relief.linear2) + 20 * len(REACHES) * groups
    for block in encoder.blocks:
        assert isinstance(block.linear1, nn.Linear) and isinstance(block.linear2, nn.Linear)
        per_group += of(block.linear1, block.linear2) + 3 * len(HEARING) * groups * encoder.width
    return groups * (size * per_point + per_group)


def test_tokens_are_row_major_cells(lite: TorchNetworks) -> None:
    image = np.zeros((1, 3, 224, 224), dtype=np.float32)
    touched = image.copy()
    touched[..., 8:16, 200:208] = 2.0  # row 1, column 25 of the 28 x 28 grid
    moved = np.abs(lite.rgb(touched) - lite.rgb(image))[:, :40].sum(axis=1).reshape(28, 28)
    assert np.hypot(*(np.array(np.unravel_index(moved.argmax(), moved.shape)) - (1, 25))) <= 1.5


def test_networks_round_trip_with_adaptors(lite: TorchNetworks, tmp_path: Path) -> None:
    lite = build(LITE)
    tokens, counts = np.random.default_rng(0).normal(size=(64, 384)).astype(np.float32), np.ones(64, dtype=np.float32)
    assert lite.adapt_points(tokens, counts) is tokens
    lite.set_adaptors(*lite.new_adaptors(seed=5))
    lite.save(tmp_path / "networks.safetensors")
    other = build(LITE, seeded=True, seed=9)
    other.load(tmp_path / "networks.safetensors")
    assert {key.split(".")[0] for key in other.state_dict()} == {"rgb", "points", "adaptor_rgb", "adaptor_points"}
    np.testing.assert_array_equal(other.adapt_points(tokens, counts), lite.adapt_points(tokens, counts))
    image = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    np.testing.assert_array_equal(other.rgb(image), lite.rgb(image))
    assert not any(p.requires_grad for module in other.modules.values() for p in module.parameters())


def test_a_folder_calibrated_before_the_blocks_were_a_choice_is_restored(tmp_path: Path) -> None:
    then = replace(LITE, rgb_channels=152, **BEFORE_TAPS["efficientnet_lite0"])
    before = build(then)
    before.set_adaptors(*before.new_adaptors(seed=5))
    before.save(tmp_path / "networks.safetensors")
    network = msgspec.structs.replace(cell_network(), profile="lite", rgb_channels=152)
    assert profile_as_calibrated(network, None, True) == then
    again = restore(profile_as_calibrated(network, None, True), tmp_path / "networks.safetensors", before.origins)
    image = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    np.testing.assert_array_equal(again.rgb(image), before.rgb(image))
    np.testing.assert_array_equal(again.adapt_rgb(again.rgb(image)), before.adapt_rgb(before.rgb(image)))
    edge = profile_as_calibrated(msgspec.structs.replace(network, profile="edge", rgb_channels=384), None, False)
    assert (edge.rgb_taps, edge.rgb_norm) == ((11,), True)
    named = profile_as_calibrated(msgspec.structs.replace(network, profile="edge", rgb_channels=768), (2, 5), False)
    assert (named.rgb_taps, named.rgb_norm, named.rgb_channels) == ((2, 5), False, 768)


def test_stored_networks_that_are_incomplete_are_refused(lite: TorchNetworks, tmp_path: Path) -> None:
    state = lite.state_dict()
    state.pop("points.norm.weight")
    with pytest.raises(DataError, match="'points'"):
        build(LITE, seeded=True).load_state_dict(state)
    (tmp_path / "networks.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="networks"):
        lite.load(tmp_path / "networks.safetensors")


def test_batches_are_their_frames(lite: TorchNetworks) -> None:
    rng = np.random.default_rng(2)
    images = rng.normal(size=(2, 3, 224, 224)).astype(np.float32)
    np.testing.assert_allclose(lite.rgb_batch(images)[1], lite.rgb(images[1:]), rtol=1e-4, atol=1e-4)
    groups = rng.normal(size=(2, 256, 32, 3)).astype(np.float32)
    centres = rng.normal(size=(2, 256, 3)).astype(np.float32)
    np.testing.assert_allclose(
        lite.points_batch(groups, centres)[1], lite.points(groups[1], centres[1]), rtol=1e-4, atol=1e-4
    )


def test_seeds_decide_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (build(LITE, seeded=True, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    key = "points.blocks.0.linear1.weight"
    assert torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key])
