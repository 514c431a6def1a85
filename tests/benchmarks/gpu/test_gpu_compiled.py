"""Plans for the whole-frame benchmark, built with the real TensorRT-RTX, which needs no GPU for that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asperity.benchmarks.gpu.cases import TINY, Case, tiny_profile
from asperity.benchmarks.gpu.compiled import PRECISION, models_of, plans_of
from asperity.calibration.networks import build
from asperity.calibration.profiles import PROFILES
from asperity.runtime.engines.tensorrt.library import load_library
from asperity.runtime.vision.preprocess import Masks
from tests.benchmarks.small_network import network_of


def seeded(seed: int) -> Case:
    tiny_profile()
    profile = PROFILES[TINY]
    networks = build(profile, seeded=True, seed=seed)
    networks.set_adaptors(*networks.new_adaptors(seed=seed))
    nothing: dict[str, None] = dict.fromkeys(("geometry", "decision", "banks", "bundle"))
    return Case(network=network_of(profile, 64), silhouette=(), masks=Masks(), networks=networks, **nothing)  # type: ignore[arg-type]


def test_a_seeded_case_is_built_once_and_other_weights_are_another(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    library = load_library("tensorrt-rtx")
    plans = plans_of(seeded(0), library, None, tmp_path)
    assert set(plans.graphs) == {"rgb", "points", "adaptor_rgb", "adaptor_points"}
    assert plans.record.key.precision == PRECISION and np.all([file.nbytes > 1000 for file in plans.record.files])
    assert plans_of(seeded(0), library, None, tmp_path).folder == plans.folder
    assert models_of(seeded(1), tmp_path) != models_of(seeded(0), tmp_path)
