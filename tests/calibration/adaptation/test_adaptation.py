"""The adaptation loop on small toy products: what it trains, what it guards against, and that it repeats itself."""

from __future__ import annotations

import base64
import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from asperity.calibration.adaptation.batches import make_batch, scaled, unscaled
from asperity.calibration.adaptation.settings import AdaptationConfig, default_config
from asperity.calibration.adaptation.trainer import TERMS, Trainer, adapt
from asperity.calibration.calibrate import calibrate
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.networks.adaptor import new_adaptors
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import PROFILES, Profile
from asperity.calibration.report.pictures import curves
from asperity.runtime.errors import CalibrationError, ConfigError, DataError
from tests.calibration.tiny_station import tiny_profile, write_source
from tests.places import ROOT

__all__ = ["tiny_profile"]

torch.set_num_threads(1)

TOY = replace(
    PROFILES["lite"], name="toy", grid=8, rgb_grid=8, rgb_channels=12, rgb_heads=2, rgb_inner=16, points_channels=16,
    points_heads=2, points_inner=16,
)  # fmt: skip
TOY_56 = replace(TOY, grid=8, rgb_grid=4)
"""Like ``paper``: four patches on each RGB token."""

CONFIG = AdaptationConfig(
    batch=4, epochs=6, queue_rows=128, query_patches=16, global_queue_rows=12, learning_rate=2e-3, temperature=0.2
)


def product(profile: Profile = TOY, frames: int = 16, seed: int = 0) -> PatchSet:
    """Patches with a common cause: both modalities see the position's code and the image's through different random
    maps, plus noise."""
    rng = np.random.default_rng(seed)
    code = rng.normal(size=(profile.grid**2, 6))
    to_rgb, to_points = rng.normal(size=(6, profile.rgb_channels)), rng.normal(size=(6, profile.points_channels))
    image = 0.5 * rng.normal(size=(frames, 1, 6))
    nonempty = rng.random((frames, profile.grid, profile.grid)) < 0.6
    factor = profile.grid // profile.rgb_grid
    coarse = code.reshape(profile.rgb_grid, factor, profile.rgb_grid, factor, 6).mean(axis=(1, 3)).reshape(-1, 6)
    rgb = (coarse + image) @ to_rgb + 0.3 * rng.normal(size=(frames, profile.rgb_grid**2, profile.rgb_channels))
    points = (code + image) @ to_points + 0.3 * rng.normal(size=(frames, profile.grid**2, profile.points_channels))
    points *= nonempty.reshape(frames, -1, 1)
    return PatchSet({"rgb": rgb.astype(np.float32), "points": points.astype(np.float32)}, nonempty)


def only(term: str, **changes: object) -> AdaptationConfig:
    """One term alone, with its own weight at 1."""
    weights = {name: float(name == term) for name in TERMS} | {"compactness": 1.0}
    # Queues of 4 steps and 24 images: no patch meets its own past self.
    rest = {"queue_rows": 64, "collapse_share": 0.0}
    return msgspec.structs.replace(CONFIG, **(weights | rest | changes))


@pytest.mark.parametrize("profile", [TOY, TOY_56])
@pytest.mark.parametrize("term", TERMS)
def test_each_term_decreases_alone(profile: Profile, term: str) -> None:
    curves = adapt(product(profile, frames=24), profile, only(term, epochs=10, learning_rate=5e-3)).curves
    acted = [value for value in curves.terms[term] if not math.isnan(value)]
    assert len(acted) >= 50
    assert np.mean(acted[-6:]) < 0.8 * np.mean(acted[:6])
    for other in TERMS:
        if other != term:
            assert all(math.isnan(value) for value in curves.terms[other]), "a term switched off must not act"


