"""A simulated structured-light camera (ray casting): colour and 3D of virtual parts, with their ground truth.

The station is fixed: a camera 400 mm above a dark background plane, tilted by 5 degrees, and a projector 110 mm beside
it. A frame is a function of (product, seed, size, index, defect) alone; the same index with another defect is its twin:
same part, pose, light and noise.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asperity.runtime.cameras.virtual.defects import DEFECTS, WRONG_PART, Amount, Defect, spoil
from asperity.runtime.cameras.virtual.part import Part, normals, sample
from asperity.runtime.cameras.virtual.products import ALL_PRODUCTS, make_part
from asperity.runtime.cameras.virtual.sensor import Light, Sensor, expose, measure_depth, shade
from asperity.runtime.cameras.virtual.view import (
    DISTANCE_MM,
    FIELD_MM,
    Hits,
    Pose,
    differs,
    lit,
    look,
    pixel_rays,
    unit_length,
)
from asperity.runtime.errors import UsageError
from asperity.runtime.frame import MM_PER_UNIT, BoolArray, FloatArray, Frame, Intrinsics, Unit

SIDE_PX = (32, 4096)
MOST_OF_USUAL = 20.0
GOOD = "good"
PARTS_PER_SEED = 1_000_000
"""Part numbers of different seeds do not meet."""


@dataclass(frozen=True, slots=True)
class VirtualShot:
    """A frame and the truth about it."""

    frame: Frame
    mask: BoolArray  # H x W: pixels that show the defect; all False on a good part
    part_mask: BoolArray  # H x W: pixels that show the part
    defect: Defect | None
    incidence_cos: FloatArray  # H x W: cosine of the angle under which the surface was seen

    @property
    def kind(self) -> str:
        """The defect's name, ``good`` without one: the folder of the MVTec 3D-AD layout."""
        return self.defect.kind if self.defect else GOOD


