"""The CPU engine over small real ONNX graphs, against the same road written out in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from onnx import helper

from asperity.runtime.bundle.banks import read_banks
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.errors import EngineError, FrameRefused
from asperity.runtime.frame import FloatArray, Scores
from asperity.runtime.manifest import Decision, Modality, Network
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.distances import modality_scores
from asperity.runtime.vision.features import normalised_image
from asperity.runtime.vision.points import group
from asperity.runtime.vision.preprocess import Masks, prepare
from asperity.runtime.vision.tiles import of_window
from tests.bundle_factory import model
from tests.synthetic_station import plane_geometry, shoot, small_network

RGB, POINTS, GRID, SLOTS = 5, 6, 7, 40
NETWORK = small_network(adaptor="lsfa", points_slots=SLOTS, rgb_slots=GRID**2)
SHOT = shoot(radius_mm=26.0)
GEOMETRY = plane_geometry(SHOT)
WEIGHTS = {
    name: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for seed, (name, shape) in enumerate(
        {"conv": (RGB, 3, 8, 8), "points": (6, POINTS), "rgb_key": (RGB, RGB), "points_key": (POINTS, POINTS)}.items()
    )
}


def silent(_stage: str) -> None:
    """Nobody follows the progress."""


def rgb_graph() -> bytes:
    return model(
        [
            helper.make_node("Conv", ["image", "w"], ["cells"], strides=[8, 8]),
            helper.make_node("Reshape", ["cells", "shape"], ["rows"]),
            helper.make_node("Transpose", ["rows"], ["tokens"], perm=[1, 0]),
        ],
        {"image": [1, 3, 56, 56]},
        {"tokens": [GRID**2, RGB]},
        {"w": WEIGHTS["conv"] / 20, "shape": np.array([RGB, GRID**2])},
    )


def points_graph(spoil: float = 0.0) -> bytes:
    return model(
        [
            helper.make_node("ReduceMax", ["groups", "axis"], ["widest"], keepdims=0),
            helper.make_node("Concat", ["widest", "centres"], ["both"], axis=1),
            helper.make_node("MatMul", ["both", "w"], ["clean"]),
            helper.make_node("Add", ["clean", "spoil"], ["tokens"]),
        ],
        {"groups": [16, 8, 3], "centres": [16, 3]},
        {"tokens": [16, POINTS]},
        {"w": WEIGHTS["points"], "axis": np.array([1]), "spoil": np.array([spoil], np.float32)},
    )


def adaptor_graph(kind: str, rows: int, width: int) -> bytes:
    """tokens + softmax(tokens W tokens^T [+ log counts]) tokens."""
    biased = kind == "points"
    nodes = [
        helper.make_node("MatMul", ["tokens", "w"], ["query"]),
        helper.make_node("Transpose", ["tokens"], ["keys"], perm=[1, 0]),
        helper.make_node("MatMul", ["query", "keys"], ["plain"]),
        *([helper.make_node("Log", ["counts"], ["bias"])] if biased else []),
        *([helper.make_node("Add", ["plain", "bias"], ["logits"])] if biased else []),
        helper.make_node("Softmax", ["logits" if biased else "plain"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "tokens"], ["mixed"]),
        helper.make_node("Add", ["tokens", "mixed"], ["adapted"]),
    ]
    inputs = {"tokens": [rows, width], **({"counts": [rows]} if biased else {})}
    return model(nodes, inputs, {"adapted": [rows, width]}, {"w": WEIGHTS[f"{kind}_key"] / 4})


def graphs() -> dict[str, bytes]:
    return {
        "rgb": rgb_graph(),
        "points": points_graph(),
        "adaptor_rgb": adaptor_graph("rgb", GRID**2, RGB),
        "adaptor_points": adaptor_graph("points", SLOTS, POINTS),
    }


def constants(mean: float, std: float) -> Modality:
    return Modality(
        feature_mean=mean, feature_std=std, image_mean=0.0, image_std=1.0, patch_mean=0.0, patch_std=1.0, weight=0.5,
        bank_rows=60,
    )  # fmt: skip


DECISION = Decision(
    engine="cpu", precision="fp32", rgb=constants(0.1, 0.7), points=constants(-0.2, 1.3), fusion="average",
    threshold=1.0, alpha=0.1, alpha_total=0.1, calibration_scores=(0.0,),
)  # fmt: skip
ROWS: tuple[FloatArray, FloatArray] = tuple(  # type: ignore[assignment]
    np.random.default_rng(width).normal(size=(60, width)).astype(np.float32) for width in (RGB, POINTS)
)
BANKS = read_banks({"rgb": ROWS[0], "points": ROWS[1]}, DECISION)


def engine(threads: int = 2, network: Network = NETWORK, **changed: bytes) -> CpuEngine:
    return CpuEngine(GEOMETRY, network, {**graphs(), **changed}, BANKS, threads=threads)


@pytest.fixture(params=[1, 2])
def opened(request: pytest.FixtureRequest) -> Iterator[CpuEngine]:
    """An engine on one thread, and on two."""
    made = engine(request.param)
    yield made
    made.close()


def attended(tokens: np.ndarray, weights: np.ndarray) -> np.ndarray:
    logits = tokens @ (weights / 4) @ tokens.T
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    return tokens + share / share.sum(axis=1, keepdims=True) @ tokens  # type: ignore[no-any-return]


def expected_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance maps and scored patches in float64: no slots, no blocks, no sessions."""
    prepared = prepare(SHOT.frame, GEOMETRY, NETWORK)
    image = (prepared.image.astype(float) / 255 - 0.5) / 0.25
    cells = image.reshape(7, 8, 7, 8, 3)
    rgb = np.einsum("aibjc,kcij->abk", cells, WEIGHTS["conv"].astype(float) / 20).reshape(-1, RGB)
    rgb = attended(rgb, WEIGHTS["rgb_key"].astype(float))
    grouped = group(prepared.cloud, NETWORK)
    tokens = np.concatenate([grouped.groups.max(axis=1), grouped.centres], axis=1).astype(float) @ WEIGHTS["points"]
    points = attended(grouped.to_patches.toarray().astype(float) @ tokens, WEIGHTS["points_key"].astype(float))
    maps = []
    for features, bank, own in (
        (rgb, ROWS[0], DECISION.modalities()["rgb"]),
        (points, ROWS[1], DECISION.modalities()["points"]),
    ):
        standardised = (features - own.feature_mean) / own.feature_std
        distances = np.linalg.norm(standardised[:, None] - bank[None].astype(float), axis=2).min(axis=1)
        maps.append(distances.reshape(GRID, GRID) * grouped.nonempty)
    return maps[0], maps[1], grouped.nonempty


