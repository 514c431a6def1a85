"""INT8 graphs: explicit Q/DQ around products with weights, symmetric, per channel, no bias; ranges from frames."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from asperity.calibration.networks import TorchNetworks
from asperity.export.layers import compare_layers
from asperity.export.quantize import activation_ranges, int8_graph, quantised_weights
from asperity.export.rounding import rounded_graph
from asperity.runtime.errors import EngineError
from asperity.runtime.manifest import Network
from tests.bundle_factory import model as toy_model
from tests.export.exported import inputs_of
from tests.export.test_half import run

WIDTH = 32


def biased(rng: np.random.Generator) -> bytes:
    return toy_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["linear"]),
            helper.make_node("Relu", ["linear"], ["relu"]),
            helper.make_node("MatMul", ["relu", "v"], ["left"]),
            helper.make_node("MatMul", ["relu", "u"], ["right"]),
            helper.make_node("Transpose", ["right"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["left", "turned"], ["y"]),  # no weights: attention's inner product
        ],
        {"x": [8, WIDTH]},
        {"y": [8, 8]},
        {
            "w": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32), "b": rng.normal(size=WIDTH).astype(np.float32),
            "v": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
            "u": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        },
    )  # fmt: skip


def test_weights_are_rounded_to_the_nearest_level_of_their_channel() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 3, 2)) * np.array([1.0, 1e-3, 100.0, 0.0])[:, None, None]
    values, scales = quantised_weights(weights.astype(np.float16), axis=0)
    assert values.dtype == np.int8 and scales.dtype == np.float16
    assert np.abs(values.astype(int)).max() == 127
    back = values * scales.astype(np.float64)[:, None, None]
    # Half a level off at most, in float64; the channel of zeros stays zero.
    level = np.abs(weights.astype(np.float16).astype(np.float64)).max(axis=(1, 2)) / 127
    off = np.abs(back - weights.astype(np.float16).astype(np.float64)).max(axis=(1, 2))
    assert (off <= 0.5 * level * 1.01 + 127 * 2**-24).all()
    assert not back[3].any()
    # The control: one scale for all channels loses the small one.
    whole, _ = quantised_weights(weights.reshape(1, -1).astype(np.float16), axis=0)
    assert not whole.reshape(4, 3, 2)[1].any()


def test_only_products_with_weights_are_quantised_and_no_bias() -> None:
    rng = np.random.default_rng(1)
    graph = biased(rng)
    frames = [{"x": rng.normal(size=(8, WIDTH)).astype(np.float32)} for _ in range(3)]
    made = onnx.load_from_string(int8_graph(graph, "toy", activation_ranges(graph, "toy", frames)))
    nodes = {node.output[0]: node for node in made.graph.node}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    dequantised = [name for name, node in nodes.items() if node.op_type == "DequantizeLinear"]
    # x and relu once each, although relu feeds two products; w, v, u
    assert len(dequantised) == 5
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == 2
    for node in made.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert weights[node.input[2]].dtype == np.int8 and not weights[node.input[2]].any()
            assert weights[node.input[1]].dtype == np.float16 and (weights[node.input[1]] > 0).all()
    products = [node for node in made.graph.node if node.op_type == "MatMul"]
    assert [all(name in dequantised for name in node.input) for node in products] == [True, True, True, False]
    bias = next(node for node in made.graph.node if node.op_type == "Add").input[1]
    assert weights[bias].dtype == np.float16


def test_int8_is_near_and_with_ranges_of_nothing_it_is_not() -> None:
    rng = np.random.default_rng(2)
    graph = biased(rng)
    frames = [{"x": rng.normal(size=(8, WIDTH)).astype(np.float32)} for _ in range(4)]
    ranges = activation_ranges(graph, "toy", frames)
    assert set(ranges) == {"x", "relu"}
    assert ranges["x"] == pytest.approx(max(np.abs(frame["x"]).max() for frame in frames), rel=1e-6)
    expected = run(graph, **frames[0])

    def error(scaled: float) -> float:
        made = int8_graph(graph, "toy", {name: value * scaled for name, value in ranges.items()})
        return float(np.abs(run(rounded_graph(made, "toy"), **frames[0]) - expected).max() / expected.std())

    assert error(1.0) < 0.15
    assert error(0.1) > 1.0  # clipped to a tenth
    assert error(50.0) > 3 * error(1.0)  # two or three levels left


def test_missing_ranges_and_frames_are_refused() -> None:
    graph = biased(np.random.default_rng(3))
    with pytest.raises(EngineError, match="range of x on the calibration frames is nan; use precision fp16"):
        int8_graph(graph, "toy", {"relu": 1.0})
    with pytest.raises(EngineError, match="needs calibration frames"):
        activation_ranges(graph, "toy", [])


def test_one_outlier_does_not_coarsen_everything() -> None:
    wide = toy_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": [1000, WIDTH]}, {"y": [1000, WIDTH]}, {"w": np.eye(WIDTH, dtype=np.float32)},
    )  # fmt: skip
    x = np.random.default_rng(4).normal(size=(1000, WIDTH)).astype(np.float32)
    x[3, 4] = 1e4
    assert activation_ranges(wide, "toy", [{"x": x}])["x"] < 6.0


def test_layers_are_compared_where_they_are_and_a_broken_one_is_seen(
    lite: tuple[TorchNetworks, Network, list], lite_graphs: dict[str, bytes]
) -> None:
    frames = [inputs_of(lite[1], seed)["adaptor_points"] for seed in (0, 1)]
    graph = lite_graphs["adaptor_points"]
    same = compare_layers(graph, graph, "adaptor_points", frames)
    assert {layer.operator for layer in same} >= {"MatMul", "LayerNormalization", "Softmax"}
    assert max(layer.largest_error for layer in same) < 1e-4
    ranges = activation_ranges(graph, "adaptor_points", frames)
    good = compare_layers(graph, int8_graph(graph, "adaptor_points", ranges), "adaptor_points", frames)
    assert 0 < good[-1].rms_error < 0.02 and good[-1].tensor == "adapted"
    # The control: one activation clipped far below its range shows at its product, and not before it.
    broken = {**ranges, "gelu": ranges["gelu"] / 50}
    seen = compare_layers(graph, int8_graph(graph, "adaptor_points", broken), "adaptor_points", frames)
    worse = [now.tensor for before, now in zip(good, seen, strict=True) if now.rms_error > 5 * before.rms_error]
    assert worse and worse[0] == seen[-2].tensor and seen[-2].operator == "MatMul"
