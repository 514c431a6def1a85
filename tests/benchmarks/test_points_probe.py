"""The table of point features: virtual frames in the probe's form, rows kept and added, the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import points_probe
from benchmarks.points_probe import RESULTS, Table, known, markdown, measure, virtual_product
from calibration.networks.weights import POINTS_LITE, points_lite_record
from calibration.point_probe import ProbeFrame, ProbeProduct
from calibration.procedural_defects import KINDS


@pytest.fixture(scope="module")
def nameplate() -> ProbeProduct:
    return virtual_product("nameplate", seed=5, counts=(3, 2, 4))


def test_virtual_frames_have_labels_and_lengths_in_cells(nameplate: ProbeProduct) -> None:
    bank, tests = nameplate
    assert [len(bank), len(tests)] == [3, 6]
    assert [frame.kind for frame in tests] == ["normal", "normal", *KINDS]
    for frame in [*bank, *tests]:
        assert (frame.label == 0).all() == (frame.kind == "normal")
        x = frame.cloud[..., 0]
        steps = np.diff(x, axis=1)[(x[:, 1:] != 0) & (x[:, :-1] != 0)]
        assert np.median(steps) == pytest.approx(1.0, abs=0.1)
    assert all((frame.label == 1).any() for frame in tests[2:])


def height_of_defect(frame: ProbeFrame) -> np.ndarray:
    """Features that know the answer: the upper bound of the table."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(frame.label.size, 4)) * 0.1 + 9.0 * (frame.label.reshape(-1, 1) == 1)).astype(np.float32)


def test_only_missing_rows_are_measured(nameplate: ProbeProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points_probe, "virtual_product", lambda name: nameplate)
    monkeypatch.setattr(points_probe, "contestants", lambda: {"all-knowing": lambda: height_of_defect})
    kept: list[Table] = []
    done = {"all-knowing": {"patch": {}, "image": {}}}
    table: Table = {"procedural": dict(done), "roll": dict(done)}
    measure(table, ("nameplate", "roll"), ["all-knowing"], kept.append)
    assert len(kept) == 1 and table["roll"] == done
    figures = table["nameplate"]["all-knowing"]
    assert set(figures["patch"]) == set(figures["image"]) == {*KINDS, "all"}
    assert figures["patch"]["all"] == figures["image"]["all"] == 1.0
    assert "| nameplate | all-knowing |" in markdown({"nameplate": table["nameplate"]})


def test_rows_of_other_weights_are_not_kept(tmp_path: Path) -> None:
    own = points_lite_record()["probe"]
    path = tmp_path / "lite.json"
    for sha, expected in (("0" * 64, set()), (str(points_lite_record()["sha256"]), {"roll"})):
        path.write_text(json.dumps({"weights_sha256": sha, "auroc": {"roll": {"heights": {"patch": {}, "image": {}}}}}))
        table = known(path)
        assert set(table) == {"procedural"} | expected
        assert isinstance(own, dict) and table["procedural"]["fpfh"] == own["fpfh"]


def test_the_committed_table_is_of_the_shipped_weights() -> None:
    stored = json.loads((RESULTS / "lite.json").read_text())
    assert POINTS_LITE.is_file() and stored["weights_sha256"] == points_lite_record()["sha256"]
    assert {"procedural", "bracket", "nameplate", "roll"} <= set(stored["auroc"])
    assert {"trained", "untrained", "fpfh"} <= set(stored["auroc"]["procedural"])
    assert all("trained" in rows for rows in stored["auroc"].values())
    procedural = stored["auroc"]["procedural"]
    assert procedural["trained"] == points_lite_record()["probe"]["trained"]  # type: ignore[index]
    assert procedural["trained"]["image"]["all"] > procedural["untrained"]["image"]["all"] + 0.05
