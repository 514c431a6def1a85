"""Training of the small point encoder: clouds, defects, stations, losses, the probe, and the weights that ship."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.networks.weights import POINTS_LITE
from asperity.calibration.pretraining.clouds import (
    CLOUD_PX,
    DISTANCE,
    Pose,
    Product,
    make_product,
    place_on,
    render,
    station_pose,
)
from asperity.calibration.pretraining.defects import KINDS, make_defect
from asperity.calibration.pretraining.descriptors import fpfh_features
from asperity.calibration.pretraining.probe import (
    NORMAL,
    SCORINGS,
    Comparison,
    ProbeConfig,
    ProbeFrame,
    ProbeProduct,
    compare,
    encoder_features,
    figures,
    make_probe,
    run_probe,
)
from asperity.calibration.pretraining.run import (
    RECORD_FILE,
    WEIGHTS_FILE,
    check_figures,
    pretrain,
    untrained,
)
from asperity.calibration.pretraining.stations import StationFrame, cell_network, make_station
from asperity.calibration.pretraining.surface_targets import surface_loss, surface_targets, turned
from asperity.calibration.pretraining.train import (
    PretrainConfig,
    StationTrainer,
    log_distances,
    order_loss,
    rate,
    station_terms,
    train_at_stations,
)
from asperity.runtime.errors import DataError
from asperity.runtime.vision.points import group, valid_points

TINY = PretrainConfig(steps=26, first_stations=1, fresh_every=100, fresh_share=0.0, bank_frames=2, warmup=3,
                      averaging=0.8)  # fmt: skip
SMALL_PROBE = ProbeConfig(products=2, bank_frames=3, normal_frames=2, defect_frames=1, amplitude=(0.5, 1.5))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def probe() -> list[ProbeProduct]:
    return make_probe(SMALL_PROBE)


@pytest.fixture(scope="module")
def frames() -> list[StationFrame]:
    return make_station(np.random.default_rng(0), 3, 3)


def small_encoder() -> PointsLite:
    torch.manual_seed(0)
    return PointsLite(width=36, hidden=32, depth=1, taps=(0, 1), points=8)


def fit_statistics(encoder: PointsLite, frames: list[StationFrame]) -> None:
    encoder.fit_statistics([(torch.from_numpy(frame.groups), torch.from_numpy(frame.centres)) for frame in frames])


def test_a_noiseless_frame_is_the_products_height() -> None:
    product = Product(height=lambda x, y: 0.05 * x - 0.02 * y + 1.0, inside=lambda x, y: 30 - np.hypot(x, y))
    instance = render(product, Pose(0.0, (0.0, 0.0), (0.0, 0.0), 0.0, 0.0), np.random.default_rng(0))
    axis = np.arange(CLOUD_PX) + 0.5 - CLOUD_PX / 2
    x, y = np.meshgrid(axis, axis)
    core = np.hypot(x, y) < 25
    # A source pixel in ten thousand is lost to its slope even here, which shifts its cell's mean by a quarter pixel.
    np.testing.assert_allclose(instance.clean[core], (0.05 * x - 0.02 * y + 1)[core], atol=0.02)
    np.testing.assert_allclose(DISTANCE - instance.cloud[..., 2][core], instance.clean[core], atol=1e-4)
    outside = np.hypot(x, y) > 32
    assert not instance.cloud[outside].any() and np.isnan(instance.clean[outside]).all()
    assert not instance.defect.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_added_and_told_apart(kind: str) -> None:
    product = Product(height=lambda x, y: np.zeros_like(x), inside=lambda x, y: 40 - np.hypot(x, y))
    rng = np.random.default_rng(0)
    pose, field = station_pose(rng, 0.01), make_defect(kind, rng, (5.0, 5.0), (0.6, 0.8))
    good, bad = (render(product, pose, np.random.default_rng(1), defect) for defect in (None, field))
    both = np.isfinite(good.clean) & np.isfinite(bad.clean) & (bad.defect != 0)
    # A cell that lost a source pixel to its slope in one of the frames means others: a few differ.
    missed = np.abs((bad.clean - good.clean - bad.defect)[both])
    assert np.quantile(missed, 0.7) < (0.02 if kind != "hole" else 0.5)
    deepest = np.abs(bad.defect).max()
    assert (1.0 < deepest <= 2.4) if kind == "hole" else (0.3 < deepest <= 0.8)
    assert (bad.defect.max() if kind == "bump" else -bad.defect.min()) == deepest
    assert bad.defect.min() == 0 if kind == "bump" else bad.defect.max() == 0
    assert 4 < (bad.defect != 0).sum() < 160
    with pytest.raises(KeyError):
        make_defect("stain", rng, (0.0, 0.0), (0.1, 0.2))


def test_products_differ_by_seed_and_repeat_by_seed() -> None:
    def clouds(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [render(make_product(rng), station_pose(rng, 0.02), rng).cloud for _ in range(4)]

    first, again, other = clouds(3), clouds(3), clouds(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    covered = [float((cloud[..., 2] > 0).mean()) for cloud in (*first, *other)]
    assert all(0.05 < share < 0.95 for share in covered)
    assert place_on(make_product(np.random.default_rng(3)), np.random.default_rng(0), 1.0) is not None


def test_a_stations_frames_are_the_runtimes_own(frames: list[StationFrame]) -> None:
    network = cell_network()
    assert len(frames) == 6
    for index, frame in enumerate(frames):
        assert frame.groups.shape == (network.groups, network.group_size, 3)
        assert frame.surface.shape == frame.known.shape == (network.groups, 27)
        assert frame.filled.sum() > 20
        assert (set(np.unique(frame.label)) == {0}) == (index < 3)
        # Lengths are in units of the cell: a group of 32 reaches about 3 cells, a quarter of which is the unit.
        assert 0.4 < np.quantile(np.linalg.norm(frame.groups, axis=-1).max(axis=1), 0.5) < 1.2
        assert (frame.label == 1).sum() < 100


def test_a_stations_surfaces_lie_under_their_own_centres() -> None:
    rng = np.random.default_rng(1)
    product = Product(height=lambda x, y: 0.01 * x * x, inside=lambda x, y: 35 - np.hypot(x, y))
    instance = render(product, Pose(0.0, (0.0, 0.0), (0.0, 0.0), 0.001, 0.0), rng)
    from asperity.calibration.pretraining.stations import _frame

    frame = _frame(instance, cell_network())
    expected = group(instance.cloud, cell_network())
    np.testing.assert_array_equal(frame.groups, expected.groups)
    np.testing.assert_array_equal(frame.centres, expected.centres)
    # The slope in x of a parabola says where on it the centre lies.
    x = frame.centres[:, 0] * 56.0 + valid_points(instance.cloud)[0][:, 0].mean()
    inner = (frame.known.sum(axis=1) == 27) & (np.abs(x) < 25)
    np.testing.assert_allclose(np.sinh(frame.surface[inner, 0]) * 0.2, 0.02 * x[inner], atol=0.02)


def test_surface_targets_are_slope_and_heights_about_it() -> None:
    y, x = np.mgrid[0:20, 0:20].astype(np.float64)
    clean = 0.3 * x - 0.1 * y + 0.4 * ((x == 10) & (y == 8))
    clean[:, 15:] = np.nan
    target, known = surface_targets(clean, np.array([10 * 20 + 9, 8 * 20 + 13, 3 * 20 + 14, 4 * 20 + 4]))
    square = clean[8:13, 7:12].ravel()
    design = np.stack([x[8:13, 7:12].ravel() - 9, y[8:13, 7:12].ravel() - 10, np.ones(25)], axis=1)
    plane = np.linalg.lstsq(design, square, rcond=None)[0]
    np.testing.assert_allclose(target[0, :2], np.arcsinh(plane[:2] / 0.2), rtol=1e-5)
    np.testing.assert_allclose(target[0, 2:], np.arcsinh((square - design @ plane) / 0.1), rtol=1e-4, atol=1e-5)
    assert known[0].all()
    # One column is missing at the second pixel and two at the third; 15 cells of 25 just suffice.
    assert known[1, 2:].reshape(5, 5)[:, 4].sum() == 0 and known[1].sum() == 2 + 20
    assert known[2].sum() == 2 + 15
    np.testing.assert_allclose(target[3], [*np.arcsinh(np.array([0.3, -0.1]) / 0.2), *np.zeros(25)], atol=1e-6)
    alone = np.full((20, 20), np.nan)
    alone[5, 5] = 1.0
    target, known = surface_targets(alone, np.array([5 * 20 + 5]))
    assert not known.any() and not target.any()


@pytest.mark.parametrize("turn", [(True, False, False), (False, True, False), (False, False, True), (True, True, True)])
def test_turned_targets_are_those_of_the_turned_surface(turn: tuple[bool, bool, bool]) -> None:
    transpose, flip_x, flip_y = turn
    rng = np.random.default_rng(2)
    clean = rng.normal(size=(9, 9))
    clean[0:3, 2] = np.nan
    target, known = surface_targets(clean, np.array([4 * 9 + 4]))
    other = clean[:, ::-1] if flip_x else clean
    other = other[::-1] if flip_y else other
    expected, mask = surface_targets(other.T if transpose else other, np.array([4 * 9 + 4]))
    points = rng.normal(size=(1, 1, 3)).astype(np.float32)
    batch = {
        "groups": torch.from_numpy(points), "centres": torch.from_numpy(points[0]),
        "surface": torch.from_numpy(target), "known": torch.from_numpy(known),
    }  # fmt: skip
    got = turned(batch, *turn)
    np.testing.assert_allclose(got["surface"].numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(got["known"].numpy(), mask)
    x, y, z = points[0, 0]
    x, y = (-x if flip_x else x), (-y if flip_y else y)
    np.testing.assert_array_equal(got["groups"].numpy()[0, 0], (y, x, z) if transpose else (x, y, z))
    np.testing.assert_array_equal(got["centres"].numpy()[0], (y, x, z) if transpose else (x, y, z))
    np.testing.assert_array_equal(batch["surface"].numpy(), target)  # the batch itself is left alone


def test_surface_loss_against_a_loop() -> None:
    told, target = torch.tensor([[0.2, 5.0, 9.0]]), torch.zeros(1, 3)
    known = torch.tensor([[1.0, 1.0, 0.0]])
    assert float(surface_loss(told, target, known)) == pytest.approx((0.2**2 / 2 / 0.5 + 5.0 - 0.25) / 2)
    assert float(surface_loss(told, target, torch.zeros(1, 3))) == 0


def test_distances_and_order_against_loops() -> None:
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(7, 5)), rng.normal(size=(4, 5))
    queries[0] = bank[2]
    expected = [np.log(max(min(np.linalg.norm(q - b) for b in bank), 1e-3)) for q in queries]
    found = log_distances(torch.from_numpy(queries), torch.from_numpy(bank))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    below, above = torch.from_numpy(rng.normal(size=3)), torch.from_numpy(rng.normal(size=4))
    counts = torch.tensor([0.1, 0.2, 0.3, 0.4])
    pairs = [
        [np.log1p(np.exp((float(b) - float(a)) / 0.3)) * float(c) for b in below]
        for a, c in zip(above, counts, strict=True)
    ]
    assert float(order_loss(below, above, counts, 0.3)) == pytest.approx(np.sum(pairs) / len(below))
    assert float(order_loss(below - 50, above, counts, 0.3)) < 1e-6


def test_the_learning_rate_rises_stays_and_falls() -> None:
    config = PretrainConfig(steps=1000, warmup=50, falling=0.5)
    assert [rate(step, config) for step in (0, 24, 49, 400)] == pytest.approx([0.02, 0.5, 1.0, 1.0])
    assert [rate(step, config) for step in (750, 999)] == pytest.approx([0.5, 0.05])


def test_terms_tell_an_encoder_that_sees_from_a_blind_one(frames: list[StationFrame]) -> None:
    config = dataclasses.replace(TINY, bank_frames=2)
    seeing, blind = StationTrainer(small_encoder()), StationTrainer(small_encoder())
    fit_statistics(seeing.encoder, frames)
    for parameter in blind.encoder.parameters():
        parameter.data.zero_()
    with torch.no_grad():
        sees = station_terms(seeing.eval(), frames, config, np.random.default_rng(0))
        sees_not = station_terms(blind.eval(), frames, config, np.random.default_rng(0))
    assert float(sees["auroc"]) > 0.55 and float(sees_not["auroc"]) == 0.0  # all distances tie
    assert float(sees_not["rank"]) == pytest.approx(np.log(2), rel=1e-4)
    assert float(sees["rank"]) < float(sees_not["rank"])
    hidden = [dataclasses.replace(frame, label=np.minimum(frame.label, 0)) for frame in frames]
    assert station_terms(seeing, hidden, config, np.random.default_rng(0)) == {}


def test_a_tiny_run_orders_its_station_and_repeats_itself(frames: list[StationFrame]) -> None:
    start = small_encoder()
    fit_statistics(start, frames)
    config = dataclasses.replace(TINY, spoiled_frames=2)
    trained, curve = train_at_stations(copy.deepcopy(start), config)
    assert [row["step"] for row in curve] == [25, 26]
    assert curve[-1]["rank"] < curve[0]["rank"] and curve[-1]["surface"] < curve[0]["surface"]
    assert torch.equal(trained.groups.measures.running_mean, start.groups.measures.running_mean)
    short = dataclasses.replace(config, steps=2)
    first, again = (train_at_stations(copy.deepcopy(start), short)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["norm.weight"], start.norm.weight)


def test_auroc_against_counting() -> None:
    rng = np.random.default_rng(0)
    bad = [rng.integers(0, 9, n).astype(float) for n in (3, 0, 5)]
    good = [rng.integers(0, 7, n).astype(float) for n in (4, 6)]
    wins = np.array([[sum((p > n) + 0.5 * (p == n) for p in a for n in b) for b in good] for a in bad])
    pairs = np.array([[float(len(a) * len(b)) for b in good] for a in bad])
    made = Comparison(np.array(["dent", "dent", "hole"]), wins, pairs, np.array([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]]))
    assert made.auroc("patch", "all") == pytest.approx(wins.sum() / pairs.sum())
    assert made.auroc("patch", "dent") == pytest.approx(wins[0].sum() / pairs[0].sum())
    assert made.auroc("image", "dent") == pytest.approx(2.5 / 4)
    assert np.isnan(made.auroc("patch", "bump"))


def load_encoder(path: Path) -> PointsLite:
    """A stored encoder in eval mode."""
    encoder = PointsLite()
    state = {key: value.float() for key, value in load_file(path).items()}
    encoder.load_state_dict(state, strict=False)
    return encoder.eval()


def blind_features(frame: ProbeFrame) -> np.ndarray:
    """Numbers that follow from the frame's own noise alone."""
    seed = int(np.abs(frame.cloud[frame.cloud != 0]).sum() * 1e3) % 2**32
    return np.random.default_rng(seed).normal(size=(frame.label.size, 3)).astype(np.float32)


