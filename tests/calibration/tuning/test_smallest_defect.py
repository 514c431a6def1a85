"""The smallest defect that a station sees: the search for it, and what it says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from asperity.calibration.tuning.smallest_defect import KINDS, RESOLUTION, bisected, quantile, smallest_defects
from asperity.runtime.errors import FrameRefused
from asperity.runtime.frame import Frame
from asperity.runtime.manifest import Geometry
from asperity.runtime.reasons import Reason

SIDE_PX = 96
GEOMETRY = Geometry(
    method="none", why="", unit="mm", height_px=SIDE_PX, width_px=SIDE_PX, plane=None, plane_cut_mm=0.0,
    point_spacing_mm=0.5, plane_noise_mm=0.0, cluster_gap_px=2, side_px=SIDE_PX, mm_per_px=0.5, min_points=64,
    moved_share=1.0, moved_mm=0.0,
)  # fmt: skip
HEIGHT_MM = 0.25


def flat(seq: int) -> Frame:
    rows, columns = np.indices((SIDE_PX, SIDE_PX), dtype=np.float32)
    xyz = np.stack([0.5 * (columns - 48), 0.5 * (rows - 48), np.full_like(rows, 400.0)], axis=-1)
    return Frame("test", "", seq, np.full((SIDE_PX, SIDE_PX, 3), 120, np.uint8), xyz=xyz, unit="mm")


def rejects(frame: Frame) -> bool:
    """A station that sees heights from HEIGHT_MM on, and no colour."""
    assert frame.xyz is not None
    return bool(np.abs(np.linalg.norm(frame.xyz - flat(0).xyz, axis=2)).max() >= HEIGHT_MM)


def no_progress(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("size", [0.21, 1.0, 7.3])
def test_the_search_ends_within_its_resolution(size: float) -> None:
    assert bisected(lambda tried: tried >= size, 0.2, 20.0) == pytest.approx(size, rel=math.sqrt(RESOLUTION) - 1 + 1e-6)


def test_the_search_knows_its_ends() -> None:
    assert bisected(lambda tried: True, 0.2, 20.0) == pytest.approx(0.2, rel=0.1)
    assert bisected(lambda tried: False, 0.2, 20.0) == math.inf


def test_a_quantile_that_too_many_places_miss_is_not_stated() -> None:
    sizes = [1.0, 2.0, 3.0, math.inf]
    assert quantile(sizes, 0.5) == 2.0 and quantile(sizes, 0.95) is None
    assert quantile([*range(1, 21)], 0.95) == 19


def test_a_station_that_sees_heights_is_told_the_sizes_that_have_them() -> None:
    found = {one.kind: one for one in smallest_defects([flat(0), flat(1)], GEOMETRY, rejects, 0, no_progress, None, 6)}
    assert set(found) == set(KINDS)
    for kind, share in (("bump", 0.1), ("dent", 0.1), ("scratch", 0.035)):
        one = found[kind]
        assert one.half_mm == pytest.approx(HEIGHT_MM / share, rel=0.25), kind
        assert one.half_strength == pytest.approx(HEIGHT_MM, rel=0.25)
        assert one.often_mm is not None and one.often_mm >= one.half_mm
    assert found["stain"].half_mm is None and found["stain"].sizes_mm == ()
    assert found["stain"].largest_mm == pytest.approx(0.2 * 48)


def test_a_killed_measurement_resumes_and_says_the_same(tmp_path: Path) -> None:
    whole = smallest_defects([flat(0), flat(1)], GEOMETRY, rejects, 0, no_progress, None, 4)
    kept, seen = tmp_path / "kept.json", []

    def killed(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smallest_defects([flat(0), flat(1)], GEOMETRY, rejects, 0, killed, kept, 4)
    again = smallest_defects([flat(0), flat(1)], GEOMETRY, rejects, 0, lambda done, _: seen.append(done), kept, 4)
    assert again == whole and seen == [3, 4]


def test_a_refused_frame_is_not_passed_and_so_is_found() -> None:
    def refuses(frame: Frame) -> bool:
        raise FrameRefused(Reason.TOO_FEW_POINTS, "none")

    found = smallest_defects([flat(0)], GEOMETRY, refuses, 0, no_progress, None, 1)
    assert all(one.sizes_mm and one.sizes_mm[0] == pytest.approx(0.75, rel=0.1) for one in found)


def test_without_frames_nothing_is_said() -> None:
    assert smallest_defects([], GEOMETRY, rejects, 0, no_progress) == ()
