"""The table of point features: virtual frames in the probe's form, parts kept and added, the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from asperity.benchmarks.studies import points_probe
from asperity.benchmarks.studies.points_probe import (
    PARTS,
    RESULTS,
    Table,
    figures,
    known,
    markdown,
    measure,
    virtual_product,
)
from asperity.calibration.networks.weights import POINTS_LITE, points_lite_record, sha256_of
from asperity.calibration.pretraining.defects import KINDS
from asperity.calibration.pretraining.probe import SCORINGS, Comparison, ProbeConfig, ProbeFrame, ProbeProduct


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


def nothing(frame: ProbeFrame) -> np.ndarray:
    """Features that follow from the frame's own noise alone."""
    seed = int(np.abs(frame.cloud[frame.cloud != 0]).sum() * 1e3) % 2**32
    return np.random.default_rng(seed).normal(size=(frame.label.size, 4)).astype(np.float32)


def test_only_missing_parts_are_measured(nameplate: ProbeProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points_probe, "virtual_product", lambda name: nameplate)
    monkeypatch.setattr(
        points_probe, "contestants", lambda: {"trained": lambda: height_of_defect, "no": lambda: nothing}
    )
    monkeypatch.setattr(points_probe, "DRAWS", 20)
    kept: list[Table] = []
    table: Table = {"roll": {}}
    measure(table, ("nameplate", "roll"), kept.append)
    assert len(kept) == 1 and table["roll"] == {}
    own = table["nameplate"]["auroc"]["trained"]
    assert set(own) == set(SCORINGS) and set(own["local"]["patch"]) == {*KINDS, "all"}
    assert own["published"]["patch"]["all"] == own["published"]["image"]["all"] == [1.0, 1.0, 1.0]
    lead = table["nameplate"]["trained_less"]["no"]["published"]["patch"]["all"]
    assert lead[0] == pytest.approx(1.0 - table["nameplate"]["auroc"]["no"]["published"]["patch"]["all"][0], abs=1e-4)
    assert "| nameplate | trained |" in markdown({"nameplate": table["nameplate"]}, "local")


def test_intervals_hold_what_other_frames_would_give() -> None:
    rng = np.random.default_rng(0)

    def comparison(shift: float) -> dict[str, Comparison]:
        above, below = rng.normal(shift, 1, 40), rng.normal(0, 1, 30)
        image = (above[:, None] > below[None]).astype(float)
        return dict.fromkeys(SCORINGS, Comparison(np.array(["dent"] * 40), image, np.ones_like(image), image))

    found = {"trained": [comparison(1.0)], "same": [comparison(1.0)], "blind": [comparison(-1.0)]}
    made = figures(found, draws=300)
    value, low, high = made["auroc"]["trained"]["local"]["image"]["dent"]
    assert low < 0.76 < high and low < value < high and 0.1 < high - low < 0.35
    assert made["trained_less"]["blind"]["local"]["patch"]["all"][1] > 0
    _, low, high = made["trained_less"]["same"]["local"]["patch"]["all"]
    assert low < 0 < high


def test_parts_of_other_weights_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "lite.json"
    assert known(path) == {}
    probe = json.loads(msgspec.json.encode(ProbeConfig()))
    for sha, expected in (("0" * 64, set()), (sha256_of(POINTS_LITE), {"roll"})):
        path.write_text(json.dumps({"weights_sha256": sha, "probe": probe, "parts": {"roll": {}}}))
        assert set(known(path)) == expected


def test_the_committed_table_is_of_the_shipped_weights() -> None:
    stored = json.loads((RESULTS / "lite.json").read_text())
    record: Any = points_lite_record()
    assert stored["weights_sha256"] == record["sha256"]
    assert set(stored["parts"]) == set(PARTS)
    for parts in stored["parts"].values():
        assert {"trained", "untrained", "fpfh"} <= set(parts["auroc"])
    for side in ("trained", "untrained", "fpfh"):
        own, told = stored["parts"]["procedural"]["auroc"][side], record["probe"][side]
        for scoring in SCORINGS:
            for level in ("patch", "image"):
                for kind in (*KINDS, "all"):
                    assert own[scoring][level][kind][0] == pytest.approx(told[scoring][level][kind], abs=2e-4)