def test_the_total_is_the_weighted_sum_of_the_terms() -> None:
    curves = adapt(product(), TOY, CONFIG).curves
    last = {name: values[-1] for name, values in curves.terms.items()}
    expected = (
        last["local_alignment"]
        + 0.2 * last["global_alignment"]
        + 0.9 * (last["local_compactness"] + 0.4 * last["global_compactness"])
    )
    assert curves.loss[-1] == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_adaptors_and_heads_and_nothing_else() -> None:
    patches = product()
    before = [array.copy() for array in (patches.features["rgb"], patches.features["points"])]
    trainer = Trainer(patches, TOY, msgspec.structs.replace(CONFIG, start="default"))
    for _ in range(8):
        trainer.advance()
    assert not math.isnan(trainer.curves.terms["global_compactness"][-1]), "all terms must have acted"
    batch = make_batch(patches, trainer.indices())
    trainer.optimiser.zero_grad()
    loss, _, _ = trainer.losses(batch)
    loss.backward()
    for name, parameter in trainer.trained.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert {name.split(".")[0] for name, _ in trainer.trained.named_parameters()} == {
        "rgb", "points", "rgb_head", "points_head",
    }  # fmt: skip
    assert batch.rgb.grad is None and not batch.rgb.requires_grad
    assert batch.points.grad is None and not batch.points.requires_grad
    assert all(not queue.rows.requires_grad for queue in trainer.queues.values())
    assert np.array_equal(before[0], patches.features["rgb"]) and np.array_equal(before[1], patches.features["points"])


def test_compactness_waits_for_full_queues() -> None:
    curves = adapt(product(), TOY, CONFIG).curves
    # 4 images x 16 patches a step fill 128 rows in 2 steps.
    assert [math.isnan(value) for value in curves.terms["local_compactness"][:4]] == [True, True, False, False]


def test_compactness_alone_collapses_and_the_guard_catches_it() -> None:
    config = only("local_compactness", epochs=40, learning_rate=1e-2)
    unguarded = adapt(product(frames=24), TOY, config)
    assert max(unguarded.spread.values()) < 0.2
    with pytest.raises(CalibrationError, match=r"collapsed to 0\.\d+ of their frozen spread"):
        adapt(product(frames=24), TOY, msgspec.structs.replace(config, collapse_share=0.25))


def test_the_whole_loss_does_not_trip_the_guard() -> None:
    adaptation = adapt(product(), TOY, msgspec.structs.replace(CONFIG, epochs=30, collapse_share=0.25))
    assert min(adaptation.spread.values()) > 0.25


