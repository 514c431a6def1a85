"""Losses and queues against plain float64 numpy, and the weighted form against the replicated one (lsfa 4, 5, 11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

from asperity.calibration.adaptation.feature_queue import FeatureQueue
from asperity.calibration.adaptation.losses import (
    compactness,
    global_alignment,
    local_alignment,
    mean_pairwise_distance,
    nearest_distances,
    nearest_rows,
)
from asperity.calibration.features.patches import PatchSet, child_counts
from asperity.runtime.errors import DataError

torch.set_num_threads(1)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


def info_nce(queries: np.ndarray, keys: np.ndarray, temperature: float) -> float:
    """The paper's form, row by row in float64."""
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    total = 0.0
    for a in range(len(queries)):
        e = np.exp(keys @ queries[a] / temperature)
        total -= np.log(e[a] / e.sum())
    return total / len(queries)


def test_nearest_is_the_euclidean_minimum() -> None:
    queries, bank = normal(0, 57, 24), normal(1, 133, 24)
    expected = cdist(queries, bank)
    assert np.array_equal(nearest_rows(tensor(queries), tensor(bank)).numpy(), expected.argmin(1))
    np.testing.assert_allclose(nearest_distances(tensor(queries), tensor(bank)).numpy(), expected.min(1), rtol=1e-5)


def test_search_in_pieces_is_the_whole_search(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank = tensor(normal(2, 41, 8)), tensor(normal(3, 20, 8))
    whole = nearest_rows(queries, bank)
    monkeypatch.setattr("asperity.calibration.adaptation.losses.SEARCH_ELEMENTS", 7 * 20)
    assert torch.equal(nearest_rows(queries, bank), whole)


def test_compactness_is_the_weighted_mean_of_plain_distances() -> None:
    features, bank = normal(4, 31, 12), normal(5, 64, 12)
    weights = np.random.default_rng(6).integers(1, 5, 31)
    expected = np.average(cdist(features, bank).min(1), weights=weights)
    assert float(compactness(tensor(features), tensor(weights), tensor(bank))) == pytest.approx(expected, rel=1e-5)
    copies = tensor(np.repeat(features, weights, axis=0))
    assert float(compactness(copies, torch.ones(len(copies)), tensor(bank))) == pytest.approx(expected, rel=1e-5)
    squared = np.average(cdist(features, bank).min(1) ** 2, weights=weights)
    assert abs(squared - expected) > 0.1, "control: the squared distance is another number"


def test_compactness_pulls_features_to_their_nearest_row_and_never_moves_the_bank() -> None:
    features, bank = tensor(normal(7, 9, 6)).requires_grad_(), tensor(normal(8, 30, 6)).requires_grad_()
    compactness(features, torch.ones(9), bank.detach()).backward()
    assert features.grad is not None
    towards = bank.detach()[nearest_rows(features.detach(), bank.detach())] - features.detach()
    expected = -towards / towards.norm(dim=1, keepdim=True) / 9
    torch.testing.assert_close(features.grad, expected, rtol=1e-4, atol=1e-6)


def test_gradient_is_finite_where_a_feature_equals_a_row() -> None:
    features = tensor(normal(9, 3, 4)).requires_grad_()
    compactness(features, torch.ones(3), features.detach().clone()).backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.07])
