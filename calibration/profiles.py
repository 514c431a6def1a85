"""The profiles as data (architecture, "Profiles"): which networks, how many patches, how large the banks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from asperity.runtime.errors import UsageError
from asperity.runtime.frame import ModalityName
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.tiles import MOST_TILES

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE_MEAN = (127 / 255, 127 / 255, 127 / 255)
LITE_STD = (128 / 255, 128 / 255, 128 / 255)
"""EfficientNet-Lite was trained on (pixel - 127) / 128."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Constants of a profile. Pixels are those of the window after resizing."""

    name: str
    rgb_backbone: Literal["efficientnet_lite0", "dinov2_vits14", "dino_vitb8"]
    rgb_taps: tuple[int, ...]
    """Blocks of the backbone, ascending, whose features feed the bank (docs/decisions/backbone-layers.md)."""
    rgb_norm: bool
    """Whether they pass the backbone's final LayerNorm; EfficientNet has none."""
    image_px: int
    grid: int
    rgb_grid: int
    rgb_channels: int
    rgb_heads: int
    rgb_inner: int
    """Width of the RGB adaptor's attention (heads x head width)."""
    rgb_mean: tuple[float, float, float]
    rgb_std: tuple[float, float, float]
    """What the backbone was trained with; of images in 0..1."""
    points_encoder: Literal["points_lite", "point_mae"]
    cloud_px: int
    cloud_resize: Literal["nearest", "mean"]
    groups: int
    group_size: int
    points_channels: int
    points_heads: int
    points_inner: int
    point_bn: Literal["batch", "running", "station"]
    pooling: Literal["published", "valid_mean"]
    centre_positions: bool
    distances: Literal["published", "local"]
    fusion: Literal["average", "squares"]
    """How the modalities' scores become one, where nobody chooses (docs/decisions/fusion.md)."""
    whitening: float | None
    """Shrinkage of the whitening that features pass before they are compared; None: none (docs/decisions/fusion.md)."""
    metres: bool
    """True: raw metres as published. False: lengths relative to the spacing of the cloud's cells."""
    rgb_bank_share: float
    points_bank_share: float
    """Share of the fit frames' rows kept: of rgb_grid^2 x n and grid^2 x n (lsfa 11 row 15)."""
    rgb_bank_cap: int
    points_bank_cap: int
    mlp_ratio: int = 4
    modalities: tuple[ModalityName, ...] = ("rgb", "points")
    """What frames are judged by unless a calibration is asked for others."""
    tiles: int = 1
    """Colour network inputs along the window's side; all sizes are of one of them."""


PROFILES: dict[str, Profile] = {
    "lite": Profile(
        name="lite", rgb_backbone="efficientnet_lite0", rgb_taps=(2, 4), rgb_norm=False, image_px=224,
        grid=28, rgb_grid=28, rgb_channels=64, rgb_heads=4, rgb_inner=64, rgb_mean=LITE_MEAN, rgb_std=LITE_STD,
        points_encoder="points_lite", cloud_px=112, cloud_resize="mean", groups=256,
        group_size=32, points_channels=384, points_heads=6, points_inner=384, point_bn="running", pooling="valid_mean",
        centre_positions=True, distances="local", fusion="squares", whitening=0.1, metres=False,
        rgb_bank_share=0.1, points_bank_share=0.1, rgb_bank_cap=8192, points_bank_cap=4096,
        modalities=("rgb", "points", "geometry"),
    ),
    "edge": Profile(
        name="edge", rgb_backbone="dinov2_vits14", rgb_taps=(3,), rgb_norm=False, image_px=392, grid=28, rgb_grid=28,
        rgb_channels=384, rgb_heads=6, rgb_inner=384, rgb_mean=IMAGENET_MEAN, rgb_std=IMAGENET_STD,
        points_encoder="points_lite", cloud_px=112, cloud_resize="mean", groups=512,
        group_size=32, points_channels=384, points_heads=6, points_inner=384, point_bn="running", pooling="valid_mean",
        centre_positions=True, distances="local", fusion="squares", whitening=0.1, metres=False,
        rgb_bank_share=0.1, points_bank_share=0.1, rgb_bank_cap=16384, points_bank_cap=16384,
    ),
    "paper": Profile(
        name="paper", rgb_backbone="dino_vitb8", rgb_taps=(11,), rgb_norm=True, image_px=224, grid=56, rgb_grid=28,
        rgb_channels=768, rgb_heads=12, rgb_inner=768, rgb_mean=IMAGENET_MEAN, rgb_std=IMAGENET_STD,
        points_encoder="point_mae", cloud_px=224, cloud_resize="nearest", groups=1024,
        group_size=128, points_channels=1152, points_heads=12, points_inner=1152, point_bn="station",
        pooling="published", centre_positions=False, distances="published", fusion="average", whitening=None,
        metres=True, rgb_bank_share=0.1, points_bank_share=0.1, rgb_bank_cap=200_000, points_bank_cap=200_000,
    ),
}  # fmt: skip

