"""The virtual station's geometry: the camera's position, the pose of a part under it, and what its rays hit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.virtual.open3d_scene import Scene
from asperity.runtime.cameras.virtual.part import Part, sample, triangles, vertices
from asperity.runtime.frame import BoolArray, FloatArray, Intrinsics

DISTANCE_MM = 400.0
TILT_DEG = 5.0
BASELINE_MM = 110.0
FIELD_MM = 108.0
"""What the shorter side of the picture covers on the plane."""
TURN_DEG = 10.0
SHIFT_MM = 3.0
"""A part lies turned and shifted by at most this."""
CHANGED_MM = 0.005
"""Grid points moved by more than this belong to a geometry defect."""
CHANGED_ALBEDO = 0.02
"""Pixels whose albedo changed by more than this (of 1) belong to a colour defect."""
CLEAR = 0.0008
"""A ray towards the projector ignores this first share of its way (0.3 mm), where it leaves its own surface."""

_TILT = math.radians(TILT_DEG)
CAMERA_MM = DISTANCE_MM * np.array([0.0, -math.sin(_TILT), math.cos(_TILT)])
"""The camera in station coordinates: x right, y away, z up, the background plane at z = 0."""
AXES = np.array([[1.0, 0.0, 0.0], [0.0, -math.cos(_TILT), -math.sin(_TILT)], [0.0, math.sin(_TILT), -math.cos(_TILT)]])
"""Rows: the camera's x (right), y (down) and z (ahead) axes in station coordinates."""
PROJECTOR_MM = CAMERA_MM + BASELINE_MM * AXES[0]


@dataclass(frozen=True, slots=True)
class Pose:
    """How a part lies: station = turn @ part + shift."""

    turn: FloatArray  # 3 x 3
    shift_mm: FloatArray  # (3,)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Pose:
        """A random turn and shift on the plane, as a simple fixture leaves them."""
        angle = math.radians(rng.uniform(-TURN_DEG, TURN_DEG))
        sine, cosine = math.sin(angle), math.cos(angle)
        turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], np.float32)
        return cls(turn, np.array([*rng.uniform(-SHIFT_MM, SHIFT_MM, 2), 0], np.float32))

    def into_part(self, point_mm: FloatArray) -> FloatArray:
        """Station coordinates (..., 3) as the part's own."""
        return self.direction(point_mm - self.shift_mm)

    def direction(self, station: FloatArray) -> FloatArray:
        """A direction of the station (..., 3) as the part's own."""
        return np.asarray(station @ self.turn, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Hits:
    """What the pixels' rays hit, in the part's coordinates. Arrays are H x W (x 3)."""

    scene: Scene
    rays: FloatArray  # H x W x 6
    depth_mm: FloatArray  # along the camera's axis
    faces: NDArray[np.uint32]  # the scene's triangles, (T, 3)
    face: NDArray[np.uint32]  # which of them was met; only where on_part
    on_part: BoolArray
    points_mm: FloatArray
    cos_incidence: FloatArray  # of the facet met; 0: grazing


def pixel_rays(lens: Intrinsics, rows: int, columns: int) -> FloatArray:
    """Directions of the pixels' rays in camera coordinates with z = 1: rows x columns x 3."""
    u, v = np.meshgrid(np.arange(columns), np.arange(rows))
    return np.stack([(u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, np.ones(u.shape)], -1).astype(np.float32)


def look(part: Part, pose: Pose, directions: FloatArray) -> Hits:
    """First hits of the pixels' rays (``directions``: H x W x 3, camera coordinates, z = 1) with part and plane."""
    rays = np.empty((*directions.shape[:2], 6), np.float32)
    rays[..., :3] = pose.into_part(CAMERA_MM.astype(np.float32))
    rays[..., 3:] = pose.direction(directions @ AXES.astype(np.float32))
    faces = triangles(part.height_mm)
    scene = Scene(vertices(part.height_mm), faces)
    depth, face, facet = scene.cast(rays)
    plane = -rays[..., 2] / rays[..., 5]
    on_part = depth < plane
    depth = np.where(on_part, depth, plane)
    upright = np.where(on_part[..., None], facet, np.array([0, 0, 1], np.float32))
    cosine = np.abs(np.einsum("...i,...i", unit_length(rays[..., 3:]), unit_length(upright)))
    points = rays[..., :3] + rays[..., 3:] * depth[..., None]
    return Hits(scene, rays, depth, faces, face, on_part, points, cosine)


def unit_length(vectors: FloatArray) -> FloatArray:
    """Vectors (..., 3) scaled to length 1."""
    return np.asarray(vectors / np.sqrt(np.einsum("...i,...i", vectors, vectors))[..., None], dtype=np.float32)


def lit(hits: Hits, pose: Pose) -> BoolArray:
    """Where the projector's light arrives: H x W."""
    projector = pose.into_part(PROJECTOR_MM.astype(np.float32))
    return ~hits.scene.blocked(np.concatenate([hits.points_mm, projector - hits.points_mm], -1), CLEAR, 1.0)


def differs(good: Part, spoiled: Part, hits: Hits) -> BoolArray:
    """The exact mask: pixels whose ray meets another surface or another albedo than on the good part (H x W).

    ``hits`` are the spoiled part's. The parts share every triangle but the moved ones, so a pixel changed exactly if it
    sees a moved triangle now, or would see one first on the good part.
    """
    moved = np.abs(good.height_mm - spoiled.height_mm).ravel() > CHANGED_MM
    changed = np.zeros(hits.on_part.shape, bool)
    if moved.any():
        faces = triangles(good.height_mm)
        before, _, _ = Scene(vertices(good.height_mm), faces[moved[faces].any(axis=1)]).cast(hits.rays)
        moved_faces = moved[hits.faces].any(axis=1)
        now = hits.on_part & moved_faces[np.where(hits.on_part, hits.face, 0)]
        changed = now | (before < hits.depth_mm - CHANGED_MM)
    if good.albedo is not spoiled.albedo:
        x, y = hits.points_mm[hits.on_part, 0], hits.points_mm[hits.on_part, 1]
        difference = np.abs(sample(spoiled.albedo - good.albedo, x, y)).max(axis=1)
        changed[hits.on_part] |= difference > CHANGED_ALBEDO
    return changed
