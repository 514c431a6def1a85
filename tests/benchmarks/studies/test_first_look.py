"""The first look's tables: what is compared with what, and that chance is told from a difference."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from asperity.benchmarks.studies.first_look import SWEEP_BASE, Row, TestFigures, settings
from asperity.benchmarks.studies.first_look_table import differences_drawn, paired_table, read, tables
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.auroc import auroc
from asperity.calibration.tuning.tune import Figures, Trial

TestFigures.__test__ = False  # type: ignore[attr-defined]
CONFIG = AdaptationConfig()


def row(product: str, config: AdaptationConfig | None, lift: float, seed: int) -> Row:
    """Test scores of 60 good and 60 defective frames, the defective ones ``lift`` above; frames are the same in all."""
    rng = np.random.default_rng([1, len(product)])
    good, defective = rng.normal(size=60), rng.normal(1.0, 1.0, 60)
    noise = 0.05 * np.random.default_rng(seed).normal(size=(2, 60))
    good, defective = good + noise[0], defective + lift + noise[1]
    test = TestFigures(
        image_auroc=auroc(good, defective), rgb_image_auroc=0.5, points_image_auroc=0.5, patch_auroc=0.5, by_defect={},
        good_scores=tuple(good.tolist()), defective_scores=tuple(defective.tolist()),
    )  # fmt: skip
    return Row(Trial(product, config, Figures(0.8 + 0.1 * (config is not None), 0.7, 0.7, 0.6)), test)


def write(folder: Path, rows: list[Row]) -> None:
    for one in rows:
        with (folder / f"lite-{one.trial.product}.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(one) + b"\n")


@pytest.mark.parametrize(("lift", "real"), [(0.8, True), (0.0, False)])
def test_a_difference_is_told_from_chance(tmp_path: Path, lift: float, real: bool) -> None:
    products = ("left", "other")
    rows = [row(product, None, 0.0, 9) for product in products]
    rows += [row(p, msgspec.structs.replace(CONFIG, seed=s), lift, s) for s in range(3) for p in products]
    write(tmp_path, rows)
    found = read(tmp_path, "lite")
    frozen = found["null"]
    adapted = [lines for key, lines in found.items() if key != "null"]
    for still in frozen:
        moved = [
            line["test"] for lines in adapted for line in lines if line["trial"]["product"] == still["trial"]["product"]
        ]
        differences = differences_drawn(still["test"], moved)
        expected = np.mean([one["image_auroc"] for one in moved]) - still["test"]["image_auroc"]
        assert differences.mean() == pytest.approx(expected, abs=4 * differences.std() / np.sqrt(len(differences)))
        assert (np.percentile(differences, 2.5) > 0) == real
    text = paired_table(frozen, adapted)
    assert "3 seeds" in text and text.count("\n") == 4
    whole = tables(found)
    assert "| frozen |" in whole and whole.endswith(text)


def test_a_setting_that_one_product_lacks_is_left_out_and_a_stopped_one_says_why(tmp_path: Path) -> None:
    stopped = Row(Trial("left", CONFIG, None, stopped="features have collapsed"), None)
    short = msgspec.structs.replace(CONFIG, temperature=1.0)
    write(tmp_path, [row("left", None, 0, 1), row("other", None, 0, 1), stopped, row("other", CONFIG, 0, 2)])
    write(tmp_path, [row("left", short, 0, 3)])
    found = read(tmp_path, "lite")
    assert len(found) == 2
    assert "stopped: left: features have collapsed" in tables(found)


def test_the_sweep_covers_the_grid() -> None:
    tried = [config for config in settings(SWEEP_BASE) if config is not None]
    cells = {(config.temperature, config.start, config.compactness) for config in tried}
    assert cells >= {
        (t, s, w) for t in (1.0, 0.2, 0.07) for s in ("identity", "default") for w in (0.9, 0.3, 0.0)
    }  # fmt: skip
    assert len({msgspec.json.encode(config) for config in tried}) == len(tried)
