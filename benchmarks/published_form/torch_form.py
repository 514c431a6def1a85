"""The published pipeline, plainly: LSFA on M3DM's pipeline from a prepared frame to its scores (lsfa 2, 3, 7).

No reduction of lsfa 10.2 is taken here: RGB tokens are repeated to the patch grid, attention and nearest-neighbour
search run over all patches, point features are interpolated to every pixel on a full canvas and pooled, the concat
layer of the mini-PointNet is written out, distances are torch.cdist and a minimum. It is written to be read and to be
fair: everything is a dense torch operation on whole arrays, nothing loops but farthest point sampling.

It is the oracle for the runtime's numbers, and the rival in benchmarks. Where lsfa 11 departs from the
release, this follows lsfa 11, so that both sides compute the same function: empty patches carry no score, and each
modality has its own standardising scalars. A bank that knows what is usual at its rows gives local distances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from asperity.calibration.networks.point_mae import PointEncoder
from asperity.runtime.frame import BoolArray, FloatArray, Prepared
from asperity.runtime.manifest import Decision, Network
from asperity.runtime.vision.distances import USUAL
from asperity.runtime.vision.points import FILLED_MIN

MAP_PX = 224
BLUR_RADIUS_PX = 4
INTERPOLATION_EPS_MM2 = 1e-2
"""1e-8 m^2."""


@dataclass(frozen=True, slots=True)
class PublishedBank:
    """One modality's memory: standardised ``rows`` (N, C), and the scalars that standardise a feature."""

    rows: Tensor
    feature_mean: float
    feature_std: float
    usual: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation (N,) of normal patches' distances to each row: local distances, this project's own
    (docs/decisions/local-distances.md). None: as published."""
    projection: Tensor | None = None
    """Features are multiplied by it (C, D): whitening, this project's own (docs/decisions/fusion.md)."""


@dataclass(frozen=True, slots=True)
class PublishedTokens:
    """Features of one frame on the whole patch grid."""

    rgb: Tensor  # grid^2 x C, each backbone token repeated for its patches
    points: Tensor  # grid^2 x Cp, zero rows where empty
    nonempty: Tensor  # grid^2 bool


@dataclass(frozen=True, slots=True)
class PublishedScores:
    """Patch distances (grid^2,) of every patch, and the re-weighted image distances."""

    rgb_distances: Tensor
    points_distances: Tensor
    rgb_image_distance: float
    points_image_distance: float
    scored: BoolArray  # grid x grid