def test_local_alignment_is_info_nce_in_both_directions(temperature: float) -> None:
    q, k = normal(10, 40, 16), normal(11, 40, 16)
    k[20:] = q[3] + 0.1 * k[20:]  # one query has many near keys: the two directions differ
    expected = temperature * (info_nce(q, k, temperature) + info_nce(k, q, temperature))
    got = local_alignment(tensor(q), torch.ones(40), tensor(k), torch.arange(40), temperature)
    assert float(got) == pytest.approx(expected, rel=1e-5)
    one_direction = temperature * 2 * info_nce(q, k, temperature)
    assert abs(one_direction - expected) > 1e-3 * expected, "control: one direction alone is another number"


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_weighted_local_alignment_equals_the_replicated_form(temperature: float) -> None:
    rng = np.random.default_rng(12)
    q, parents = normal(13, 20, 16), rng.permutation(np.repeat(np.arange(20), rng.integers(1, 5, 20)))
    k = normal(14, len(parents), 16)
    replicated = q[parents]
    expected = temperature * (info_nce(replicated, k, temperature) + info_nce(k, replicated, temperature))
    rows, weights = tensor(q).requires_grad_(), np.bincount(parents)
    got = local_alignment(rows, tensor(weights), tensor(k), torch.from_numpy(parents), temperature)
    assert float(got.detach()) == pytest.approx(expected, rel=1e-5)
    unweighted = local_alignment(rows.detach(), torch.ones(20), tensor(k), torch.from_numpy(parents), temperature)
    assert abs(float(unweighted) - expected) > 1e-3 * expected, "control: weights of one are another number"

    # The gradient of a token is the sum of its copies' gradients.
    got.backward()
    copies = tensor(replicated).requires_grad_()
    local_alignment(copies, torch.ones(len(k)), tensor(k), torch.arange(len(k)), temperature).backward()
    assert rows.grad is not None
    assert copies.grad is not None
    summed = torch.zeros_like(rows).index_add(0, torch.from_numpy(parents), copies.grad)
    torch.testing.assert_close(rows.grad, summed, rtol=1e-4, atol=1e-6)


def test_global_alignment_is_the_mean_of_both_directions() -> None:
    q, k = normal(15, 8, 16), normal(16, 8, 16)
    expected = 0.2 * 0.5 * (info_nce(q, k, 0.2) + info_nce(k, q, 0.2))
    assert float(global_alignment(tensor(q), tensor(k), 0.2)) == pytest.approx(expected, rel=1e-5)


def test_mean_pairwise_distance() -> None:
    rows = normal(17, 50, 10)
    assert mean_pairwise_distance(tensor(rows)) == pytest.approx(pdist(rows).mean(), rel=1e-5)


def test_queue_keeps_the_newest_rows_in_order() -> None:
    queue = FeatureQueue(10, 1)
    for first in range(0, 28, 4):
        assert queue.full == (first >= 10)
        queue.push(torch.arange(first, first + 4.0)[:, None], torch.ones(4))
    assert queue.rows[:, 0].tolist() == list(range(18, 28))


def test_queue_of_weighted_rows_holds_what_a_queue_of_their_copies_holds() -> None:
    rng = np.random.default_rng(18)
    weighted, plain = FeatureQueue(25, 3), FeatureQueue(25, 3)
    for step in range(12):
        rows, weights = tensor(normal(100 + step, 5, 3)), rng.integers(1, 5, 5)
        weighted.push(rows, tensor(weights))
        plain.push(rows.repeat_interleave(torch.from_numpy(weights), dim=0), torch.ones(int(weights.sum())))
        assert weighted.full == plain.full
        assert torch.equal(torch.unique_consecutive(plain.rows, dim=0), weighted.rows)


def test_queued_rows_carry_no_gradient() -> None:
    queue = FeatureQueue(4, 2)
    queue.push(torch.ones((2, 2), requires_grad=True) * 2, torch.ones(2))
    assert not queue.rows.requires_grad


def test_child_counts_and_parents_agree() -> None:
    nonempty = np.random.default_rng(19).random((2, 8, 8)) < 0.5
    patches = PatchSet({"rgb": np.zeros((2, 16, 3), np.float32), "points": np.zeros((2, 64, 5), np.float32)}, nonempty)
    counts = child_counts(nonempty, 4)
    for image in range(2):
        expected = np.bincount(patches.parents()[nonempty[image].reshape(-1)], minlength=16)
        assert np.array_equal(counts[image], expected)


def test_patches_of_wrong_shape_are_refused() -> None:
    with pytest.raises(DataError, match="do not fit together"):
        PatchSet(
            {"rgb": np.zeros((2, 16, 3), np.float32), "points": np.zeros((2, 60, 5), np.float32)},
            np.ones((2, 8, 8), bool),
        )
    with pytest.raises(DataError, match="grid a multiple of cells"):
        PatchSet(
            {"rgb": np.zeros((2, 9, 3), np.float32), "points": np.zeros((2, 64, 5), np.float32)},
            np.ones((2, 8, 8), bool),
        )
