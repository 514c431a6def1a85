"""The whole CUDA engine, from Frame to Scores, on the CPU stand-in, against the CPU engine.

Branches of the stand-in run in the worst order that events allow, once with the first ahead and once with the last.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import msgspec
import numpy as np
import pytest

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.cuda.maps import FUSED
from asperity.runtime.cuda.shim.graphs import OnnxGraphs
from asperity.runtime.cuda.shim.streams import ShimFrameDevice, Step
from asperity.runtime.engines import cuda
from asperity.runtime.engines.cuda import CudaEngine, Settings
from asperity.runtime.errors import AsperityError, EngineError, FrameRefused
from asperity.runtime.frame import Frame, Scores
from asperity.runtime.manifest import LEVEL_FIGURE, SILHOUETTE_FIGURES
from asperity.runtime.reasons import Reason
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.preprocess import Masks, prepare
from asperity.runtime.vision.scoring import fused_map
from tests.bundle_factory import write_toy_bundle
from tests.runtime.cuda.stand_in import SHOT, SHOTS, Station, same, silent, station
from tests.synthetic_station import plane_geometry, shoot, small_network

MOVED = shoot(moved_mm=30.0).frame
NO_PART = shoot(radius_mm=0.0).frame
WRONG_SIZE = shoot(height_px=100).frame


def depth_frame(seed: int, shift_px: float = 0.0) -> Frame:
    """The same scene as depth in tenths of a millimetre."""
    shot = shoot(seed, radius_mm=26.0, unit="mm")
    assert shot.frame.xyz is not None
    depth = np.round(shot.frame.xyz[:, :, 2] * 10).astype(np.uint16)
    lens = replace(shot.intrinsics, cx=shot.intrinsics.cx + shift_px)
    return replace(shot.frame, xyz=None, depth=depth, intrinsics=lens, scale=0.1, unit="mm", invalid=0.0)


def agree(found: Scores, expected: Scores) -> None:
    """Float32 against the CPU's mix of float32 and float64."""
    assert np.array_equal(found.scored, expected.scored)
    assert found.window == expected.window
    for name, mine in found.modalities.items():
        theirs = expected.modalities[name]
        np.testing.assert_allclose(mine.distance_map, theirs.distance_map, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(mine.image_distance, theirs.image_distance, rtol=2e-4, atol=2e-5)
    for figure in (*SILHOUETTE_FIGURES, LEVEL_FIGURE):
        np.testing.assert_allclose(getattr(found.silhouette, figure), getattr(expected.silhouette, figure), rtol=1e-4)


BOTH_ORDERS = [
    (kind, first) for kind in ("published", "local", "plain", "squares", "surface") for first in (False, True)
]


@pytest.mark.parametrize(("kind", "first_branch_first"), [*BOTH_ORDERS, ("fast", True), ("tiles", False)])
def test_scores_are_the_cpu_engines(device_of: Any, kind: Any, first_branch_first: bool) -> None:
    made, device = station(kind), device_of(first_branch_first=first_branch_first, order=int(first_branch_first))
    engine, reference = made.cuda(device), made.cpu()
    for frame in SHOTS[: 2 if first_branch_first else 1]:
        heard: list[str] = []
        found, expected = engine.score(frame, heard.append), reference.score(frame, silent)
        assert expected.scored.sum() >= 5
        assert all(one.image_distance > 0 for one in expected.modalities.values())
        agree(found, expected)
        maps = engine._lanes[0].maps
        fused = device.download(maps.planes, (maps.count, *found.scored.shape), np.float32)[FUSED]
        np.testing.assert_allclose(fused, fused_map(found.modalities, made.decision), rtol=1e-6, atol=1e-5)
        assert heard == ["pre", "points", "knn"] == [span.stage for span in found.spans]
        assert set(found.stage_us) == set(heard)


def test_missing_points_written_as_numbers_are_refused_or_as_declared(device_of: Any) -> None:
    """Undeclared: refused before anything is sent. Declared by the recipe: the scores of a frame without them."""
    frame = SHOTS[0]
    assert frame.xyz is not None
    where = np.random.default_rng(1).random(frame.shape_px) < 0.02
    bad = replace(frame, xyz=np.where(where[..., None], np.float32(-1), frame.xyz))
    gone = replace(frame, xyz=np.where(where[..., None], np.float32(0), frame.xyz))
    made = station()
    engine = made.cuda(device_of())
    with pytest.raises(FrameRefused, match="--invalid -1,-1,-1") as info:
        engine.score(bad, silent)
    assert info.value.reason is Reason.REFUSED_DATA
    expected = engine.score(gone, silent)
    for values in (((None, None, -1.0),), ((-1.0, -1.0, -1.0), (None, None, 50.0))):
        told = replace(made, geometry=msgspec.structs.replace(made.geometry, invalid=values))
        found = told.cuda(device_of()).score(bad, silent)
        np.testing.assert_array_equal(
            found.modalities["points"].distance_map, expected.modalities["points"].distance_map
        )
        assert found.silhouette == expected.silhouette
        agree(found, told.cpu().score(bad, silent))


def test_another_frame_or_bank_scores_otherwise(device_of: Any) -> None:
    """The comparison above can fail: a control."""
    made = station()
    found = made.cuda(device_of()).score(SHOTS[0], silent)
    with pytest.raises(AssertionError):
        agree(found, made.cpu().score(SHOTS[1], silent))
    with pytest.raises(AssertionError):
        agree(replace(made, seed=1).cuda(device_of()).score(SHOTS[0], silent), made.cpu().score(SHOTS[0], silent))


@pytest.mark.parametrize("first_branch_first", [False, True])
def test_without_events_the_branches_order_shows(
    device_of: Any, monkeypatch: pytest.MonkeyPatch, first_branch_first: bool
) -> None:
    """A control: events that hold nothing back give other scores, whichever branch is ahead."""

    def follow(self: ShimFrameDevice, event: Any) -> None:
        if self._recording is not None:
            self._recording.steps.setdefault(self._now.handle, [])
        self._add(Step(after=event, times=0))

    monkeypatch.setattr(ShimFrameDevice, "follow", follow)
    made = station()
    engine = made.cuda(device_of(first_branch_first=first_branch_first))
    with pytest.raises((AssertionError, EngineError)):
        agree(engine.score(SHOTS[0], silent), made.cpu().score(SHOTS[0], silent))


def test_depth_masks_and_other_cameras(device: ShimFrameDevice) -> None:
    """16-bit depth with a lens, another lens, then points: every frame by its own header."""
    ignore = np.zeros(SHOT.frame.shape_px, bool)
    ignore[:60] = True
    made = Station(masks=Masks(ignore=ignore), geometry=plane_geometry(SHOT, moved_share=1.0))
    engine, reference = made.cuda(device), made.cpu()
    frames = [depth_frame(0), depth_frame(0, 1.5), replace(SHOT.frame, unit="m"), depth_frame(1)]
    before = device.allocations
    for frame in frames:
        agree(engine.score(frame, silent), reference.score(frame, silent))
    assert device.allocations == before, "memory was allocated after Ready"


def test_a_mask_over_everything_leaves_nothing_to_score(device: ShimFrameDevice) -> None:
    made = Station(masks=Masks(ignore=np.ones(SHOT.frame.shape_px, bool)))
    engine, reference = made.cuda(device), made.cpu()
    found = engine.score(SHOT.frame, silent)
    agree(found, reference.score(SHOT.frame, silent))
    assert not found.scored.any() and found.modalities["rgb"].image_distance == 0.0


def test_without_a_background_everything_valid_is_the_part(device: ShimFrameDevice) -> None:
    bare = shoot(2, background=False).frame
    made = Station(geometry=plane_geometry(SHOT, method="none", plane=None))
    agree(made.cuda(device).score(bare, silent), made.cpu().score(bare, silent))


def test_a_frame_whose_patches_are_all_too_thin_is_scored_nowhere(device: ShimFrameDevice) -> None:
    """Points, but no patch that is full enough: as the CPU has it, zeros and nothing scored."""
    thin = SHOT.frame.xyz.copy()  # type: ignore[union-attr]
    thin[::2] = 0.0
    thin[:, ::2] = 0.0
    frame = replace(SHOT.frame, xyz=thin)
    made = Station(
        small_network(adaptor="lsfa", points_slots=40, rgb_slots=49, cloud_px=96, cloud_resize="nearest"),
        plane_geometry(SHOT, min_points=10, cluster_gap_px=6),
    )
    engine, reference = made.cuda(device), made.cpu()
    found, expected = engine.score(frame, silent), reference.score(frame, silent)
    assert not expected.scored.any()
    agree(found, expected)
    agree(engine.score(SHOT.frame, silent), reference.score(SHOT.frame, silent))


def told(engine: Any, frame: Frame) -> tuple[type[AsperityError], Any, str]:
    with pytest.raises(AsperityError) as info:
        engine.score(frame, silent)
    return type(info.value), getattr(info.value, "reason", None), str(info.value)


def test_frames_are_refused_as_the_cpu_engine_refuses_them(device: ShimFrameDevice) -> None:
    """Same reason, same words; the next frame scores as if nothing had been."""
    made = station()
    engine, reference = made.cuda(device), made.cpu()
    expected = engine.score(SHOT.frame, silent)
    flat = replace(SHOT.frame, xyz=np.zeros((120, 160), np.float32))
    blind = replace(depth_frame(0), intrinsics=None)
    fisheye = replace(depth_frame(0), intrinsics=replace(depth_frame(0).intrinsics, model="fisheye"))  # type: ignore[type-var]
    reasons = []
    for frame in (MOVED, NO_PART, WRONG_SIZE, flat, blind, fisheye, replace(SHOT.frame, scale=float("nan"))):
        assert told(engine, frame) == told(reference, frame)
        reasons.append(told(engine, frame)[1])
    assert reasons[:2] == [Reason.CAMERA_MOVED, Reason.TOO_FEW_POINTS] and set(reasons[2:]) == {Reason.REFUSED_DATA}
    assert same(engine.score(SHOT.frame, silent), expected)


def test_a_fuller_frame_than_the_slots_takes_the_larger_graph(device_of: Any) -> None:
    tight = Station(small_network(adaptor="lsfa", points_slots=8, rgb_slots=49))
    agree(tight.cuda(device_of()).score(SHOT.frame, silent), tight.cpu().score(SHOT.frame, silent))
    without = tight.cuda(device_of(), without="adaptor_points_full")
    with pytest.raises(EngineError, match="adaptor_points_full"):
        without.score(SHOT.frame, silent)


@pytest.mark.parametrize("kind", ["local", "surface", "fast", "tiles"])
def test_a_prepared_frame_scores_like_the_frame_itself(device: ShimFrameDevice, kind: Any) -> None:
    """What is recorded and what is launched one by one are the same work."""
    made = station(kind)
    engine = made.cuda(device)
    scores = engine.score(SHOT.frame, silent)
    prepared = prepare(SHOT.frame, made.geometry, made.network, heights=made.heights)
    found = engine.score_prepared(prepared, silent)
    if "geometry" in found.modalities:  # what the CPU made of the surface, within rounding
        agree(found, scores)
    else:
        assert same(found, scores)
    bare = replace(prepared, cloud=np.zeros_like(prepared.cloud))
    if "points" in found.modalities:
        with pytest.raises(EngineError, match="no points"):
            engine.score_prepared(bare, silent)
    else:
        nothing = engine.score_prepared(bare, silent)
        assert not nothing.scored.any()
        agree(nothing, made.cpu().score_prepared(bare, silent))
    for name in ("geometry", "height", "descriptor"):
        if name in found.modalities:
            with pytest.raises(EngineError, match=f"without its (surface's picture|{name})"):
                engine.score_prepared(replace(prepared, **{name: None}), silent)
    if prepared.descriptor is not None:
        spoiled = np.full_like(prepared.descriptor, np.nan)
        with pytest.raises(EngineError, match="NaN or infinity"):
            engine.score_prepared(replace(prepared, descriptor=spoiled), silent)
    assert same(engine.score(SHOT.frame, silent), scores)


@pytest.mark.parametrize("name", ["rgb", "points"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_number_is_an_engine_error(device_of: Any, name: str, value: float) -> None:
    engine = Station(spoil={name: value}).cuda(device_of())
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine.score(SHOT.frame, silent)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_a_batch_scores_as_its_frames_do_one_by_one(device_of: Any, lanes: int) -> None:
    """Lanes share weights and banks and nothing else; a frame that fails costs the others nothing."""
    made = station()
    alone, engine = made.cuda(device_of()), made.cuda(device_of(), Settings(lanes=lanes, keep_warm_ms=0))
    assert engine.batch_max == lanes
    frames = [SHOTS[0], MOVED, SHOTS[1], WRONG_SIZE, SHOTS[2], NO_PART, NO_PART, SHOTS[0]]
    answers = engine.score_batch(frames, silent)
    for frame, answer in zip(frames, answers, strict=True):
        if isinstance(answer, Scores):
            assert same(answer, alone.score(frame, silent))
        else:
            assert (type(answer), getattr(answer, "reason", None), str(answer)) == told(alone, frame)
    assert [isinstance(answer, FrameRefused) for answer in answers] == [0, 1, 0, 1, 0, 1, 1, 0]
    assert same(engine.score(SHOTS[1], silent), alone.score(SHOTS[1], silent))


def test_too_little_memory_is_said_with_figures_and_a_remedy(device_of: Any) -> None:
    """Counted before anything is allocated, for two recipes by default."""
    made = station()
    engine = made.cuda(device_of())
    one = engine.budget.nbytes
    room = 64 * 2**20 + 2 * one
    made.cuda(device_of(total_bytes=room))
    small = device_of(total_bytes=room - one // 2)
    told_ = r"MB free of .* are needed: .* 2 recipes .*banks.*frames.*reduce \[engine\] lanes"
    with pytest.raises(EngineError, match=told_):
        made.cuda(small)
    assert small.allocations == 0
    made.cuda(device_of(total_bytes=room - one // 2), Settings(recipes=1, keep_warm_ms=0))


def test_a_recipe_that_opens_beside_another_needs_room_for_itself_only(
    device_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for both was asked for when the first was opened; a bundle brings its masks and banks along."""
    monkeypatch.setattr(cuda, "_open_engines", WeakSet())  # other tests' engines may still be about
    toy = write_toy_bundle(tmp_path / "bundle", TrustStore(tmp_path / "keys"), "lsfa")
    bundle = open_bundle(toy.path, toy.trust)
    graphs = {name: bundle.graph(name) for name in bundle.graph_names()}

    def opened(device: ShimFrameDevice) -> CudaEngine:
        return CudaEngine.open(bundle, device, OnnxGraphs(graphs, device), Settings(keep_warm_ms=0))

    first = opened(device_of())
    room = 64 * 2**20 + first.budget.nbytes
    opened(device_of(total_bytes=room)).close()
    first.close()
    with pytest.raises(EngineError, match="2 recipes"):
        opened(device_of(total_bytes=room))


@pytest.mark.parametrize("kind", ["local", "surface"])
def test_the_plan_of_memory_is_what_is_taken(device: ShimFrameDevice, kind: Any) -> None:
    """No buffer of lanes or banks is missing in it: only rounding lies between."""
    engine = station(kind).cuda(device, Settings(lanes=2, keep_warm_ms=0))
    taken = sum(buffer.nbytes for buffer in device._buffers)
    planned = engine.budget.nbytes - engine.budget.weights
    assert taken <= planned <= taken + 512 * len(device._buffers)


def test_in_gaps_the_device_is_kept_warm_and_then_left_alone(device: ShimFrameDevice) -> None:
    made = station()
    engine = made.cuda(device, Settings(keep_warm_ms=1, keep_warm_for_s=10))
    ran: list[str] = []
    engine._graphs.spoil = ran.append  # type: ignore[attr-defined]
    expected = engine.score(SHOTS[0], silent)
    ran.clear()
    engine._last_warm_ns = 0
    engine.idle()
    assert sorted(ran) == ["adaptor_points", "adaptor_rgb", "points", "rgb"]
    engine.idle() if engine._last_warm_ns == 0 else None
    engine._last_warm_ns = engine._last_frame_ns = 0
    engine.idle()
    assert len(ran) == 4, "long after the last frame nothing is done any more"
    assert same(engine.score(SHOTS[0], silent), expected)


def test_the_collector_is_frozen_only_while_an_engine_serves(device_of: Any) -> None:
    first, second = station().cuda(device_of()), station().cuda(device_of())
    before = gc.get_freeze_count()
    first.begin_serving()
    second.begin_serving()
    assert gc.get_freeze_count() > before
    first.close()
    assert gc.get_freeze_count() > before
    second.close()
    assert gc.get_freeze_count() == 0


def test_what_the_device_cannot_do_is_refused_at_opening(device: ShimFrameDevice) -> None:
    with pytest.raises(EngineError, match="published"):
        Station(geometry=plane_geometry(SHOT, method="published", plane=None)).cuda(device)
    made = station("squares")
    for changes, words in (
        ({"modalities": ("rgb", "echo")}, "this bundle by rgb, echo; use the cpu engine"),
        ({"modalities": ("points",)}, "this bundle by points; use the cpu engine"),
        ({"tiles": 5}, "network.tiles 5, not 1 to 4"),
    ):
        network = msgspec.structs.replace(made.network, **changes)
        with pytest.raises(EngineError, match=words):
            CudaEngine(device, OnnxGraphs(made.graphs, device), made.geometry, network, made.decision, made.banks)
    posed = station("surface")
    with pytest.raises(EngineError, match="the mean part is not at hand"):
        CudaEngine(device, OnnxGraphs(posed.graphs, device), posed.geometry, posed.network, posed.decision, posed.banks)


def test_networks_of_other_shapes_and_missing_ones_are_refused(device_of: Any) -> None:
    wider = small_network(adaptor="lsfa", points_slots=40, rgb_slots=49, points_channels=8)
    made = station()
    graphs = Station(wider).graphs
    with pytest.raises(EngineError, match="manifest promises"):
        made.cuda(device_of(), graphs=graphs)
    with pytest.raises(EngineError, match="holds no adaptor_rgb"):
        made.cuda(device_of(), without="adaptor_rgb")


def test_a_closed_engine_scores_nothing_and_says_what_it_was(device: ShimFrameDevice) -> None:
    engine: CudaEngine = station().cuda(device)
    info = engine.describe()
    assert (info.name, info.precision) == ("cuda", "fp32") and info.device.startswith("cpu-shim, onnxruntime")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.score(SHOTS[0], silent)