PROFILES["fast"] = replace(PROFILES["lite"], name="fast", modalities=("rgb", "geometry", "descriptor"))
"""``lite`` without point encoder, sampling and grouping (docs/decisions/geometry-modality.md)."""

BEFORE_TAPS: dict[str, dict[str, Any]] = {
    "efficientnet_lite0": {"rgb_taps": (4, 10), "rgb_norm": False, "rgb_heads": 4, "rgb_inner": 160},
    "dinov2_vits14": {"rgb_taps": (11,), "rgb_norm": True, "rgb_heads": 6, "rgb_inner": 384},
    "dino_vitb8": {"rgb_taps": (11,), "rgb_norm": True},
}
"""Backbone -> its part of the profile in calibration folders that do not name the blocks."""


def profile(name: str) -> Profile:
    """The profile of that name. Raises UsageError naming the known ones."""
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(f"--profile {name!r} is not known; choose one of {', '.join(PROFILES)}") from None


def tiled(chosen: Profile, tiles: int) -> Profile:
    """The profile with so many network inputs along the window's side. Raises UsageError."""
    if not 1 <= tiles <= MOST_TILES:
        raise UsageError(f"--tiles {tiles} must be 1 to {MOST_TILES}")
    if tiles > 1 and chosen.pooling == "published":
        raise UsageError(f"--tiles {tiles}: profile {chosen.name} is the published form, which has one; choose another")
    return replace(chosen, tiles=tiles)


def profile_as_calibrated(network: Network, taps: tuple[int, ...] | None, norm: bool) -> Profile:
    """The profile that a calibration folder was made with, whatever its profile taps today. Raises UsageError."""
    found = profile(network.profile)
    then = BEFORE_TAPS[found.rgb_backbone] if taps is None else {"rgb_taps": taps, "rgb_norm": norm}
    return replace(found, rgb_channels=network.rgb_channels, **then)


def network_for(
    chosen: Profile, geometry: Geometry, adaptor: Literal["none", "lsfa"], points_slots: int = 0
) -> Network:
    """The manifest's network constants for a profile on one station.

    Own encoders see lengths in units of the cloud's cell size, so that one encoder serves parts of 10 mm and 300 mm:
    a group of 32 spans about 3 cells each way (divided by 4), the whole cloud 112 cells (divided by half of it).
    """
    cell_mm = geometry.side_px * geometry.mm_per_px / chosen.cloud_px
    return Network(
        profile=chosen.name, image_px=chosen.image_px, grid=chosen.grid, rgb_grid=chosen.rgb_grid,
        rgb_channels=chosen.rgb_channels, rgb_mean=chosen.rgb_mean, rgb_std=chosen.rgb_std, cloud_px=chosen.cloud_px,
        cloud_resize=chosen.cloud_resize, groups=chosen.groups, group_size=chosen.group_size,
        points_channels=chosen.points_channels, group_scale_mm=1000.0 if chosen.metres else 4.0 * cell_mm,
        position_scale_mm=1000.0 if chosen.metres else 0.5 * chosen.cloud_px * cell_mm,
        centre_positions=chosen.centre_positions, pooling=chosen.pooling, adaptor=adaptor,
        distances=chosen.distances,
        rgb_slots=chosen.rgb_grid**2 if adaptor == "lsfa" else 0, points_slots=points_slots if adaptor == "lsfa" else 0,
        tiles=chosen.tiles,
    )  # fmt: skip
