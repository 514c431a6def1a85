"""Local distances: a float64 oracle, what they are for, and the frame that must not excuse itself."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.calibration.banks.row_statistics import LEAST_STD_SHARE, NEIGHBOURS, PRIOR_PATCHES, Tally
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.distances import USUAL, ModalityBank, RowStatistics, modality_scores
from asperity.runtime.vision.maps import pixel_map
from asperity.runtime.vision.nearest import MemoryBank

FRAMES, PATCHES, WIDTH = 6, 40, 5


@pytest.fixture
def material() -> tuple[FloatArray, np.ndarray, FloatArray, np.ndarray]:
    """Patches of two kinds of place: calm ones near the origin, wild ones far off."""
    rng = np.random.default_rng(4)
    calm = rng.normal(scale=0.1, size=(FRAMES, PATCHES // 2, WIDTH))
    wild = 8 + rng.normal(scale=1.0, size=(FRAMES, PATCHES // 2, WIDTH))
    patches = np.concatenate([calm, wild], axis=1).reshape(-1, WIDTH).astype(np.float32)
    owners = np.repeat(np.arange(FRAMES), PATCHES)
    chosen = rng.permutation(len(patches))[:60]
    return patches[chosen], owners[chosen], patches, owners


def oracle(bank: FloatArray, bank_owners: np.ndarray, patches: FloatArray, owners: np.ndarray) -> RowStatistics:
    rows, queries = bank.astype(np.float64), patches.astype(np.float64)
    found: list[list[float]] = [[] for _ in rows]
    for query, owner in zip(queries, owners, strict=True):
        distance = np.linalg.norm(rows - query, axis=1)
        distance[bank_owners == owner] = np.inf
        found[int(distance.argmin())].append(float(distance.min()))
    everything = np.concatenate([np.array(f) for f in found])
    mean, variance = everything.mean(), everything.var()
    means, stds = [], []
    for row in rows:
        near = np.argsort(np.linalg.norm(rows - row, axis=1), kind="stable")[:NEIGHBOURS]
        pool = np.concatenate([np.array(found[i]) for i in near])
        weight = len(pool) + PRIOR_PATCHES
        m = (pool.sum() + PRIOR_PATCHES * mean) / weight
        v = ((pool**2).sum() + PRIOR_PATCHES * (variance + mean**2)) / weight - m**2
        means.append(m)
        stds.append(np.sqrt(max(v, LEAST_STD_SHARE**2 * variance)))
    return RowStatistics(np.array(means, np.float32), np.array(stds, np.float32))


def test_it_equals_a_plain_float64_count(material: tuple[FloatArray, np.ndarray, FloatArray, np.ndarray]) -> None:
    usual, expected = Tally(*material).usual(), oracle(*material)
    np.testing.assert_allclose(usual.mean, expected.mean, rtol=1e-4)
    np.testing.assert_allclose(usual.std, expected.std, rtol=1e-3)


def test_one_distance_is_strange_where_it_is_calm_and_usual_where_it_is_wild(
    material: tuple[FloatArray, np.ndarray, FloatArray, np.ndarray],
) -> None:
    bank, _, patches, _ = material
    usual = Tally(*material).usual()
    memory = MemoryBank(bank)
    calm, wild = np.flatnonzero(bank[:, 0] < 4)[:1], np.flatnonzero(bank[:, 0] > 4)[:1]
    calm_score, wild_score = (float(usual.local(np.array([1.5]), row)[0]) for row in (calm, wild))
    assert calm_score > wild_score + 1
    distances, index = memory.nearest(patches)
    local = usual.local(distances, index)
    assert (local >= 0).all()
    # Patches that filled the bank lie nearer than usual, never farther on average.
    assert local.mean() < USUAL + 0.5


def test_a_frame_does_not_excuse_itself(material: tuple[FloatArray, np.ndarray, FloatArray, np.ndarray]) -> None:
    bank, bank_owners, patches, owners = material
    spoiled = patches.copy()
    spoiled[:10] += 3.0  # ten calm patches of frame 0
    tally = Tally(bank, bank_owners, spoiled, owners)
    with_it, without_it = tally.usual(), tally.usual(leave_out=0)
    distances, index = MemoryBank(bank[bank_owners != 0]).nearest(spoiled[:10])
    rows = np.flatnonzero(bank_owners != 0)[index]
    assert (without_it.local(distances, rows) > with_it.local(distances, rows)).all()


def test_copies_of_one_frame_are_refused() -> None:
    one = np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)
    patches, owners = np.concatenate([one, one]), np.repeat([0, 1], 20)
    with pytest.raises(CalibrationError, match="copies of one"):
        Tally(patches, owners, patches, owners).usual()


def test_the_map_is_local_and_the_image_is_its_smoothed_peak(
    material: tuple[FloatArray, np.ndarray, FloatArray, np.ndarray],
) -> None:
    bank, _, patches, _ = material
    usual = Tally(*material).usual()
    memory = MemoryBank(bank)
    scored = np.zeros((6, 6), dtype=bool)
    scored[1:5, 1:5] = True
    features = patches[:36].copy()
    features[14] = 2.0
    found = modality_scores(features, scored, ModalityBank(memory, 0.0, 1.0, usual))
    distances, index = memory.nearest(features[scored.ravel()])
    expected = np.zeros((6, 6))
    expected[scored] = usual.local(distances, index)
    np.testing.assert_allclose(found.distance_map, expected, rtol=1e-6)
    assert found.image_distance == pytest.approx(float(pixel_map(expected.astype(np.float32)).max()), rel=1e-6)
    assert (found.distance_map[~scored] == 0).all()
    published = modality_scores(features, scored, ModalityBank(memory, 0.0, 1.0))
    assert published.distance_map[scored] == pytest.approx(distances, rel=1e-6)


def test_a_distance_that_is_no_number_stays_none() -> None:
    usual = RowStatistics(np.ones(3, np.float32), np.ones(3, np.float32))
    assert np.isnan(usual.local(np.array([np.nan]), np.array([0]))).all()