def test_equal_seeds_give_equal_adaptors_and_other_seeds_others() -> None:
    first, second = adapt(product(), TOY, CONFIG), adapt(product(), TOY, CONFIG)
    assert first.curves.loss == second.curves.loss
    for name in first.rgb_state:
        assert torch.equal(first.rgb_state[name], second.rgb_state[name])
    for name in first.points_state:
        assert torch.equal(first.points_state[name], second.points_state[name])
    other = adapt(product(), TOY, msgspec.structs.replace(CONFIG, seed=1))
    assert other.curves.loss != first.curves.loss


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    adapt(product(), TOY, msgspec.structs.replace(CONFIG, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = adapt(product(), TOY, CONFIG)
    checkpoint = tmp_path / "adaptation.safetensors"

    class Interrupted(Exception):
        pass

    def stop(done: int, steps: int) -> None:
        if done == steps // 2 + 1:  # in the middle of an epoch: the step since the last checkpoint is done again
            raise Interrupted

    with pytest.raises(Interrupted):
        adapt(product(), TOY, CONFIG, stop, checkpoint)
    steps_after: list[int] = []
    resumed = adapt(product(), TOY, CONFIG, lambda done, steps: steps_after.append(done), checkpoint)
    assert 0 < len(steps_after) < len(whole.curves.loss)
    np.testing.assert_array_equal(resumed.curves.loss, whole.curves.loss)
    for name in whole.rgb_state:
        assert torch.equal(resumed.rgb_state[name], whole.rgb_state[name])
    for name in whole.points_state:
        assert torch.equal(resumed.points_state[name], whole.points_state[name])


def test_an_adaptor_of_divided_features_is_stored_as_one_of_plain_features() -> None:
    """unscaled(A)(x) = scale A(x / scale): the stored form needs no division at run time."""
    plain = product()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        learnt, stored = new_adaptors(TOY)[1], new_adaptors(TOY)[1]
    scale = 7.5
    stored.load_state_dict(unscaled(learnt.state_dict(), scale))
    whole = make_batch(plain, np.arange(4))
    divided = scaled(whole, 2.0, scale)
    with torch.no_grad():
        expected = scale * learnt(divided.points, divided.counts)
        found = stored(whole.points, whole.counts)
    # Not to the last bit: LayerNorm's eps is added to a variance of another size.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(divided.rgb * 2.0, whole.rgb)


def test_divided_features_move_a_loud_modality_as_far_as_a_quiet_one() -> None:
    """The control is the same run without: features a hundred times larger then hardly move against their spread."""
    quiet = product()
    loud = replace(quiet, features=quiet.features | {"rgb": 100 * quiet.features["rgb"]})

    def moved(patches: PatchSet, standardise: bool) -> float:
        config = msgspec.structs.replace(CONFIG, start="identity", standardise=standardise)
        adaptor = new_adaptors(TOY)[0]
        adaptor.load_state_dict(adapt(patches, TOY, config).rgb_state)
        tokens = torch.from_numpy(patches.features["rgb"])
        with torch.no_grad():
            return float((adaptor(tokens) - tokens).norm() / tokens.norm())

    assert moved(loud, True) == pytest.approx(moved(quiet, True), rel=0.2)
    assert moved(loud, False) < 0.1 * moved(loud, True)


KILLED_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.calibration.adaptation.test_adaptation import CONFIG, TOY, adapt, product

def progress(done, steps):
    print(done, flush=True)
    if done == 14:  # two steps into the fourth epoch of six: wait there for the kill
        sys.stdin.read()

adapt(product(), TOY, CONFIG, progress, Path(sys.argv[2]))
"""


def test_a_killed_process_is_resumed_to_the_same_result(tmp_path: Path) -> None:
    checkpoint = tmp_path / "adaptation.safetensors"
    command = [sys.executable, "-c", KILLED_RUN, str(ROOT), str(checkpoint)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert [process.stdout.readline() for _ in range(14)][-1] == "14\n"
        finally:
            process.kill()
    assert checkpoint.is_file()
    whole = adapt(product(), TOY, CONFIG)
    steps: list[int] = []
    resumed = adapt(product(), TOY, CONFIG, lambda done, _: steps.append(done), checkpoint)
    assert steps[0] == 13, "the steps since the last checkpoint are done again"
    assert resumed.curves.loss == whole.curves.loss
    assert all(torch.equal(resumed.points_state[name], value) for name, value in whole.points_state.items())


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "adaptation.safetensors"
    adapt(product(), TOY, msgspec.structs.replace(CONFIG, epochs=1), checkpoint=checkpoint)
    with pytest.raises(DataError, match="another adaptation configuration"):
        adapt(product(), TOY, CONFIG, checkpoint=checkpoint)
    patches = product()
    patches.features["points"][3, 5] += 1e-3
    with pytest.raises(DataError, match="other frames"):
        adapt(patches, TOY, msgspec.structs.replace(CONFIG, epochs=1), checkpoint=checkpoint)
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match="not a checkpoint of an adaptation"):
        adapt(product(), TOY, CONFIG, checkpoint=checkpoint)


def test_identity_start_begins_at_the_frozen_features() -> None:
    tokens, counts = torch.randn(2, 5, TOY.points_channels), torch.full((2, 5), 3.0)
    _, identity = new_adaptors(TOY, identity_start=True)
    _, default = new_adaptors(TOY)
    assert torch.equal(identity(tokens, counts), tokens)
    assert not torch.allclose(default(tokens, counts), tokens)


def test_progress_counts_every_step() -> None:
    seen: list[tuple[int, int]] = []
    adapt(product(), TOY, msgspec.structs.replace(CONFIG, epochs=2), lambda done, steps: seen.append((done, steps)))
    assert seen == [(step, 8) for step in range(1, 9)]


def test_the_report_shows_the_curves(tiny_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and spread as one more picture of the calibration's report; without adaptation it is not there."""
    drawn: list[list[tuple[str, dict[str, list[float]]]]] = []

    def draw(panels: list[tuple[str, dict[str, list[float]]]]) -> bytes:
        drawn.append(panels)
        return curves(panels)

    monkeypatch.setattr("asperity.calibration.report.html.curves", draw)
    source = write_source(tmp_path / "source", 40)
    training = AdaptationConfig(epochs=1, queue_rows=64, query_patches=16, start="default")
    options = CalibrateOptions(profile="tiny", unit="m", strangest=0)
    page = calibrate(source, tmp_path / "lsfa", options, adaptation=training).report_path.read_text(encoding="utf-8")
    png = re.search(r'alt="losses and spread" src="data:image/png;base64,([^"]+)"', page)
    assert png is not None
    with Image.open(io.BytesIO(base64.b64decode(png[1]))) as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 1
    ((losses, spread),) = drawn
    assert {"total", "local_alignment", "global_alignment"} <= set(losses[1]) and len(losses[1]["total"]) == 3
    assert set(spread[1]) == {"colour", "geometry"}
    frozen = calibrate(source, tmp_path / "frozen", msgspec.structs.replace(options, method="frozen"))
    assert "losses and spread" not in frozen.report_path.read_text(encoding="utf-8")


def test_learning_rate_warms_up_and_falls() -> None:
    trainer = Trainer(product(), TOY, msgspec.structs.replace(CONFIG, epochs=25, warmup_share=0.1))
    rates = []
    for step in range(trainer.steps):
        trainer.step = step
        rates.append(trainer.learning_rate())
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(CONFIG.learning_rate)
    assert rates[0] < 0.2 * CONFIG.learning_rate and rates[-1] < 0.01 * CONFIG.learning_rate


def test_frames_that_cannot_be_used_are_named() -> None:
    with pytest.raises(DataError, match="3 normal frames cannot fill a batch of 4"):
        adapt(product(frames=3), TOY, CONFIG)
    patches = product()
    patches.nonempty[5] = False
    with pytest.raises(DataError, match="normal frame 5 has no patch"):
        adapt(patches, TOY, CONFIG)


def test_a_loss_that_is_not_finite_stops() -> None:
    patches = product()
    patches.features["rgb"][:] = np.nan
    with pytest.raises(CalibrationError, match="the loss is nan"):
        adapt(patches, TOY, CONFIG)


@pytest.mark.parametrize(
    ("field", "value"),
    [("local_alignment", -1.0), ("batch", 1), ("temperature", 0.001), ("learning_rate", 0.0), ("query_patches", 0),
     ("warmup_share", 1.0), ("clip_norm", 0.0), ("collapse_share", 1.0), ("beta2", 1.0), ("queue_rows", 0),
     ("compactness", math.nan)],
)  # fmt: skip
def test_values_that_cannot_be_used_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"adaptation\.{field} is {value}"):
        msgspec.structs.replace(CONFIG, **{field: value})


def test_defaults_follow_the_decisions() -> None:
    lite, paper = default_config(PROFILES["lite"]), default_config(PROFILES["paper"])
    assert (lite.queue_rows, lite.query_patches) == (8192, 256)
    assert (paper.queue_rows, paper.query_patches) == (60_000, None)
    for config in (lite, paper):
        assert (config.local_alignment, config.global_alignment) == (1.0, 0.2)
        assert (config.batch, config.beta1, config.beta2, config.clip_norm) == (8, 0.9, 0.95, None)
