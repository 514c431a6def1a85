"""Patch features to distances: the memory banks' answer to one frame (lsfa 7.2, 7.3, 11 row 5).

Two ways, determined by the bank. Published: a patch's distance is that to its nearest row, the image's is the largest
one, re-weighted (lsfa 7.3). Local: a distance counts by how unusual it is for that row, and the image's distance is the
peak of the smoothed map; ``docs/decisions/local-distances.md`` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, FloatArray, ModalityName, ModalityScores
from asperity.runtime.vision.features import Patches
from asperity.runtime.vision.maps import own_blur_px, pixel_map
from asperity.runtime.vision.nearest import MemoryBank

REWEIGHTING_ROWS = 3
"""m* and its two nearest bank rows (lsfa 7.3)."""


USUAL = 3.0
"""A local distance at which a patch is as far from its row as normal patches are on average: one that lies 3 standard
deviations nearer counts 0, as one that was not scored does."""


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """How far normal patches lie from each bank row they are nearest to."""

    mean: FloatArray  # (N,)
    std: FloatArray  # (N,), above 0

    def local(self, distances: NDArray[np.float64], nearest: NDArray[np.int64]) -> NDArray[np.float64]:
        """max(0, USUAL + (distance - mean) / std) of the nearest row; NaN stays NaN."""
        deviation: NDArray[np.float64] = (distances - self.mean[nearest]) / self.std[nearest]
        return np.maximum(0.0, USUAL + deviation)


@dataclass(frozen=True, slots=True)
class ModalityBank:
    """One modality's memory and the scalars that standardise features before they meet it (lsfa 11 row 16)."""

    memory: MemoryBank
    feature_mean: float
    feature_std: float
    usual: RowStatistics | None = None
    """None: published distances."""
    projection: FloatArray | None = None
    """C x D: standardised features are multiplied by it, as the rows were; None: they are compared as they are."""

    def standardised(self, features: FloatArray) -> FloatArray:
        """(features - mean) / std [projection], float32."""
        standard: FloatArray = (features - np.float32(self.feature_mean)) * np.float32(1.0 / self.feature_std)
        return standard if self.projection is None else standard @ self.projection


def measure(
    patches: Patches, inspect: BoolArray, banks: Mapping[ModalityName, ModalityBank]
) -> tuple[dict[ModalityName, ModalityScores], BoolArray]:
    """Distances of the non-empty, inspected patches to every bank, by modality, and scored (grid x grid).

    A frame with no patch to score gives zero maps and ``scored`` all False, which ``scoring.decide`` never lets pass.
    Raises EngineError on features that are not finite or of a wrong width, or are not there.
    """
    scored = patches.nonempty & inspect
    if missing := sorted(banks.keys() - patches.features.keys()):
        raise EngineError(f"the frame has no {missing[0]} features, and the bundle holds a bank of them; export again")
    return {name: modality_scores(patches.features[name], scored, bank) for name, bank in banks.items()}, scored


def modality_scores(
    features: FloatArray, scored: BoolArray, bank: ModalityBank, beside: Executor | None = None
) -> ModalityScores:
    """Distances of one modality's tokens (T, C) that lie under a scored patch (grid x grid).

    A token is scored when any of its patches is; its distance stands in all of its scored patches. ``beside`` as in
    ``MemoryBank.nearest``. Raises as ``measure``.
    """
    repeat = _repeat(scored.shape[0], len(features))
    own_grid = scored.shape[0] // repeat
    tokens = np.asarray(scored.reshape(own_grid, repeat, own_grid, repeat).any(axis=(1, 3)))
    own_map, distance = _modality(features, tokens, bank, beside)
    if repeat == 1:
        return ModalityScores(own_map, distance)
    return ModalityScores(
        np.where(scored, own_map.repeat(repeat, axis=0).repeat(repeat, axis=1), np.float32(0.0)), distance
    )


def image_distance(worst: FloatArray, distance: float, nearest: int, memory: MemoryBank) -> float:
    """The re-weighted image distance of lsfa 7.3, in the published form.

    ``worst`` (D,) is the standardised feature of the patch with the largest distance s*, ``nearest`` the index of its
    bank row m*. N_2 are the two rows nearest to m* (m* itself dropped), C = D:
    s = (1 - exp(s*/sqrt(C)) / sum_{m in N_2} exp(||f - m||/sqrt(C))) s*.
    Raises EngineError when the bank has fewer than 3 rows.
    """
    if len(memory) < REWEIGHTING_ROWS:
        raise EngineError(f"a memory bank of {len(memory)} rows is too small to re-weight; it needs {REWEIGHTING_ROWS}")
    _, rows = memory.nearest_rows(memory.rows[nearest], REWEIGHTING_ROWS)
    difference = memory.rows[rows[1:]] - worst.astype(np.float64)
    neighbours = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    # exp(s*) / sum exp(d) as a sum of exp(d - s*): the same number without overflow.
    weight = 1.0 - 1.0 / np.exp((neighbours - distance) / np.sqrt(memory.dimension)).sum()
    return float(weight * distance)


def _modality(
    features: FloatArray, scored: BoolArray, bank: ModalityBank, beside: Executor | None = None
) -> tuple[FloatArray, float]:
    """Distance map on the modality's own grid (0 where not scored), and the image distance (0 with nothing scored)."""
    distance_map = np.zeros(scored.shape, dtype=np.float32)
    if not scored.any():
        return distance_map, 0.0
    queries = bank.standardised(features[scored.ravel()])
    distances, index = bank.memory.nearest(queries, beside)
    if bank.usual is not None:
        distance_map[scored] = bank.usual.local(distances, index)
        return distance_map, float(pixel_map(distance_map, own_blur_px(len(distance_map))).max())
    distance_map[scored] = distances
    worst = int(distances.argmax())
    return distance_map, image_distance(queries[worst], float(distances[worst]), int(index[worst]), bank.memory)


def _repeat(grid: int, tokens: int) -> int:
    own_grid = int(np.sqrt(tokens))
    if own_grid**2 != tokens or grid % own_grid:
        raise EngineError(f"{tokens} tokens do not lie evenly on a {grid} x {grid} grid; export the bundle again")
    return grid // own_grid
