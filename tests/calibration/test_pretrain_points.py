"""Pre-training of the point encoder: clouds, targets, objectives, a tiny run, the probe, and the weights that ship."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from calibration.networks.point_mae import points_lite
from calibration.networks.weights import POINTS_LITE
from calibration.point_probe import ProbeConfig, auroc, make_probe, run_probe
from calibration.pretrain_points import (
    PretrainConfig,
    Pretrainer,
    Samples,
    cell_network,
    chamfer,
    held_out,
    make_samples,
    metric_loss,
    sample_of,
    surface_distance,
    surface_loss,
    surface_targets,
    train,
    turned,
    untrained,
)
from calibration.pretrain_run import RECORD_FILE, WEIGHTS_FILE, check_figures, load_encoder, pretrain
from calibration.procedural import CLOUD_PX, DISTANCE, Pose, Product, bump, make_product, place_on, render, station_pose
from runtime.errors import DataError
from runtime.points import group

TINY = PretrainConfig(clouds=16, steps=26, batch=4, warmup=5)
SMALL_PROBE = ProbeConfig(products=2, bank_frames=3, normal_frames=1, defect_frames=4, amplitude=(0.5, 1.5))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return make_samples(16, np.random.default_rng(0))


def few_groups(samples: Samples, count: int = 32) -> Samples:
    """The same clouds with fewer groups, for speed."""
    return Samples(*(getattr(samples, field.name)[:, :count] for field in dataclasses.fields(Samples)))


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


def test_a_defect_is_added_and_told_apart() -> None:
    product = Product(height=lambda x, y: np.zeros_like(x), inside=lambda x, y: 40 - np.hypot(x, y))
    rng = np.random.default_rng(0)
    pose = station_pose(rng, 0.01)
    good, bad = (render(product, pose, np.random.default_rng(1), field) for field in (None, bump(rng, (5, 5), 4, -0.8)))
    np.testing.assert_allclose(np.nan_to_num(bad.clean - good.clean), bad.defect * np.isfinite(good.clean), atol=0.02)
    assert -0.8 <= bad.defect.min() < -0.6 and bad.defect.max() == 0
    assert 10 < (bad.defect != 0).sum() < 120


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


def test_groups_are_the_runtimes_own() -> None:
    rng = np.random.default_rng(1)
    instance = render(make_product(rng), station_pose(rng, 0.03), rng)
    network = cell_network()
    groups, centres, surface, known = sample_of(instance, network)
    expected = group(instance.cloud, network)
    np.testing.assert_array_equal(groups, expected.groups)
    np.testing.assert_array_equal(centres, expected.centres)
    assert surface.shape == known.shape == (network.groups, 27)
    # Lengths are in units of the cell: a group of 32 reaches about 3 cells, a quarter of which is the unit.
    assert 0.4 < np.quantile(np.linalg.norm(groups, axis=-1).max(axis=1), 0.5) < 1.2


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


def test_chamfer_and_surface_loss_against_loops() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 4, 3))
    forth = [min(((p - q) ** 2).sum() for q in bs) for as_, bs in zip(a, b, strict=True) for p in as_]
    back = [min(((p - q) ** 2).sum() for q in as_) for as_, bs in zip(a, b, strict=True) for p in bs]
    assert float(chamfer(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(np.mean(forth) + np.mean(back))
    told, target = torch.tensor([[0.2, 5.0, 9.0]]), torch.zeros(1, 3)
    known = torch.tensor([[1.0, 1.0, 0.0]])
    assert float(surface_loss(told, target, known)) == pytest.approx((0.2**2 / 2 / 0.5 + 5.0 - 0.25) / 2)
    assert float(surface_loss(told, target, torch.zeros(1, 3))) == 0


def test_metric_loss_wants_tokens_apart_as_their_surfaces() -> None:
    rng = np.random.default_rng(0)
    surfaces = torch.zeros(4, 27)
    surfaces[1, 2:] = 0.3  # everywhere 0.3 higher: a distance of 0.3
    surfaces[2, 0] = 2.0  # another slope: half of it counts
    surfaces[3] = torch.from_numpy(rng.normal(0, 90, 27))
    distances = surface_distance(surfaces)
    assert float(distances[0, 1]) == pytest.approx(0.3) and float(distances[0, 2]) == pytest.approx(1.0)
    wanted = torch.sqrt(2 - 2 * torch.exp(-(distances**2) / 18))
    assert float(wanted[0, 1]) == pytest.approx(0.1, rel=1e-2)
    assert float(wanted[0, 3]) == pytest.approx(2**0.5, rel=1e-2)
    # Points at those distances exist, and their loss is next to nothing; all tokens in one place are far from it.
    centring = torch.eye(4) - 0.25
    values, vectors = torch.linalg.eigh(-0.5 * centring @ wanted**2 @ centring)
    tokens = vectors * values.clamp_min(0).sqrt() * 2  # times the root of 4 channels
    assert float(metric_loss(tokens, surfaces, 3.0)) < 1e-4
    assert float(metric_loss(torch.zeros(4, 4), surfaces, 3.0)) > 0.3


def test_hidden_groups_are_not_seen(samples: Samples) -> None:
    few = few_groups(samples)
    model = Pretrainer(points_lite(), 32).eval()
    groups, centres = torch.from_numpy(few.groups[:2]), torch.from_numpy(few.centres[:2])
    order = torch.stack([torch.randperm(32, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    with torch.no_grad():
        tokens, told, rebuilt = model(groups, centres, order, 20)
        other = groups.clone()
        other[torch.arange(2)[:, None], order[:, 20:]] += 1.0
        assert tokens.shape == (2, 20, 384) and told.shape == (2, 20, 27) and rebuilt.shape == (2, 12, 32, 3)
        for before, after in zip((tokens, told, rebuilt), model(other, centres, order, 20), strict=True):
            assert torch.equal(before, after)
        other = groups.clone()
        other[torch.arange(2), order[:, 0]] += 1.0
        assert not torch.equal(model(other, centres, order, 20)[2], rebuilt)
        assert model(groups, centres, order, 32)[2].shape[1] == 0


def test_a_tiny_run_lowers_both_errors_and_repeats_itself(samples: Samples) -> None:
    few = few_groups(samples)
    model, curve = train(TINY, few)
    assert curve[-1]["step"] == TINY.steps and len(curve) == 2
    before, after = held_out(untrained(few, TINY.seed), few, TINY), held_out(model, few, TINY)
    assert all(after[name] < 0.9 * before[name] for name in ("surface", "metric", "chamfer")), (before, after)
    short = dataclasses.replace(TINY, steps=2)
    first, again = (train(short, few)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_auroc_against_counting() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 60).astype(float)
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(np.mean(wins))


class Heights(nn.Module):
    """An encoder that tells the mean height of its group over its centre's neighbours, or nothing at all."""

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, groups: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        order = groups[..., :2].norm(dim=-1).argsort(dim=-1)
        heights = torch.gather(groups[..., 2], 2, order)
        return torch.zeros_like(heights) if self.blind else heights - heights.mean(dim=-1, keepdim=True)