class PublishedPipeline:
    """The published pipeline with given networks and banks, in float32, on the CPU or the modules' device."""

    def __init__(
        self,
        network: Network,
        modules: Mapping[str, nn.Module],
        rgb_bank: PublishedBank,
        points_bank: PublishedBank,
        *,
        distance_dtype: torch.dtype = torch.float32,
    ) -> None:
        """``modules``: ``rgb`` (1, 3, I, I) -> (1, rgb_grid^2, C), ``points`` a PointEncoder, and where the network has
        adaptors ``adaptor_rgb`` and ``adaptor_points`` (1, S, C) -> the same shape.

        ``distance_dtype``: float32 as published. Its matrix-product form loses digits of small distances between large
        features, so an oracle asks for float64.
        """
        self.network, self.modules, self.distance_dtype = network, modules, distance_dtype
        self.rgb_bank, self.points_bank = rgb_bank, points_bank
        self.device = next(modules["rgb"].parameters()).device

    @torch.no_grad()
    def score(self, prepared: Prepared) -> PublishedScores:
        """Prepared frame to distances (lsfa 7.2, 7.3)."""
        return self.score_tokens(self.adapted(self.frozen(prepared)), prepared)

    @torch.no_grad()
    def score_tokens(self, tokens: PublishedTokens, prepared: Prepared) -> PublishedScores:
        """The same from tokens on."""
        scored = tokens.nonempty & torch.from_numpy(prepared.inspect.reshape(-1)).to(self.device)
        rgb, rgb_image = self._against(tokens.rgb, scored, self.rgb_bank)
        points, points_image = self._against(tokens.points, scored, self.points_bank)
        grid = self.network.grid
        return PublishedScores(rgb, points, rgb_image, points_image, scored.reshape(grid, grid).cpu().numpy())

    @torch.no_grad()
    def frozen(self, prepared: Prepared) -> PublishedTokens:
        """Tokens of both backbones on the patch grid (lsfa 2)."""
        points, nonempty = self.point_tokens(prepared.cloud)
        return PublishedTokens(self.rgb_tokens(prepared.image), points, nonempty)

    def rgb_tokens(self, image: NDArray[np.uint8]) -> Tensor:
        """(grid^2, C): the backbone's map, adaptively pooled to the grid, which repeats each token (lsfa 2.1)."""
        network = self.network
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (network.rgb_mean, network.rgb_std))
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1).float() / 255.0
        tokens = self.modules["rgb"](((pixels - mean) / std)[None])[0]
        feature_map = tokens.T.reshape(1, -1, network.rgb_grid, network.rgb_grid)
        pooled = F.adaptive_avg_pool2d(feature_map, (network.grid, network.grid))
        return pooled.reshape(-1, network.grid**2).T.contiguous()

    def point_tokens(self, cloud: FloatArray) -> tuple[Tensor, Tensor]:
        """(grid^2, Cp) and which patches are non-empty (lsfa 2.2, 2.3). Geometry in float64, features in float32."""
        points, pixels, centres, features = self.encoded(cloud)
        return self.pooled(interpolated(points, centres, features), pixels)

    @torch.no_grad()
    def encoded(self, cloud: FloatArray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The cloud's points (N, 3), their pixels, the groups' centres (G, 3) and tokens (G, Cp) (lsfa 2.2)."""
        network = self.network
        flat = torch.from_numpy(cloud.reshape(-1, 3)).to(self.device).double()
        pixels = (flat != 0).any(1).nonzero()[:, 0]
        points = flat[pixels]
        centres = points[farthest_points(points, network.groups)]
        nearest = torch.cdist(centres, points).topk(network.group_size, largest=False).indices
        groups = (points[nearest] - centres[:, None]) / network.group_scale_mm
        origin = points.mean(0) if network.centre_positions else torch.zeros(3, device=self.device)
        positions = (centres - origin) / network.position_scale_mm
        features = encode(self.modules["points"], groups.float()[None], positions.float()[None])[0]
        return points, pixels, centres, features

    def pooled(self, point_features: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Scatter (N, Cp) features to a full canvas and pool it to (grid^2, Cp) (lsfa 2.3)."""
        network = self.network
        side, grid = network.cloud_px, network.grid
        canvas = torch.zeros((point_features.shape[1], side * side), device=self.device)
        canvas[:, pixels] = point_features.T
        canvas = canvas.reshape(1, -1, side, side)
        if network.pooling == "published":
            pooled = F.adaptive_avg_pool2d(F.avg_pool2d(canvas, 3, stride=1), (grid, grid))
        else:  # the mean over each patch's own points, where enough of its cells hold one
            valid = torch.zeros(side * side, device=self.device)
            valid[pixels] = 1.0
            share = F.adaptive_avg_pool2d(valid.reshape(1, 1, side, side), (grid, grid))
            pooled = F.adaptive_avg_pool2d(canvas, (grid, grid)) / share.clamp_min(1e-9) * (share >= FILLED_MIN)
        patches = pooled.reshape(-1, grid * grid).T.contiguous()
        return patches, (patches != 0).any(1)

    @torch.no_grad()
    def adapted(self, tokens: PublishedTokens) -> PublishedTokens:
        """Both adaptors over all patches of the grid, empty and repeated ones too (lsfa 3)."""
        if self.network.adaptor == "none":
            return tokens
        rgb = self.modules["adaptor_rgb"](tokens.rgb[None])[0]
        points = self.modules["adaptor_points"](tokens.points[None])[0]
        return PublishedTokens(rgb, points, tokens.nonempty)

    def nearest(self, queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the nearest row and its index, for each query."""
        distances, index = torch.cdist(queries, rows).min(1)
        return distances, index

    def _against(self, features: Tensor, scored: Tensor, bank: PublishedBank) -> tuple[Tensor, float]:
        queries = ((features - bank.feature_mean) / bank.feature_std).to(self.distance_dtype)
        if bank.projection is not None:
            queries = queries @ bank.projection.to(self.distance_dtype)
        rows = bank.rows.to(self.distance_dtype)
        distances, nearest = self.nearest(queries, rows)
        if bank.usual is not None:
            mean, std = (of_row.to(self.distance_dtype)[nearest] for of_row in bank.usual)
            distances = (USUAL + (distances - mean) / std).clamp_min(0.0)
            kept = torch.where(scored, distances, 0.0)
            return distances, float(pixel_map(kept, self.network.grid, quantised=False).max())
        if not scored.any():
            return distances, 0.0
        worst = int(torch.where(scored, distances, -1.0).argmax())
        return distances, image_distance(queries[worst], rows, float(distances[worst]), int(nearest[worst]))


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Farthest point sampling from index 0, each step vectorised over the points (lsfa 2.2 item 1)."""
    axes = points.T.contiguous()  # torch sums three long rows many times faster than many rows of three
    nearest = torch.full((len(points),), float("inf"), dtype=points.dtype, device=points.device)
    chosen = torch.zeros(count, dtype=torch.int64, device=points.device)
    for step in range(1, count):
        last = chosen[step - 1]
        difference = axes - axes[:, last, None]
        nearest = torch.minimum(nearest, (difference * difference).sum(0))
        chosen[step] = nearest.argmax()
    return chosen


def encode(encoder: nn.Module, groups: Tensor, centres: Tensor) -> Tensor:
    """The point encoder with the mini-PointNet's concatenation written out: (B, G, K, 3) -> (B, G, Cp)."""
    if not isinstance(encoder, PointEncoder):
        return torch.as_tensor(encoder(groups, centres))
    x = encoder.encoder.forward_plain(groups)
    return torch.cat([encoder.norm(tap) for tap in encoder.hidden(x, centres)], dim=-1)


def interpolated(points: Tensor, centres: Tensor, features: Tensor) -> Tensor:
    """Features of the 3 nearest centres at every point, by inverse squared distance (lsfa 2.3).

    The release sorts all centres for every point; the three smallest are the same, and a rival is not to be slowed.
    """
    squared, order = torch.cdist(points, centres).square().topk(3, largest=False)
    weights = 1.0 / (squared[:, :3] + INTERPOLATION_EPS_MM2)
    weights = (weights / weights.sum(1, keepdim=True)).float()
    return (features[order[:, :3]] * weights[:, :, None]).sum(1)


def image_distance(worst: Tensor, rows: Tensor, distance: float, nearest: int) -> float:
    """s = w s* with w over the two rows nearest to m* (lsfa 7.3)."""
    around = torch.cdist(rows[nearest][None], rows)[0].topk(3, largest=False).indices[1:]
    neighbours = torch.cdist(worst[None], rows[around])[0].double()
    scale = worst.shape[0] ** 0.5
    weight = 1.0 - np.exp(distance / scale) / float(torch.exp(neighbours / scale).sum())
    return float(weight * distance)


def pixel_map(distances: Tensor, grid: int, *, quantised: bool = True) -> FloatArray:
    """Patch distances (grid^2,) to a 224 x 224 map: bilinear, then blurred (lsfa 7.4).

    ``quantised``: through 8 bits and Pillow's approximation of the Gaussian, as published; else the exact Gaussian.
    """
    patch_map = distances.float().reshape(1, 1, grid, grid)
    pixels: FloatArray = F.interpolate(patch_map, (MAP_PX, MAP_PX), mode="bilinear")[0, 0].cpu().numpy()
    if not quantised:
        return np.asarray(ndimage.gaussian_filter(pixels, BLUR_RADIUS_PX, mode="nearest"), dtype=np.float32)
    largest = float(pixels.max())
    if largest <= 0:
        return pixels
    image = Image.fromarray((pixels / largest * 255.0).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(radius=BLUR_RADIUS_PX))
    return np.asarray(blurred, dtype=np.float32) / 255.0 * largest


def fused_map(scores: PublishedScores, decision: Decision, *, quantised: bool = True) -> FloatArray:
    """224 x 224: each modality's pixel map, standardised, weighted, summed; patches not scored count as distance 0."""
    grid = scores.scored.shape[0]
    scored = torch.from_numpy(scores.scored.reshape(-1))
    fused = np.zeros((MAP_PX, MAP_PX))
    constants = decision.modalities()
    for distances, modality in (
        (scores.rgb_distances, constants["rgb"]), (scores.points_distances, constants["points"])
    ):  # fmt: skip
        kept = torch.where(scored, distances.cpu(), 0.0)
        pixels = pixel_map(kept, grid, quantised=quantised)
        fused += modality.weight * (pixels - modality.patch_mean) / modality.patch_std
    return fused.astype(np.float32)


def fused_score(scores: PublishedScores, decision: Decision) -> float:
    """Weighted sum of both standardised image distances (lsfa 7.5)."""
    constants = decision.modalities()
    return sum(
        modality.weight * (distance - modality.image_mean) / modality.image_std
        for distance, modality in (
            (scores.rgb_image_distance, constants["rgb"]),
            (scores.points_image_distance, constants["points"]),
        )
    )
