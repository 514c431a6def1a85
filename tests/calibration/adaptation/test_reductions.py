"""The exact reductions of lsfa 10.2 against the plain forms, at inference and in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from asperity.benchmarks.published_form.torch_form import interpolated
from asperity.calibration.adaptation.batches import make_batch
from asperity.calibration.adaptation.feature_queue import FeatureQueue
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.adaptation.trainer import Trainer
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.networks.adaptor import Adaptor
from asperity.calibration.profiles import PROFILES
from asperity.runtime.vision.points import FILLED_MIN, patch_map, valid_points

torch.set_num_threads(1)

TOLERANCE = 1e-5
"""Largest difference in float32, relative to the largest value."""


def adaptor(width: int, heads: int, seed: int = 0) -> Adaptor:
    torch.manual_seed(seed)
    made = Adaptor(width, heads, width)
    # Twice the default weights: attention that is not nearly uniform, so that a wrong multiplicity shows.
    for parameter in made.block.attn.qkv.parameters():
        parameter.data.mul_(2.0)
    return made


def relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    return float((ours - plain).abs().max() / plain.abs().max())


def patches_56(frames: int, seed: int, rgb_grid: int = 4, grid: int = 8) -> PatchSet:
    """Small patches with the structure of ``paper``: four patches on each RGB token."""
    rng = np.random.default_rng(seed)
    nonempty = rng.random((frames, grid, grid)) < 0.5
    nonempty[0] = True  # one frame without an empty patch
    nonempty[1] = False
    nonempty[1, 2, 3:5] = True  # one with almost none
    points = rng.normal(size=(frames, grid**2, 24)) * nonempty.reshape(frames, -1, 1)
    rgb = rng.normal(size=(frames, rgb_grid**2, 16))
    return PatchSet({"rgb": rgb.astype(np.float32), "points": points.astype(np.float32)}, nonempty)


TOY = replace(
    PROFILES["paper"], name="toy", grid=8, rgb_grid=4, rgb_channels=16, rgb_heads=2, rgb_inner=16, points_channels=24,
    points_heads=2, points_inner=24,
)  # fmt: skip


@pytest.mark.parametrize(("width", "heads"), [(24, 2), (384, 6), (1152, 12)])
def test_merged_empty_tokens_equal_all_tokens(width: int, heads: int) -> None:
    rng = np.random.default_rng(width)
    nonempty = rng.random((3, 16, 16)) < np.array([0.2, 0.5, 0.9])[:, None, None]
    points = (rng.normal(size=(3, 256, width)) * nonempty.reshape(3, 256, 1)).astype(np.float32)
    patches = PatchSet({"rgb": np.zeros((3, 256, 1), np.float32), "points": points}, nonempty)
    model = adaptor(width, heads)
    batch = make_batch(patches, np.arange(3))
    assert batch.points.shape[1] < 256
    with torch.no_grad():
        merged = model(batch.points, batch.counts)[batch.filled]
        plain = model(torch.from_numpy(points))[torch.from_numpy(nonempty.reshape(3, 256))]
        unweighted = model(batch.points)[batch.filled]
    assert relative(merged, plain) < TOLERANCE
    assert relative(unweighted, plain) > 100 * TOLERANCE, "control: without multiplicities it is another function"


@pytest.mark.parametrize(("width", "heads"), [(16, 2), (768, 12)])
def test_distinct_rgb_tokens_equal_their_four_copies(width: int, heads: int) -> None:
    model = adaptor(width, heads)
    tokens = torch.randn(1, 196, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        distinct = model(tokens)
        as_map = tokens.transpose(1, 2).reshape(1, width, 14, 14)
        replicated = F.adaptive_avg_pool2d(as_map, (28, 28)).reshape(1, width, -1).transpose(1, 2)
        plain = model(replicated).reshape(28, 28, width)[::2, ::2].reshape(1, 196, width)
    assert relative(distinct, plain) < TOLERANCE


@pytest.mark.parametrize("query_patches", [None, 10])
def test_training_on_distinct_tokens_equals_training_on_all(
    query_patches: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradients of a whole step, with all terms acting: RGB tokens once against four times (row 18), and
    empty patches merged against written out."""
    # Nothing falls out of the queues, since the order in which copies of a token would do so is not defined.
    monkeypatch.setattr(FeatureQueue, "full", property(lambda queue: len(queue.rows) > 0))
    config = AdaptationConfig(
        batch=4, epochs=3, queue_rows=100_000, query_patches=query_patches, temperature=0.2, start="default"
    )
    patches = patches_56(frames=6, seed=3)
    children = patches.parents()
    replicated = PatchSet(patches.features | {"rgb": patches.features["rgb"][:, children]}, patches.nonempty)
    plain_profile = replace(TOY, rgb_grid=8)

    distinct, plain = Trainer(patches, TOY, config), Trainer(replicated, plain_profile, config)
    for _ in range(3):
        ours = distinct.losses(make_batch(patches, distinct.indices()))
        theirs = plain.losses(plain_batch(replicated, plain.indices()))
        assert float(ours[0].detach()) == pytest.approx(float(theirs[0].detach()), rel=1e-5)
        assert ours[1].keys() == theirs[1].keys()
        for name in ours[1]:
            assert float(ours[1][name].detach()) == pytest.approx(float(theirs[1][name].detach()), rel=1e-5), name
        for model in (distinct, plain):
            model.step += 1
    assert set(ours[1]) == {"local_alignment", "global_alignment", "local_compactness", "global_compactness"}
    ours[0].backward()
    theirs[0].backward()
    for (name, mine), (_, other) in zip(
        distinct.trained.named_parameters(), plain.trained.named_parameters(), strict=True
    ):
        assert mine.grad is not None and other.grad is not None
        assert relative(mine.grad, other.grad) < 1e-4, name