def test_the_probe_separates_what_sees_from_what_does_not() -> None:
    probe = make_probe(SMALL_PROBE)
    assert len(probe) == 2 and [len(part) for part in probe[0]] == [3, 5]
    assert run_probe(Heights(blind=True), probe) == {"bump": 0.5, "dent": 0.5, "both": 0.5}  # type: ignore[arg-type]
    assert run_probe(Heights(blind=False), probe)["both"] > 0.65  # type: ignore[arg-type]


def test_a_run_writes_weights_and_their_record(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=2, clouds=2, batch=1)
    record = pretrain(tmp_path, config, dataclasses.replace(SMALL_PROBE, products=1), held_out_clouds=2)
    data = (tmp_path / WEIGHTS_FILE).read_bytes()
    assert json.loads((tmp_path / RECORD_FILE).read_text()) == json.loads(json.dumps(record))
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert "--seed 0 --steps 2 --clouds 2" in record["command"]
    assert load_encoder(tmp_path / WEIGHTS_FILE).channels == 384
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        pretrain(tmp_path / "file", config, dataclasses.replace(SMALL_PROBE, products=1), held_out_clouds=2)


def test_figures_that_do_not_beat_chance_forbid_shipping() -> None:
    good = {"surface": 0.1, "metric": 0.1, "chamfer": 0.1}, {"bump": 0.8, "dent": 0.8, "both": 0.8}
    bad = {"surface": 0.5, "metric": 0.5, "chamfer": 0.5}, {"bump": 0.5, "dent": 0.5, "both": 0.5}

    def faults(a: tuple[dict[str, float], ...], b: tuple[dict[str, float], ...]) -> list[str]:
        return check_figures({
            "held_out": {"trained": a[0], "untrained": b[0]}, "probe": {"auroc_trained": a[1], "auroc_untrained": b[1]}
        })  # fmt: skip

    assert faults(good, bad) == []
    assert len(faults(bad, good)) == len(faults(good, good)) == 6


def test_the_shipped_weights_are_the_records_and_see_more_than_untrained_ones(samples: Samples) -> None:
    data = POINTS_LITE.read_bytes()
    record = json.loads(POINTS_LITE.with_suffix(".json").read_text())
    assert len(data) < 5_000_000
    assert hashlib.sha256(data).hexdigest() == record["sha256"]
    assert check_figures(record) == []
    shipped, probe = load_encoder(POINTS_LITE), make_probe(SMALL_PROBE)
    control = untrained(samples, seed=0).encoder
    # Two products tell the sign of the difference; how large it is, the record says from twelve.
    assert run_probe(shipped, probe)["both"] > run_probe(control, probe)["both"]
    assert record["probe"]["auroc_trained"]["both"] > record["probe"]["auroc_untrained"]["both"] + 0.1
