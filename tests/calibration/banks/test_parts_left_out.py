"""A frame of the banks is measured without the rows of its own part, and its nearest normal patch is of another one."""

from __future__ import annotations

import numpy as np

from asperity.calibration.banks.reference import Reference
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.profiles import network_for
from asperity.runtime.frame import Prepared, Silhouette, Window
from tests.calibration.tiny_station import TINY, build_tiny
from tests.synthetic_station import plane_geometry, shoot

FRAMES, CELLS = 12, TINY.grid**2


def reference(parts: list[str] | None) -> Reference:
    """Frame 1 shows frame 0 again, so of the two only rows of frame 0 are chosen; frame 5 holds a patch of frame 0."""
    rng = np.random.default_rng(3)
    rgb = rng.normal(size=(FRAMES, CELLS, TINY.rgb_channels)).astype(np.float32)
    points = rng.normal(size=(FRAMES, CELLS, TINY.points_channels)).astype(np.float32)
    for values in (rgb, points):
        values[0, 10], values[0, 20] = 4.0, -4.0  # strange, so that their copies are in every bank
        values[1] = values[0] + 0.01
        values[5, 33] = values[0, 10] + 0.02
    network = network_for(TINY, plane_geometry(shoot()), "none")
    blank = Prepared(
        np.zeros((TINY.image_px, TINY.image_px, 3), np.uint8), np.zeros((TINY.cloud_px, TINY.cloud_px, 3), np.float32),
        np.ones((TINY.grid, TINY.grid), bool), Window(0, 0, 10), Silhouette(1, 1, 1, 1, 0),
    )  # fmt: skip
    patches = PatchSet({"rgb": rgb, "points": points}, np.ones((FRAMES, TINY.grid, TINY.grid), bool))
    found = Reference(network, build_tiny(TINY), patches, [blank] * FRAMES, parts)
    found.fit_banks(range(FRAMES), TINY, seed=0, projection=False, device="cpu", progress=lambda *_: None)
    return found


def test_the_part_is_left_out_and_not_the_frame_alone() -> None:
    named = ["a", "a", *(f"p{i}" for i in range(2, FRAMES))]
    by_part, by_frame = (reference(parts).distances(1, leave_out=True) for parts in (named, None))
    for name in ("rgb", "points"):
        near = by_frame.modalities[name].distance_map.flat[20]
        far = by_part.modalities[name].distance_map.flat[20]
        assert far > near + 1.0


def test_the_nearest_normal_patch_is_named_by_frame_and_cell() -> None:
    named = ["a", "a", *(f"p{i}" for i in range(2, FRAMES))]
    found = reference(named)
    assert found.nearest_normal(0, "rgb", 10) == (5, 33)
    assert found.nearest_normal(0, "points", 10) == (5, 33)
    assert reference(None).nearest_normal(0, "rgb", 10) in ((1, 10), (5, 33))
