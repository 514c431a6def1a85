"""The study of `point_bn`: what the statistics do to tokens, a run that is kept, its table, the committed results."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from asperity.benchmarks.studies import point_bn
from asperity.benchmarks.studies.point_bn import (
    METRES,
    MODES,
    RESULTS,
    SCALES,
    SEEDS,
    at_station,
    markdown,
    new_encoder,
    run,
)
from asperity.benchmarks.studies.points_probe import PARTS, virtual_product
from asperity.calibration.pretraining.probe import SCORINGS, ProbeProduct
from asperity.runtime.errors import UsageError


@pytest.fixture(scope="module")
def nameplate() -> ProbeProduct:
    return virtual_product("nameplate", seed=5, counts=(3, 2, 4))


def test_statistics_of_another_scale_make_all_tokens_alike(nameplate: ProbeProduct) -> None:
    bank, tests = nameplate
    encoder = point_bn.with_running_statistics(new_encoder(0), 0)

    def spread(mode: point_bn.PointBn, scale: float) -> float:
        """How far the patches of a part differ from each other."""
        patches = at_station(encoder, mode, scale, bank)(tests[0])[tests[0].groups.nonempty.ravel()]
        return float(patches.std(axis=0).mean() / np.abs(patches).mean())

    assert spread("running", METRES) < 0.3 * spread("running", 1.0)
    assert spread("station", METRES) > 2 * spread("running", METRES)
    assert spread("batch", METRES) > 2 * spread("running", METRES)


def test_a_run_is_measured_once_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = virtual_product("nameplate", seed=5, counts=(2, 1, 2))
    monkeypatch.setattr(point_bn, "PARTS", ("nameplate",))
    monkeypatch.setattr(point_bn, "virtual_product", lambda name: few)
    paths = [tmp_path / f"seed-{seed}.json" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        run(path, seed, 2)
    monkeypatch.setattr(point_bn, "encoders", lambda *arguments: pytest.fail("trained again"))
    run(paths[0], 0, 2)
    with pytest.raises(UsageError, match="is of 2 steps and not of 3"):
        run(paths[0], 0, 3)
    records = [msgspec.json.decode(path.read_bytes()) for path in paths]
    assert [record["seed"] for record in records] == [0, 1]
    lines = markdown([record["parts"] for record in records], "published").splitlines()
    assert len(lines) == 2 + len(SCALES) * 2 * len(MODES)
    assert lines[-1].startswith("| metres | random station | ")


def test_the_committed_runs_are_whole() -> None:
    for seed in SEEDS:
        record = msgspec.json.decode((RESULTS / f"seed-{seed}.json").read_bytes())
        assert record["seed"] == seed and set(record["parts"]) == set(PARTS)
        for parts in record["parts"].values():
            assert set(parts) == set(SCALES)
            assert all(set(row) == set(SCORINGS) for rows in parts.values() for row in rows.values())
