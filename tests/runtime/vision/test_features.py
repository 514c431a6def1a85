"""The road from a prepared frame to patches, with networks whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray, Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.features import (
    Patches,
    StageClock,
    adapted_patches,
    frozen_patches,
    merged_tokens,
    normalised_image,
    points_slots,
)
from asperity.runtime.vision.points import group
from asperity.runtime.vision.preprocess import prepare
from tests.synthetic_station import plane_geometry, shoot, small_network


def attention(tokens: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """One residual attention layer in float64 whose key j counts ``counts[j]`` times: the shape of lsfa 3."""
    random = np.random.default_rng(width)
    query, key, value = (random.normal(size=(width, width)) / np.sqrt(width) for _ in range(3))
    wide = tokens.astype(np.float64)
    weights = np.exp((wide @ query) @ (wide @ key).T / np.sqrt(width) + np.log(counts))
    return wide + weights / weights.sum(axis=1, keepdims=True) @ (wide @ value)  # type: ignore[no-any-return]


class KnownNetworks:
    """Fixed linear maps; the adaptors attend, so that every token matters to every other."""

    def __init__(self, network: Network) -> None:
        random = np.random.default_rng(0)
        self.network = network
        self.to_rgb = random.normal(size=(3, network.rgb_channels)).astype(np.float32)
        self.to_points = random.normal(size=(6, network.points_channels)).astype(np.float32)
        self.slots: list[int] = []

    def rgb(self, image: FloatArray) -> FloatArray:
        cell = self.network.image_px // self.network.rgb_grid
        grid = self.network.rgb_grid
        means = image[0].reshape(3, grid, cell, grid, cell).mean(axis=(2, 4)).reshape(3, -1).T
        return means @ self.to_rgb

    def points(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        return np.concatenate([groups.max(axis=1), centres], axis=1) @ self.to_points

    def adapt_rgb(self, tokens: FloatArray) -> FloatArray:
        return attention(tokens, np.ones(len(tokens)), tokens.shape[1]).astype(np.float32)

    def adapt_points(self, tokens: FloatArray, counts: FloatArray) -> FloatArray:
        self.slots.append(len(tokens))
        return attention(tokens, counts, tokens.shape[1]).astype(np.float32)


def prepared_frame(network: Network) -> Prepared:
    shot = shoot()
    return prepare(shot.frame, plane_geometry(shot), network)


def random_patches(filled: int, network: Network) -> Patches:
    random = np.random.default_rng(filled)
    total = network.grid**2
    nonempty = np.zeros(total, bool)
    nonempty[random.permutation(total)[:filled]] = True
    points = random.normal(size=(total, network.points_channels)).astype(np.float32) * nonempty[:, None]
    rgb = random.normal(size=(network.rgb_grid**2, network.rgb_channels)).astype(np.float32)
    return Patches({"rgb": rgb, "points": points}, nonempty.reshape(network.grid, network.grid))


def test_image_is_normalised_by_the_networks_constants() -> None:
    """Channel first, [0, 1], less mean, over standard deviation, against float64."""
    network = small_network(rgb_mean=(0.485, 0.456, 0.406), rgb_std=(0.229, 0.224, 0.225))
    prepared = prepared_frame(network)
    expected = (prepared.image / 255.0 - np.array(network.rgb_mean)) / np.array(network.rgb_std)
    image = normalised_image(prepared, network)
    assert image.shape == (1, 3, 56, 56) and image.dtype == np.float32 and image.flags.c_contiguous
    np.testing.assert_allclose(image[0].transpose(1, 2, 0), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["published", "valid_mean"])
def test_frozen_patches_pool_the_encoders_tokens(pooling: str) -> None:
    """Points patches are the sparse map times the tokens, exact zeros where empty."""
    network = small_network(pooling=pooling)
    networks, prepared = KnownNetworks(network), prepared_frame(network)
    patches = frozen_patches(prepared, network, networks)
    grouped = group(prepared.cloud, network)
    expected = grouped.to_patches.toarray() @ networks.points(grouped.groups, grouped.centres)
    np.testing.assert_allclose(patches.features["points"], expected, atol=1e-5)
    assert 0 < patches.nonempty.sum() < 49
    assert not patches.features["points"][~patches.nonempty.ravel()].any()
    np.testing.assert_array_equal(patches.features["rgb"], networks.rgb(normalised_image(prepared, network)))


@pytest.mark.parametrize("filled", [0, 1, 20, 31, 48, 49])
def test_merged_empty_patches_change_nothing(filled: int) -> None:
    """Against attention over all grid^2 tokens with empty ones as plain zeros; larger frames take all slots."""
    network = small_network(adaptor="lsfa", points_slots=32, rgb_slots=49)
    networks, patches = KnownNetworks(network), random_patches(filled, network)
    adapted = adapted_patches(patches, network, networks)
    present = patches.nonempty.ravel()
    whole = attention(patches.features["points"], np.ones(49), network.points_channels)
    np.testing.assert_allclose(adapted.features["points"][present], whole[present], rtol=1e-5, atol=1e-5)
    assert not adapted.features["points"][~present].any()
    assert networks.slots == [32 if filled < 32 else 49]
    np.testing.assert_allclose(
        adapted.features["rgb"], attention(patches.features["rgb"], np.ones(49), 5), rtol=1e-5, atol=1e-5
    )


def test_counts_that_ignore_the_empty_patches_would_differ() -> None:
    """Control of the test above."""
    network = small_network(adaptor="lsfa", points_slots=32, rgb_slots=49)
    patches = random_patches(20, network)
    tokens, counts = merged_tokens(patches.features["points"], patches.nonempty, network)
    whole = attention(patches.features["points"], np.ones(49), 6)[patches.nonempty.ravel()]
    assert np.abs(attention(tokens, np.ones(32), 6)[:20] - whole).max() > 1e-3
    np.testing.assert_allclose(attention(tokens, counts, 6)[:20], whole, atol=1e-5)


@pytest.mark.parametrize("filled", range(0, 50, 7))
@pytest.mark.parametrize("slots", [0, 8, 32, 49])
def test_multiplicities_are_positive_and_count_every_patch(filled: int, slots: int) -> None:
    """So that their logarithm exists and attention sees grid^2 keys."""
    network = small_network(adaptor="lsfa", points_slots=slots)
    patches = random_patches(filled, network)
    tokens, counts = merged_tokens(patches.features["points"], patches.nonempty, network)
    assert len(tokens) == len(counts) and len(tokens) in (slots, 49)
    assert (counts > 0).all() and counts.sum() == pytest.approx(49, rel=1e-5)
    np.testing.assert_array_equal(tokens[:filled], patches.features["points"][patches.nonempty.ravel()])
    assert not tokens[filled:].any()


@pytest.mark.parametrize(("most", "slots"), [(0, 64), (50, 64), (59, 128), (400, 448), (760, 784), (784, 784)])
def test_slots_have_headroom_and_end_at_the_grid(most: int, slots: int) -> None:
    """A multiple of 64 at least 1.1 times the largest count, never more than grid^2."""
    assert points_slots(most, 28) == slots


def test_without_adaptor_patches_stay_as_they_are() -> None:
    """And an adaptor that is not known is an error."""
    network = small_network()
    networks, patches = KnownNetworks(network), random_patches(20, network)
    adapted = adapted_patches(patches, network, networks)
    np.testing.assert_array_equal(adapted.features["points"], patches.features["points"])
    np.testing.assert_array_equal(adapted.features["rgb"], patches.features["rgb"])
    with pytest.raises(EngineError, match="adaptor"):
        adapted_patches(patches, small_network(adaptor="lora"), networks)


def test_the_clock_hears_every_stage() -> None:
    """Both modalities count the network and the adaptor; times add up, none is negative."""
    network = small_network(adaptor="lsfa", points_slots=48, rgb_slots=49)
    networks, prepared = KnownNetworks(network), prepared_frame(network)
    heard: list[str] = []
    clock = StageClock(heard.append)
    adapted_patches(frozen_patches(prepared, network, networks, clock), network, networks, clock)
    assert heard == ["rgb", "points", "points", "rgb", "points"]
    assert set(clock.stage_us) == {"rgb", "points"} and min(clock.stage_us.values()) >= 0


class Damaged(KnownNetworks):
    """Gives one graph's answer damaged."""

    def __init__(self, network: Network, graph: str, damage: str) -> None:
        super().__init__(network)
        self.graph, self.damage = graph, damage

    def _spoil(self, graph: str, tokens: FloatArray) -> FloatArray:
        if graph != self.graph:
            return tokens
        if self.damage == "shape":
            return tokens[:, 1:]
        spoiled = tokens.copy()
        spoiled[0, 0] = np.nan if self.damage == "nan" else np.inf
        return spoiled

    def rgb(self, image: FloatArray) -> FloatArray:
        return self._spoil("rgb", super().rgb(image))

    def points(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        return self._spoil("points", super().points(groups, centres))

    def adapt_rgb(self, tokens: FloatArray) -> FloatArray:
        return self._spoil("adaptor_rgb", super().adapt_rgb(tokens))

    def adapt_points(self, tokens: FloatArray, counts: FloatArray) -> FloatArray:
        return self._spoil("adaptor_points", super().adapt_points(tokens, counts))


@pytest.mark.parametrize("damage", ["nan", "inf", "shape"])
@pytest.mark.parametrize("graph", ["rgb", "points", "adaptor_rgb", "adaptor_points"])
def test_a_network_that_answers_nonsense_is_an_error(graph: str, damage: str) -> None:
    """The text names the graph; no feature is made of it."""
    network = small_network(adaptor="lsfa", points_slots=49, rgb_slots=49)
    networks = Damaged(network, graph, damage)
    with pytest.raises(EngineError, match=graph):
        adapted_patches(frozen_patches(prepared_frame(network), network, networks), network, networks)
