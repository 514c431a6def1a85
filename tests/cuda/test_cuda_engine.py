"""The whole CUDA engine, from Frame to Scores, on the CPU stand-in, against the CPU engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from stand_in import SHOT, Station, shoot, silent, station

from runtime.cuda.build import missing_for_simt
from runtime.cuda.shim.streams import ShimFrameDevice
from runtime.engines.cuda import CudaEngine
from runtime.frame import Scores


@pytest.fixture
def device() -> Iterator[ShimFrameDevice]:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    made = ShimFrameDevice()
    yield made
    made.close()


def agree(found: Scores, expected: Scores) -> None:
    assert np.array_equal(found.scored, expected.scored)
    assert found.window == expected.window
    for name in ("rgb", "points"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(mine.distance_map, theirs.distance_map, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(mine.image_distance, theirs.image_distance, rtol=2e-4, atol=2e-5)
    for figure in ("area_mm2", "length_mm", "width_mm", "height_mm", "missing_share"):
        np.testing.assert_allclose(getattr(found.silhouette, figure), getattr(expected.silhouette, figure), rtol=1e-4)


@pytest.mark.parametrize("kind", ["published", "local", "plain"])
def test_scores_are_the_cpu_engines(device: ShimFrameDevice, kind: str) -> None:
    import time
    made = station(kind)
    t=time.time()
    engine, reference = made.cuda(device), made.cpu()
    print("open", time.time()-t)
    for frame in (SHOT.frame, shoot(3, radius_mm=20.0, centre_mm=(5.0, -3.0)).frame):
        t=time.time()
        heard: list[str] = []
        found, expected = engine.score(frame, heard.append), reference.score(frame, silent)
        print("frame", time.time()-t)
        agree(found, expected)
        assert heard == ["pre", "points", "knn"] and set(found.stage_us) == set(heard)
    print(engine.budget.told())
    engine.close()