def test_scores_are_those_of_the_road_written_out(opened: CpuEngine) -> None:
    """Preprocessing, networks, merged tokens and distances, to float32's rounding."""
    rgb, points, scored = expected_maps()
    heard: list[str] = []
    scores = opened.score(SHOT.frame, heard.append)
    np.testing.assert_array_equal(scores.scored, scored)
    assert 5 < scored.sum() < SLOTS
    np.testing.assert_allclose(scores.modalities["rgb"].distance_map, rgb, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.modalities["points"].distance_map, points, rtol=1e-4, atol=1e-5)
    assert 0 < scores.modalities["points"].image_distance < points.max()
    assert set(heard) == set(scores.stage_us) == {"pre", "rgb", "points", "knn"}


def same(one: Scores, other: Scores) -> bool:
    return (
        np.array_equal(one.modalities["rgb"].distance_map, other.modalities["rgb"].distance_map)
        and np.array_equal(one.modalities["points"].distance_map, other.modalities["points"].distance_map)
        and one.modalities["rgb"].image_distance == other.modalities["rgb"].image_distance
        and one.modalities["points"].image_distance == other.modalities["points"].image_distance
        and np.array_equal(one.scored, other.scored)
    )


def test_a_prepared_frame_scores_like_the_frame_itself(opened: CpuEngine) -> None:
    """Calibration inputs take the same road from there on; another frame scores otherwise."""
    scores = opened.score(SHOT.frame, silent)
    prepared = prepare(SHOT.frame, GEOMETRY, NETWORK)
    assert same(scores, opened.score_prepared(prepared, silent))
    assert not same(scores, opened.score(shoot(5, radius_mm=20.0).frame, silent))


def test_masks_reach_the_scores() -> None:
    """Patches that a recipe ignores are neither scored nor counted."""
    ignore = np.zeros(SHOT.frame.shape_px, bool)
    ignore[:60] = True
    made = CpuEngine(GEOMETRY, NETWORK, graphs(), BANKS, Masks(ignore=ignore), 1)
    scores = made.score(SHOT.frame, silent)
    assert not scores.scored[:3].any() and scores.scored[4:].any()
    assert (
        not scores.modalities["rgb"].distance_map[:3].any() and not scores.modalities["points"].distance_map[:3].any()
    )