class VirtualCamera:
    """Renders frames of one product. Needs open3d, which is imported with the first frame."""

    def __init__(
        self,
        product: str,
        seed: int = 0,
        size_px: int | tuple[int, int] = 256,
        *,
        unit: Unit = "m",
        sensor: Sensor | None = None,
        name: str = "virtual",
        severity: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        """``size_px``: side of a square picture, or (rows, columns). ``unit`` of the points, ``name`` of the camera.

        ``severity``: strength of surface defects, ``scale``: their lengths, as multiples of the usual.

        Raises UsageError for an argument that cannot be right.
        """
        rows, columns = (size_px, size_px) if isinstance(size_px, int) else size_px
        if product not in ALL_PRODUCTS:
            raise UsageError(f"the product {product!r} is not known; choose one of {', '.join(ALL_PRODUCTS)}")
        if seed < 0:
            raise UsageError(f"the seed is {seed}; it must be 0 or more")
        if not all(SIDE_PX[0] <= side <= SIDE_PX[1] for side in (rows, columns)):
            raise UsageError(f"the picture is {rows} x {columns} px; each side must be {SIDE_PX[0]} to {SIDE_PX[1]} px")
        if unit not in MM_PER_UNIT:
            raise UsageError(f"the unit {unit!r} is not known; choose one of {', '.join(MM_PER_UNIT)}")
        if not 0 <= severity <= MOST_OF_USUAL:
            raise UsageError(f"the severity is {severity}; it must be 0 to {MOST_OF_USUAL:g} (1 is the usual strength)")
        self.product, self.seed, self.unit, self.name = product, seed, unit, name
        if not 0 < scale <= MOST_OF_USUAL:
            raise UsageError(f"the scale is {scale}; it must be above 0 and at most {MOST_OF_USUAL:g} (1 is the usual)")
        self.severity, self.scale = severity, scale
        self.sensor = sensor or Sensor()
        self.size_px = (rows, columns)
        focal = DISTANCE_MM * min(rows, columns) / FIELD_MM
        self.intrinsics = Intrinsics(focal, focal, (columns - 1) / 2, (rows - 1) / 2)

    def frame(
        self, index: int, defect: str | None = None, part: int | None = None, size_mm: float | None = None
    ) -> VirtualShot:
        """The frame of that index; ``defect`` one of ``DEFECTS``; ``part``: which physical part (default: one a frame).

        ``size_mm``: the defect's largest extent, its strength in proportion (``defects.Amount``); None: as drawn.

        Raises UsageError for a negative index or an unknown defect, CameraError where open3d does not load.
        """
        number = index if part is None else part
        if index < 0 or not 0 <= number < PARTS_PER_SEED:
            raise UsageError(f"frame {index} of part {number}: both count from 0, parts to {PARTS_PER_SEED - 1}")
        if defect is not None and defect not in DEFECTS:
            raise UsageError(f"the defect {defect!r} is not known; choose from {', '.join(DEFECTS)}")
        good = make_part(self.product, self._rng("part", number), wrong=defect == WRONG_PART)
        spoiled, truth = good, None
        if defect == WRONG_PART:
            truth = Defect(WRONG_PART, 0.0, 0.0, 0.0, 0.0)
        elif defect is not None:
            amount = Amount(self.severity, self.scale, size_mm)
            spoiled, truth = spoil(defect, good, self._rng(defect, index), amount)
        rng = self._rng("view", index)
        pose, light = self._scene(rng)
        hits = look(spoiled, pose, self._directions)
        depth = measure_depth(self.sensor, hits.depth_mm, hits.cos_incidence, lit(hits, pose), rng)
        frame = Frame(
            camera=self.name,
            camera_session="",
            seq=index,
            rgb=expose(self.sensor, self._colour(spoiled, hits, pose, light), rng),
            xyz=self._directions * (depth / np.float32(MM_PER_UNIT[self.unit]))[..., None],
            unit=self.unit,
            part_id=str(self.seed * PARTS_PER_SEED + number),
            sensor=f"virtual {self.product}",
        )
        mask = hits.on_part if defect == WRONG_PART else differs(good, spoiled, hits)
        return VirtualShot(frame, mask, hits.on_part, truth, hits.cos_incidence)

    def _scene(self, rng: np.random.Generator) -> tuple[Pose, Light]:
        """How the part lies and how it is lit in one frame."""
        return Pose.drawn(rng), _light(rng)

    def _rng(self, purpose: str, number: int) -> np.random.Generator:
        """Parts, views and defects are drawn apart, so that a twin differs in its defect only."""
        words = [zlib.crc32(self.product.encode()), self.seed, zlib.crc32(purpose.encode()), number]
        return np.random.default_rng(words)

    @cached_property
    def _directions(self) -> FloatArray:
        return pixel_rays(self.intrinsics, *self.size_px)

    @cached_property
    def _background(self) -> FloatArray:
        """Colour of the dark mat under the parts, fixed as the station is: H x W x 3."""
        grain = np.random.default_rng(7).normal(0, 0.008, (*self.size_px, 1))
        return np.asarray(np.array([0.105, 0.115, 0.13]) + grain, dtype=np.float32)

    def _colour(self, part: Part, hits: Hits, pose: Pose, light: Light) -> FloatArray:
        """H x W x 3, 0..1, before lens and noise."""
        colour = self._background * light.tint
        seen = hits.points_mm[hits.on_part]
        surface = sample(np.concatenate([part.albedo, normals(part.height_mm)], -1), seen[:, 0], seen[:, 1])
        normal, to_camera = unit_length(surface[:, 3:]), unit_length(-hits.rays[hits.on_part, 3:])
        colour[hits.on_part] = shade(
            light, surface[:, :3], part.gloss, normal, to_camera, pose.direction(light.direction)
        )
        return colour


def _light(rng: np.random.Generator) -> Light:
    """The lamp stands in one quarter of the sky; its brightness and tint drift a little."""
    azimuth, height = math.radians(rng.uniform(100, 170)), math.radians(rng.uniform(50, 70))
    flat = math.cos(height)
    direction = np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(height)], np.float32)
    return Light(direction, (rng.normal(1, 0.03) * rng.normal(1, 0.008, 3)).astype(np.float32))
