"""A station computed with a few formulas: a camera above a tilted table with a flat-topped round part, truth known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asperity.runtime.frame import BoolArray, FloatArray, Frame, Intrinsics
from asperity.runtime.manifest import Geometry, Network, Plane

DISTANCE_MM = 500.0
PART_HEIGHT_MM = 12.0
MM = {"m": 1000.0, "mm": 1.0, "um": 0.001}


@dataclass(frozen=True)
class Shot:
    """A frame and what is true of it."""

    frame: Frame
    part: BoolArray  # H x W: pixels that show the part
    plane: Plane
    intrinsics: Intrinsics


def station_plane(tilt_deg: float = 12.0) -> Plane:
    """The table: its normal leans by the tilt, its middle is DISTANCE_MM from the camera."""
    tilt = np.radians(tilt_deg)
    return Plane((0.0, float(np.sin(tilt)), float(-np.cos(tilt))), float(DISTANCE_MM * np.cos(tilt)))


def shoot(
    seed: int = 0,
    *,
    height_px: int = 120,
    width_px: int = 160,
    unit: str = "m",
    named_unit: str | None = None,
    radius_mm: float = 30.0,
    centre_mm: tuple[float, float] = (0.0, 0.0),
    noise_mm: float = 0.05,
    missing: float = 0.01,
    field_mm: float = 120.0,
    moved_mm: float = 0.0,
    background: bool = True,
) -> Shot:
    """One exposure. ``moved_mm``: table and part are that much farther away than ``station_plane`` says."""
    random = np.random.default_rng(seed)
    plane = station_plane()
    plane = Plane(plane.normal, plane.offset_mm + moved_mm)
    focal = DISTANCE_MM * min(height_px, width_px) / field_mm
    intrinsics = Intrinsics(focal, focal, (width_px - 1) / 2, (height_px - 1) / 2)
    x = (np.arange(width_px) - intrinsics.cx) / focal
    y = (np.arange(height_px) - intrinsics.cy) / focal
    rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), axis=2)
    facing = rays @ np.asarray(plane.normal)
    table = -plane.offset_mm / facing
    top = -(plane.offset_mm - PART_HEIGHT_MM) / facing
    on_top = rays * top[..., None]
    part = np.hypot(on_top[..., 0] - centre_mm[0], on_top[..., 1] - centre_mm[1]) < radius_mm
    depth = np.where(part, top, table) + random.normal(0, noise_mm, part.shape)
    depth[random.random(part.shape) < missing] = 0.0
    if not background:
        depth[~part] = 0.0
    rgb = np.where(part[..., None], (180, 120, 60), (30, 32, 34)) + random.integers(-5, 6, (*part.shape, 3))
    frame = Frame(
        camera="synthetic",
        camera_session="s",
        seq=seed,
        rgb=rgb.astype(np.uint8),
        xyz=(rays * depth[..., None] / MM[unit]).astype(np.float32),
        unit=named_unit,  # type: ignore[arg-type]
        part_id=f"part{seed}",
    )
    return Shot(frame, part, plane, intrinsics)


def plane_geometry(shot: Shot, **changes: object) -> Geometry:
    """A geometry by the plane method that fits the shot."""
    height_px, width_px = shot.frame.shape_px
    values: dict[str, object] = {
        "method": "plane", "why": "made for a test", "unit": "m", "height_px": height_px, "width_px": width_px,
        "plane": station_plane(), "plane_cut_mm": 1.0, "point_spacing_mm": 1.0, "plane_noise_mm": 0.05,
        "cluster_gap_px": 3, "side_px": 96, "mm_per_px": 1.0, "min_points": 100, "moved_share": 0.3, "moved_mm": 1.0,
    }  # fmt: skip
    return Geometry(**{**values, **changes})  # type: ignore[arg-type]


def small_network(**changes: object) -> Network:
    """Shapes small enough for tests: 7 x 7 patches, 28 x 28 points."""
    values: dict[str, object] = {
        "profile": "lite", "image_px": 56, "grid": 7, "rgb_grid": 7, "rgb_channels": 5, "rgb_mean": (0.5, 0.5, 0.5),
        "rgb_std": (0.25, 0.25, 0.25), "cloud_px": 28, "cloud_resize": "mean", "groups": 16, "group_size": 8,
        "points_channels": 6, "group_scale_mm": 10.0, "position_scale_mm": 50.0, "centre_positions": True,
        "pooling": "valid_mean", "adaptor": "none",
    }  # fmt: skip
    return Network(**{**values, **changes})  # type: ignore[arg-type]


def heights_of(points: FloatArray, plane: Plane) -> FloatArray:
    """Oracle: signed distances of points from the plane, float64."""
    return points.astype(np.float64) @ np.asarray(plane.normal) + plane.offset_mm  # type: ignore[no-any-return]