def test_refused_frames_are_refused_and_the_next_one_scores(opened: CpuEngine) -> None:
    """The reason is preprocessing's."""
    expected = opened.score(SHOT.frame, silent)
    with pytest.raises(FrameRefused) as info:
        opened.score(shoot(radius_mm=0.0).frame, silent)
    assert info.value.reason is Reason.TOO_FEW_POINTS
    assert same(opened.score(SHOT.frame, silent), expected)


def test_a_fuller_frame_than_the_slots_needs_the_larger_graph() -> None:
    """Without it the error says what to do; with it the frame scores as with slots enough."""
    tight = small_network(adaptor="lsfa", points_slots=8, rgb_slots=GRID**2)
    small = adaptor_graph("points", 8, POINTS)
    with pytest.raises(EngineError, match="adaptor_points_full"):
        engine(network=tight, adaptor_points=small).score(SHOT.frame, silent)
    full = adaptor_graph("points", GRID**2, POINTS)
    fallen_back = engine(network=tight, adaptor_points=small, adaptor_points_full=full).score(SHOT.frame, silent)
    np.testing.assert_allclose(
        fallen_back.modalities["points"].distance_map,
        engine().score(SHOT.frame, silent).modalities["points"].distance_map,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["rgb", "points", "adaptor_rgb", "adaptor_points"])
def test_a_graph_that_does_not_load_is_named(name: str, threads: int) -> None:
    """Bytes that are no model."""
    with pytest.raises(EngineError, match=f"{name}.onnx does not load"):
        engine(threads, **{name: b"no model"})


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_that_fails_or_gives_nan_is_an_engine_error(threads: int) -> None:
    """Wrong inputs for the graph, no graph at all, and a value that is not finite: never a score."""
    with pytest.raises(EngineError, match=r"rgb.onnx failed"):
        engine(threads, rgb=points_graph()).score(SHOT.frame, silent)
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine(threads, points=points_graph(spoil=np.nan)).score(SHOT.frame, silent)
    incomplete = {name: graph for name, graph in graphs().items() if name != "adaptor_rgb"}
    with pytest.raises(EngineError, match=r"no adaptor_rgb.onnx"):
        CpuEngine(GEOMETRY, NETWORK, incomplete, BANKS, threads=threads).score(SHOT.frame, silent)


def test_the_engine_goes_on_after_an_error(opened: CpuEngine) -> None:
    """A damaged input fails its own frame only."""
    expected = opened.score(SHOT.frame, silent)
    prepared = prepare(SHOT.frame, GEOMETRY, NETWORK)
    with pytest.raises(EngineError, match="no points"):
        opened.score_prepared(replace(prepared, cloud=np.zeros_like(prepared.cloud)), silent)
    assert same(opened.score(SHOT.frame, silent), expected)


def test_a_closed_engine_scores_nothing(opened: CpuEngine) -> None:
    """Closing twice is allowed."""
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="closed"):
        opened.score(SHOT.frame, silent)


def test_description_names_engine_threads_and_precision() -> None:
    """As the first log line and every state message give it; impossible thread counts are refused."""
    info = engine(2).describe()
    assert (info.name, info.precision) == ("cpu", "fp32") and "2 threads" in info.device
    with pytest.raises(EngineError, match="threads is 0"):
        engine(0)


@pytest.mark.parametrize("threads", [1, 2])
def test_tiles_of_a_window_are_scored_as_the_window_that_they_make(threads: int) -> None:
    """The graph sees a cell at a time: cut into tiles and put together again, nothing may be out of its place."""
    network = msgspec.structs.replace(NETWORK, adaptor="none", rgb_slots=0, points_slots=0, tiles=2)
    made = engine(threads, network)
    found = made.score(SHOT.frame, silent)
    made.close()
    window = of_window(network)
    prepared = prepare(SHOT.frame, GEOMETRY, network)
    assert prepared.image.shape == (window.image_px, window.image_px, 3) and window.grid == 13
    cells = normalised_image(prepared, network)[0].reshape(3, 13, 8, 13, 8)
    tokens = np.einsum("chawb,ocab->hwo", cells, WEIGHTS["conv"] / 20).reshape(13**2, RGB).astype(np.float32)
    expected = modality_scores(tokens, found.scored, BANKS["rgb"])
    assert found.scored.any() and found.scored.shape == (13, 13)
    np.testing.assert_allclose(found.modalities["rgb"].distance_map, expected.distance_map, rtol=1e-4)
    assert found.modalities["points"].image_distance > 0