def test_the_probe_separates_what_sees_from_what_does_not(probe: list[ProbeProduct]) -> None:
    assert len(probe) == 2 and [len(part) for part in probe[0]] == [3, 6]
    nothing, seeing = run_probe(blind_features, probe), run_probe(fpfh_features, probe)
    assert set(nothing) == set(SCORINGS) and set(nothing["local"].patch) == {*KINDS, "all"}
    for scoring in SCORINGS:
        assert nothing[scoring].patch["all"] == pytest.approx(0.5, abs=0.1)
        assert seeing[scoring].patch["all"] > 0.65


def test_comparisons_are_of_the_frames_scores(probe: list[ProbeProduct]) -> None:
    bank, tests = probe[0]
    first, again = (compare(blind_features, bank, tests)["published"] for _ in range(2))
    np.testing.assert_array_equal(first.wins, again.wins)
    assert list(first.kinds) == [frame.kind for frame in tests if frame.kind != NORMAL]
    under = [int((f.groups.nonempty & (f.label == 1)).sum()) for f in tests if f.kind != NORMAL]
    beside = [int(f.groups.nonempty.sum()) for f in tests if f.kind == NORMAL]
    np.testing.assert_array_equal(first.pairs, np.outer(under, beside))
    assert (first.wins <= first.pairs).all() and np.isin(first.image, (0.0, 0.5, 1.0)).all()