def plain_batch(patches: PatchSet, indices: np.ndarray) -> object:
    """The batch with every empty patch as a token of its own."""
    merged = make_batch(patches, indices)
    nonempty = torch.from_numpy(patches.nonempty[indices].reshape(len(indices), -1))
    points = torch.from_numpy(patches.features["points"][indices])
    return replace(merged, points=points, counts=torch.ones(points.shape[:2]), filled=nonempty)


def test_weighting_all_tokens_alike_is_not_the_replicated_form() -> None:
    """Control of the test above: with w = 1 the loss differs."""
    config = AdaptationConfig(batch=4, epochs=1, start="default", temperature=0.2)
    patches = patches_56(frames=6, seed=3)
    trainer = Trainer(patches, TOY, config)
    batch = make_batch(patches, trainer.indices())
    right = float(trainer.losses(batch)[0].detach())
    first_children = torch.from_numpy(np.unique(batch.parents.numpy(), return_index=True)[1])
    keep = torch.zeros(len(batch.parents), dtype=torch.bool)
    keep[first_children] = True
    filled = batch.filled.clone()
    filled[batch.filled] = keep
    fewer = replace(batch, parents=batch.parents[keep], images=batch.images[keep], filled=filled)
    assert float(trainer.losses(fewer)[0].detach()) != pytest.approx(right, rel=1e-2)


@pytest.mark.parametrize(("cloud_px", "grid", "pooling"), [(56, 14, "published"), (50, 14, "published"),
                                                          (56, 14, "valid_mean")])  # fmt: skip
def test_one_sparse_map_equals_canvas_and_pooling(cloud_px: int, grid: int, pooling: str) -> None:
    rng = np.random.default_rng(cloud_px)
    rows, columns = np.mgrid[:cloud_px, :cloud_px]
    cloud = np.stack([columns, rows, 500 + 3 * rng.random((cloud_px, cloud_px))], axis=2).astype(np.float32)
    cloud[np.hypot(rows - cloud_px / 2, columns - cloud_px / 2) > 0.4 * cloud_px] = 0
    points, pixels = valid_points(cloud)
    centres = points[rng.choice(len(points), 40, replace=False)]
    tokens = rng.normal(size=(40, 6)).astype(np.float32)
    sparse, nonempty = patch_map(points, pixels, centres, cloud_px, grid, pooling)  # type: ignore[arg-type]

    at_points = interpolated(torch.from_numpy(points), torch.from_numpy(centres), torch.from_numpy(tokens))
    canvas = torch.zeros(6, cloud_px**2)
    canvas[:, torch.from_numpy(pixels)] = at_points.T
    canvas = canvas.reshape(1, 6, cloud_px, cloud_px)
    if pooling == "published":
        expected = F.adaptive_avg_pool2d(F.avg_pool2d(canvas, 3, stride=1), grid)
    else:
        valid = torch.zeros(cloud_px**2)
        valid[torch.from_numpy(pixels)] = 1.0
        valid = F.adaptive_avg_pool2d(valid.reshape(1, 1, cloud_px, cloud_px), grid)
        expected = F.adaptive_avg_pool2d(canvas, grid) / valid.clamp_min(1e-9) * (valid >= FILLED_MIN)
    expected = expected[0].reshape(6, -1).T
    assert relative(torch.from_numpy(sparse @ tokens).float(), expected) < TOLERANCE
    assert np.array_equal(nonempty.reshape(-1), (expected != 0).any(1).numpy())
    assert 0 < nonempty.sum() < grid**2
