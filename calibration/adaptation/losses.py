"""The terms of L_LSFA (lsfa 4, 5), each a function of adapted features. Symbols follow the paper.

Patches arrive without duplicates: an RGB token that covers several non-empty patches comes once, with the number of
them as its weight w (lsfa 11 row 18). Every function equals its replicated form, up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_SQUARED_DISTANCE = 1e-12
"""Floor of d^2 before the root, so that its gradient stays finite (lsfa 11 rows 2, 3)."""
SEARCH_ELEMENTS = 1 << 24
"""Distances held in memory at once by the nearest-row search: 64 MiB in float32."""


def nearest_rows(queries: Tensor, bank: Tensor) -> Tensor:
    """Index of the nearest bank row in Euclidean distance, (n,) int64. No gradient passes.

    ``queries`` (n, C), ``bank`` (rows, C) with at least one row.
    """
    with torch.no_grad():
        half_norms = 0.5 * bank.square().sum(1)
        step = max(1, SEARCH_ELEMENTS // bank.shape[0])
        parts = [
            torch.addmm(half_norms, queries[i : i + step], bank.T, alpha=-1.0).argmin(1)
            for i in range(0, queries.shape[0], step)
        ]
        return torch.cat(parts)


def nearest_distances(queries: Tensor, bank: Tensor) -> Tensor:
    """min_Q ||F - Q||_2 for each row F: (n,). The gradient goes to the queries; the bank is a constant."""
    nearest = bank[nearest_rows(queries.detach(), bank)]
    return (queries - nearest).square().sum(1).clamp_min(MIN_SQUARED_DISTANCE).sqrt()


def compactness(features: Tensor, weights: Tensor, bank: Tensor) -> Tensor:
    """L_LC and L_GC of one modality, as a weighted mean over rows (lsfa 4):

        sum_j w_j min_{Q in M} ||F^j - Q||_2 / sum_j w_j

    ``features`` (n, C) are local patches with M the local queue, or global vectors with M the global queue;
    ``weights`` (n,) positive; ``bank`` (rows, C) detached.
    """
    return (weights * nearest_distances(features, bank)).sum() / weights.sum()


def local_alignment(rgb: Tensor, rgb_weights: Tensor, points: Tensor, parents: Tensor, temperature: float) -> Tensor:
    """L_LA (lsfa 5), over all non-empty patches of the mini-batch, both directions, cosine:

        T * [ mean_c -log( e(q_c, k_c) / sum_b e(q_c, k_b) ) + mean_c -log( e(k_c, q_c) / sum_b e(k_c, q_b) ) ]

    with e(a, b) = exp(<a, b> / T) and q, k the L2-normalised projections. T in front is the release's factor 2T,
    halved: it keeps the gradient's size when T changes. Negatives are all other patches of the batch.

    ``rgb`` (R, D) projections of the distinct RGB tokens; ``rgb_weights`` (R,) patches on each of them;
    ``points`` (n, D) projections of the patches; ``parents`` (n,) the RGB row of each patch, so that
    rgb_weights = bincount(parents).
    """
    q, k = F.normalize(rgb, dim=1), F.normalize(points, dim=1)
    # Cosines are bounded by 1, so exp needs no shift for any allowed temperature, and one exp serves both directions.
    similarity = (q / temperature) @ k.T
    weight = similarity.exp()
    positives = similarity[parents, torch.arange(len(parents), device=parents.device)]
    from_rgb = (rgb_weights * weight.sum(1).log()).sum() / len(parents)
    from_points = (rgb_weights @ weight).log().mean()
    loss: Tensor = temperature * (from_rgb + from_points - 2.0 * positives.mean())
    return loss


def global_alignment(rgb: Tensor, points: Tensor, temperature: float) -> Tensor:
    """L_GA (lsfa 5): InfoNCE between the projected global features of the batch's images, ``rgb`` and ``points``
    (N_b, D), row i of both from image i; the mean of both directions, so that its size is that of the release's one.
    """
    each = torch.arange(len(rgb), device=rgb.device)
    return 0.5 * local_alignment(rgb, torch.ones_like(rgb[:, 0]), points, each, temperature)


def mean_pairwise_distance(features: Tensor) -> float:
    """Mean Euclidean distance over all pairs of different rows of (n, C), n >= 2: the collapse guard's measure."""
    n = features.shape[0]
    return float(torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").sum() / (n * (n - 1)))