def test_means_leave_out_what_a_product_does_not_have() -> None:
    one = Comparison(np.array(["hole"]), np.array([[1.0]]), np.array([[2.0]]), np.array([[0.0]]))
    none = Comparison(np.array(["hole"]), np.array([[0.0]]), np.array([[0.0]]), np.array([[1.0]]))
    found = figures([one, none])
    assert found.patch == {"hole": 0.5, "all": 0.5} and found.image == {"hole": 0.5, "all": 0.5}


def test_a_run_writes_weights_and_their_record(tmp_path: Path) -> None:
    config, small = dataclasses.replace(TINY, steps=1), dataclasses.replace(SMALL_PROBE, products=1)
    record = pretrain(tmp_path, config, small)
    data = (tmp_path / WEIGHTS_FILE).read_bytes()
    assert json.loads((tmp_path / RECORD_FILE).read_text()) == json.loads(json.dumps(record))
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert "--seed 0 --steps 1 " in record["command"]
    assert load_encoder(tmp_path / WEIGHTS_FILE).channels == 384
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        pretrain(tmp_path / "file", config, small)


def test_figures_that_do_not_beat_the_controls_forbid_shipping() -> None:
    def side(value: float) -> dict[str, Any]:
        levels = {level: dict.fromkeys((*KINDS, "all"), value) for level in ("patch", "image")}
        return dict.fromkeys(SCORINGS, levels)

    def faults(trained: float, control: float, fpfh: float) -> int:
        sides = {"trained": side(trained), "untrained": side(control), "fpfh": side(fpfh)}
        return len(check_figures({"probe": sides}))

    assert faults(0.9, 0.8, 0.7) == 0
    every = len(SCORINGS) * 2 * len(KINDS)
    assert faults(0.8, 0.8, 0.7) == every
    assert faults(0.8, 0.7, 0.8) == every - len(SCORINGS)  # patches of holes may lie a little below
    assert faults(0.5, 0.8, 0.7) == 2 * every


def test_the_shipped_weights_are_the_records_and_see_more_than_untrained_ones(probe: list[ProbeProduct]) -> None:
    data = POINTS_LITE.read_bytes()
    record = json.loads(POINTS_LITE.with_suffix(".json").read_text())
    assert len(data) < 5_000_000
    assert hashlib.sha256(data).hexdigest() == record["sha256"]
    assert check_figures(record) == []
    shipped, control = load_encoder(POINTS_LITE), untrained(seed=0)
    # Two products tell the sign of the difference; how large it is, the record says from many.
    seen, unseen = (run_probe(encoder_features(e), probe)["published"] for e in (shipped, control))
    assert seen.patch["all"] > 0.7
    assert seen.image["all"] > unseen.image["all"]
