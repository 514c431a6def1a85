"""The sweep: what it measures, what it may choose by, and what it never chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.auroc import auroc
from asperity.calibration.commands.tune import command
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.prepare_normals import Normals, prepare_normals
from asperity.calibration.profiles import PROFILES
from asperity.calibration.tuning.pseudo_defects import KINDS
from asperity.calibration.tuning.tune import (
    Figures,
    Scale,
    Sweep,
    Trial,
    TuneSet,
    best_config,
    changes,
    keep,
    mean_figure,
    sweep_configs,
    try_config,
)
from asperity.runtime.errors import DataError
from tests.calibration.tiny_station import TINY, build_tiny, write_source

torch.set_num_threads(1)

TOY = replace(
    PROFILES["lite"], name="toy", grid=8, rgb_grid=8, rgb_channels=12, rgb_heads=2, rgb_inner=16, points_channels=16,
    points_heads=2, points_inner=16,
)  # fmt: skip
CONFIG = AdaptationConfig(batch=4, epochs=2, queue_rows=64, query_patches=16, global_queue_rows=12)


def patches(rng: np.random.Generator, frames: int, moved: np.ndarray | None = None, kind: str = "") -> PatchSet:
    nonempty = np.zeros((frames, 8, 8), bool)
    nonempty[:, 2:7, 1:7] = True
    code = np.random.default_rng(0).normal(size=(64, 4))
    rgb = code @ np.random.default_rng(1).normal(size=(4, 12)) + 0.2 * rng.normal(size=(frames, 64, 12))
    points = code @ np.random.default_rng(2).normal(size=(4, 16)) + 0.2 * rng.normal(size=(frames, 64, 16))
    if moved is not None:
        target = rgb if kind == "colour" else points
        target[moved.reshape(frames, 64)] += 0.35
    points *= nonempty.reshape(frames, 64, 1)
    return PatchSet({"rgb": rgb.astype(np.float32), "points": points.astype(np.float32)}, nonempty)


def toy_set(name: str = "toy") -> TuneSet:
    rng = np.random.default_rng(5)
    defective = {kind: np.zeros((6, 8, 8), bool) for kind in KINDS}
    for mask in defective.values():
        mask[:, 3:5, 3:5] = True
    pseudo = {kind: patches(rng, 6, defective[kind], kind) for kind in KINDS}
    return TuneSet(name, patches(rng, 24), patches(rng, 6), pseudo, defective)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    normal, defective = rng.normal(size=40), rng.normal(0.7, 1, 30)
    pairs = (defective[:, None] > normal[None, :]).mean()
    assert auroc(normal, defective) == pytest.approx(pairs)


def test_frozen_features_tell_marked_patches_in_their_own_modality() -> None:
    trial, judge = try_config(toy_set(), TOY, None)
    assert trial.config is None and trial.figures is not None and judge is not None
    assert trial.figures.geometry_auroc > 0.9 and trial.figures.colour_auroc > 0.9
    assert trial.figures.patch_auroc > 0.85 and trial.figures.image_auroc > 0.75

    # Control: the same frames with the marks elsewhere are not told apart.
    misplaced = toy_set()
    for mask in misplaced.defective.values():
        mask[:] = False
        mask[:, 6, 1:3] = True
    figures = try_config(misplaced, TOY, None)[0].figures
    assert figures is not None
    assert 0.2 < figures.geometry_auroc < 0.8 and 0.2 < figures.colour_auroc < 0.8


def test_an_adapted_row_carries_its_figures_and_equal_seeds_repeat_it() -> None:
    first, _ = try_config(toy_set(), TOY, CONFIG)
    second, _ = try_config(toy_set(), TOY, CONFIG)
    assert first.figures is not None and first.figures == second.figures
    assert first.figures.patch_auroc > 0.8 and 0.2 < first.rgb_spread < 2
    assert first.figures != try_config(toy_set(), TOY, None)[0].figures


def test_a_collapsed_setting_is_a_row_that_never_wins() -> None:
    doomed = msgspec.structs.replace(CONFIG, collapse_share=0.99, start="default", epochs=10, learning_rate=1e-2)
    trial, judge = try_config(toy_set(), TOY, doomed)
    assert judge is None and trial.figures is None
    assert "collapsed" in trial.stopped
    frozen, _ = try_config(toy_set(), TOY, None)
    assert best_config([[trial], [frozen]]) is None
    assert mean_figure([trial, frozen]) == -np.inf


def test_the_best_setting_has_the_highest_mean_patch_auroc() -> None:
    def row(config: AdaptationConfig | None, *aurocs: float) -> list[Trial]:
        return [Trial(str(i), config, Figures(value, 0.5, 0.5, 0.99 - value)) for i, value in enumerate(aurocs)]

    other = msgspec.structs.replace(CONFIG, temperature=0.2)
    assert best_config([row(None, 0.9, 0.6), row(CONFIG, 0.7, 0.79), row(other, 0.8, 0.72)]) == other
    assert best_config([row(None, 0.9, 0.9), row(CONFIG, 0.7, 0.79)]) is None


def test_the_sweep_varies_what_it_says_and_repeats_nothing() -> None:
    base = AdaptationConfig()
    settings = sweep_configs(base)
    assert len({msgspec.json.encode(setting) for setting in settings}) == len(settings)
    pairs = {(setting.temperature, setting.start) for setting in settings}
    assert pairs >= {(t, s) for t in (1.0, 0.2, 0.07) for s in ("identity", "default")}
    assert {setting.compactness for setting in settings} >= {0.0, base.compactness}
    assert changes(msgspec.structs.replace(base, epochs=9), base) == {"epochs": 9}
    assert base in settings


def test_both_modalities_count_alike() -> None:
    scale = Scale((1.0, 2.0), (10.0, 5.0))
    assert scale.fuse(np.array([1.0, 3.0]), np.array([10.0, 20.0])).tolist() == [0.0, 1.5]


def counting(made: list[str]) -> Callable[..., Normals]:
    """``prepare_normals`` that notes what it read."""

    def prepared(source: Path, *given: Any) -> Normals:
        made.append(source.name)
        return prepare_normals(source, *given)

    return prepared


def test_the_command_prints_and_writes_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    monkeypatch.setattr("asperity.calibration.tuning.source.build", build_tiny)
    short = [msgspec.structs.replace(CONFIG, temperature=t, epochs=1) for t in (1.0, 0.2)]
    monkeypatch.setattr("asperity.calibration.tuning.tune.sweep_configs", lambda base: short)
    sources = [write_source(tmp_path / name, 24) for name in ("left", "right")]
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [*map(str, sources), "--profile", "tiny", "-o", str(tmp_path / "rows.json")])
    assert done.exit_code == 0, done.output
    sweep = msgspec.json.decode((tmp_path / "rows.json").read_bytes(), type=Sweep)
    rows = sweep.trials
    assert len(rows) == 3 * 2 and {row.product for row in rows} == {"left", "right"}
    assert all(row.figures is not None for row in rows)
    assert "frozen" in done.stdout and "best: " in done.stdout
    assert [origin.network for origin in sweep.weights] == ["tiny_rgb", "tiny_points"] and "RANDOM" in done.stdout
    assert sweep.frames == {"left": (15, 9), "right": (15, 9)}

    # Killed in the middle of the second product: its rows alone are made again, and the table is the same.
    cut = msgspec.structs.replace(sweep, trials=rows[:4])
    keep(tmp_path / "rows.json", cut)
    made: list[str] = []
    monkeypatch.setattr("asperity.calibration.tuning.source.prepare_normals", counting(made))
    again = CliRunner().invoke(app, [*map(str, sources), "--profile", "tiny", "-o", str(tmp_path / "rows.json")])
    assert again.exit_code == 0 and made == ["right"]
    resumed = msgspec.json.decode((tmp_path / "rows.json").read_bytes(), type=Sweep)
    assert [trial.figures for trial in resumed.trials] == [trial.figures for trial in rows]
    other = CliRunner().invoke(app, [*map(str, sources), "--profile=tiny", "--seed=1", "-o", f"{tmp_path}/rows.json"])
    assert isinstance(other.exception, DataError) and "with other weights" in str(other.exception)
