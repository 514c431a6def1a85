"""A frame's kernels in a row on the CPU stand-in, each fed by the one before, against the runtime's functions in a row.

No network runs here: random tokens and distances stand where they would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np
import pytest

from asperity.runtime.cuda.checks import maps as map_checks
from asperity.runtime.cuda.checks import preprocess as frames
from asperity.runtime.cuda.checks.clouds import clear_fault
from asperity.runtime.cuda.maps import FUSED, Maps
from asperity.runtime.cuda.points import Grouping, GroupScale, Interpolation, Sampling, SamplingPlan
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.frame import ModalityScores
from asperity.runtime.vision.features import merged_tokens
from asperity.runtime.vision.maps import MAP_PX, pixel_map, worst_region
from asperity.runtime.vision.points import group
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.scoring import fused_map

SHAPE = {"height": 72, "width": 90, "side": 56, "image": 28, "grid": 14, "cloud": 28, "nearest": 0}


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("preprocess", "window", "sampling", "grouping", "interpolation", "maps")


@pytest.mark.parametrize(
    ("kind", "pooling"), [("holes", "valid_mean"), ("pieces", "published"), ("depth", "valid_mean")]
)
def test_a_frame_goes_through(device: ShimDevice, kind: str, pooling: Literal["published", "valid_mean"]) -> None:
    rng = np.random.default_rng(3)
    frame, geometry = frames.frame_of(kind, 72, 90, rng), frames.geometry_of(kind, 72, 90, 56)
    network = msgspec.structs.replace(
        frames.network_of(SHAPE), groups=24, group_size=16, points_channels=20, group_scale_mm=1.3,
        position_scale_mm=14.0, centre_positions=True, pooling=pooling, rgb_grid=7, adaptor="lsfa", points_slots=128,
    )  # fmt: skip
    fault, patches = clear_fault(device), network.grid**2

    pre = Preprocess(device, geometry, network, None)
    rgb = device.upload(frame.rgb)
    if frame.depth is not None:
        pre.enqueue_depth(frame, rgb, device.upload(frame.depth), pre.upload_rays(frame), fault)
    else:
        pre.enqueue_xyz(frame, rgb, device.upload(frame.xyz), fault)
    sampling = Sampling(device, 28, 24, SamplingPlan(28 * 28, "block", 1, 2), threads=256)
    grouping = Grouping(device, 28, 24, 16, GroupScale(1.3, 14.0, True))
    mapping = Interpolation(device, 28, 14, 24, pooling, 128)
    sampling.enqueue(pre.cloud, fault)
    grouping.enqueue(pre.cloud, sampling.centres, sampling.centroid, fault)
    mapping.enqueue(pre.cloud, sampling.centres, fault)

    prepared = prepare(frame, geometry, network)
    expected = group(prepared.cloud, network)
    assert np.allclose(
        device.download(grouping.relative, (24, 16, 3), np.float32), expected.groups, rtol=1e-6, atol=1e-6
    )
    assert np.allclose(device.download(grouping.positions, (24, 3), np.float32), expected.centres, rtol=1e-6, atol=1e-6)
    nonempty = device.download(mapping.nonempty, (14, 14), np.uint8).astype(bool)
    assert np.array_equal(nonempty, expected.nonempty)
    filled = int(nonempty.sum())
    assert filled > 10

    tokens = rng.normal(size=(24, 20)).astype(np.float32)
    pooled, counts = merged_tokens(np.asarray(expected.to_patches @ tokens), expected.nonempty, network)
    slots = len(pooled)
    assert int(device.download(mapping.larger, (1,), np.int32)[0]) == (slots != 128)
    out = device.alloc(4 * slots * 20)
    mapping.enqueue_pool(device.upload(tokens), 20, False, slots, out, fault)
    assert np.allclose(device.download(out, pooled.shape, np.float32), pooled, rtol=1e-5, atol=1e-5)
    if slots == 128:
        assert np.array_equal(device.download(mapping.multiplicity, (128,), np.float32), counts)

    points = rng.gamma(3.0, 1.0, patches).astype(np.float32)
    colour = rng.gamma(3.0, 1.0, 49).astype(np.float32)
    distances = {"rgb": device.upload(colour), "points": device.upload(points)}
    stage = Maps(device, 14, 7, patches, map_checks.DECISION, distances)
    stage.enqueue(mapping.slot_of_patch, pre.inspect, fault)
    stage.enqueue_region(fault, 256)
    scored = expected.nonempty & prepared.inspect
    laid = np.zeros((14, 14), dtype=np.float32)
    laid[expected.nonempty] = points[:filled]
    tiled = colour.reshape(7, 7).repeat(2, axis=0).repeat(2, axis=1)
    fused = fused_map(
        {
            "rgb": ModalityScores(np.where(scored, tiled, np.float32(0)), 0.0),
            "points": ModalityScores(np.where(scored, laid, np.float32(0)), 0.0),
        },
        map_checks.DECISION,
    )
    pixels = device.download(stage.pixels, (stage.count, MAP_PX, MAP_PX), np.float32)[FUSED]
    assert np.allclose(pixels, pixel_map(fused), rtol=0, atol=map_checks.MAP_ROUNDING * np.abs(fused).max())
    figures = pre.download_figures()
    assert figures.window == prepared.window
    assert stage.download_region(figures.window, 72, 90) == worst_region(pixels, scored, prepared.window, 72, 90)
    assert int(device.download(fault, (1,), np.uint32)[0]) == 0


def test_damage_anywhere_in_the_chain_ends_in_the_fault_word(device: ShimDevice) -> None:
    for where in ("cloud", "centres", "tokens", "distances"):
        cloud = np.ones((12, 12, 3), dtype=np.float32) + np.arange(144, dtype=np.float32).reshape(12, 12, 1) % 7
        tokens, distances = np.ones((6, 4), np.float32), np.ones(16, np.float32)
        if where == "cloud":
            cloud[5, 5, 1] = np.nan
        fault = clear_fault(device)
        sampling = Sampling(device, 12, 6, SamplingPlan(144, "block", 1, 1), threads=160)
        grouping = Grouping(device, 12, 6, 4, GroupScale(1.0, 1.0, False))
        mapping = Interpolation(device, 12, 4, 6, "valid_mean", 16)
        on_device, out = device.upload(cloud), device.alloc(4 * 16 * 4)
        sampling.enqueue(on_device, fault)
        if where == "centres":
            device.write(sampling.centres, np.array([np.nan], dtype=np.float32))
        grouping.enqueue(on_device, sampling.centres, sampling.centroid, fault)
        mapping.enqueue(on_device, sampling.centres, fault)
        tokens[2, 1] = np.inf if where == "tokens" else 1.0
        distances[9] = np.nan if where == "distances" else 1.0
        mapping.enqueue_pool(device.upload(tokens), 4, False, 16, out, fault)
        inspect = device.upload(np.ones(16, np.uint8))
        sources = {"rgb": device.upload(np.ones(16, np.float32)), "points": device.upload(distances)}
        Maps(device, 4, 4, 16, map_checks.DECISION, sources).enqueue(mapping.slot_of_patch, inspect, fault)
        assert int(device.download(fault, (1,), np.uint32)[0]) & 1, where
