"""A bundle scores a part the same, whichever format its frame was recorded in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.samples import read_sample
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.commands.score import judge
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.parity_gate import prove
from asperity.runtime.frame import Frame
from tests.conftest import NORMALS, PRODUCT, SIZE_PX, LiteBundle
from tests.runtime.cameras.files import writers

WITHIN = 1e-3


Score = Callable[[Frame], float]


@pytest.fixture(scope="module")
def score(lite_bundle: LiteBundle) -> Iterator[Score]:
    bundle = open_bundle(lite_bundle.path, lite_bundle.trust)
    engine = CpuEngine.open(bundle, 1)
    decision = prove(bundle, engine)

    def scored(frame: Frame) -> float:
        judgement = judge(frame, engine, decision, bundle.manifest)[0]
        assert judgement.score is not None, judgement.detail
        return judgement.score

    yield scored
    engine.close()


@pytest.fixture(scope="module")
def part() -> tuple[VirtualCamera, Frame]:
    camera = VirtualCamera(PRODUCT, size_px=SIZE_PX)
    return camera, camera.frame(NORMALS + 1, "bump").frame


@pytest.fixture(scope="module")
def expected(score: Score, part: tuple[VirtualCamera, Frame], tmp_path_factory: pytest.TempPathFactory) -> float:
    """By the pair of MVTec 3D-AD."""
    folder, frame = tmp_path_factory.mktemp("pair"), part[1]
    assert frame.xyz is not None
    write_frame(folder, "0", frame.rgb, frame.xyz)
    (sample,) = list_samples(folder)
    assert sample.is_pair
    return score(read_sample(sample, unit=frame.unit))


@pytest.mark.parametrize("name", writers.CLOUDS)
def test_clouds(score: Score, part: tuple[VirtualCamera, Frame], expected: float, tmp_path: Path, name: str) -> None:
    frame = part[1]
    writers.CLOUDS[name](tmp_path, frame.rgb, frame.xyz)
    if (tmp_path / "colour.png").exists():
        (tmp_path / "colour.png").rename(tmp_path / "a_colour.png")
    (sample,) = list_samples(tmp_path)
    assert score(read_sample(sample, unit=frame.unit)) == pytest.approx(expected, abs=WITHIN)


def test_depth_through_its_lens(
    score: Score, part: tuple[VirtualCamera, Frame], expected: float, tmp_path: Path
) -> None:
    """And the control: through another lens the score is another."""
    camera, frame = part
    assert frame.xyz is not None
    lens = camera.intrinsics
    (tmp_path / "depth").mkdir()
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth/0.npy").write_bytes(writers.npy(frame.xyz[..., 2]))
    (tmp_path / "rgb/0.png").write_bytes(writers.png(np.repeat(np.repeat(frame.rgb, 2, axis=0), 2, axis=1)))
    said = {"fx": lens.fx, "fy": lens.fy, "cx": lens.cx, "cy": lens.cy, "unit": frame.unit}
    (tmp_path / "intrinsics.json").write_text(json.dumps(said))
    (sample,) = list_samples(tmp_path)
    assert score(read_sample(sample)) == pytest.approx(expected, abs=WITHIN)
    (tmp_path / "intrinsics.json").write_text(json.dumps(said | {"fx": 1.02 * lens.fx}))
    assert score(read_sample(sample)) != pytest.approx(expected, abs=WITHIN)
