"""FP16 graphs: what becomes half and what must not, against numpy that rounds where the graph says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from asperity.calibration.networks import TorchNetworks
from asperity.export.graphs import element_types, load
from asperity.export.half import half_graph
from asperity.export.rounding import rounded_graph
from asperity.runtime.errors import BundleError, EngineError
from asperity.runtime.manifest import Network
from tests.bundle_factory import model as toy_model
from tests.bundle_factory import toy_graphs

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
WIDTH = 32


def run(model: bytes, **inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    output: np.ndarray = made.run(None, inputs)[0]
    return output


def two_layers(first: np.ndarray, second: np.ndarray) -> bytes:
    return toy_model(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["relu"]),
            helper.make_node("MatMul", ["relu", "second"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
            helper.make_node("Mul", ["weights", "scores"], ["y"]),
        ],
        {"x": [8, WIDTH]},
        {"y": [8, WIDTH]},
        {"first": first, "second": second},
    )


def test_the_rounding_form_rounds_every_half_result_and_sums_in_float() -> None:
    rng = np.random.default_rng(0)
    x, first, second = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 32), (32, 32), (32, 32)))

    def half(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float64)

    hidden = half(half(x) @ half(first))
    scores = half(np.maximum(hidden, 0) @ half(second))
    power = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = half(half(power / power.sum(axis=-1, keepdims=True)) * scores)
    graph = half_graph(two_layers(first, second), "toy")
    got = run(rounded_graph(graph, "toy"), x=x)
    # A sum that float32 and float64 put on two sides of a rounding edge moves one result by a unit in the last place.
    differing = np.abs(got - expected) > 1e-6 * np.abs(expected)
    assert differing.mean() < 0.02
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6)
    # The control: without rounding of activations the results are others.
    plain = run(two_layers(first.astype(np.float16).astype(np.float32), second), x=x)
    assert (np.abs(plain - expected) > 1e-6 * np.abs(expected)).mean() > 0.5


def test_what_stays_float_and_what_not() -> None:
    rng = np.random.default_rng(1)
    graph = toy_model(
        [
            helper.make_node("Mul", ["x", "x"], ["squared"]),  # before the first product
            helper.make_node("MatMul", ["x", "small"], ["wide"]),  # sums 3 terms
            helper.make_node("MatMul", ["wide", "large"], ["hidden"]),
            helper.make_node("LayerNormalization", ["hidden", "scale", "bias"], ["normed"], axis=-1),
            helper.make_node("Softmax", ["normed"], ["weights"], axis=-1),
            helper.make_node("Add", ["weights", "bias"], ["y"]),
        ],
        {"x": [8, 3]},
        {"y": [8, WIDTH], "squared": [8, 3]},
        {
            "small": rng.normal(size=(3, WIDTH)).astype(np.float32),
            "large": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
            "scale": np.ones(WIDTH, np.float32), "bias": np.zeros(WIDTH, np.float32),
        },
    )  # fmt: skip
    for softmax, type_of_weights in (("half", HALF), ("fp32", FLOAT)):
        made = load(half_graph(graph, "toy", softmax), "toy")
        types = element_types(made)
        seen = {name: types[name] for name in ("squared", "wide", "hidden", "normed", "weights")}
        assert seen == {
            "squared": FLOAT, "wide": FLOAT, "hidden": HALF, "normed": FLOAT, "weights": type_of_weights
        }  # fmt: skip
        assert {types[value.name] for value in (*made.graph.input, *made.graph.output)} == {FLOAT}
        assert types["large__half"] == HALF and types["small"] == FLOAT
        # float32 and half results of a norm are there once each, however many read them
        assert len({output for node in made.graph.node for output in node.output}) == sum(
            len(node.output) for node in made.graph.node
        )


def test_weights_beyond_half_are_refused_and_clips_bounds_are_not() -> None:
    weights = np.eye(WIDTH, dtype=np.float32)
    weights[3, 4] = 7e4
    with pytest.raises(EngineError, match=r"toy\.onnx: weight 'first' reaches 7e\+04, beyond half's 65504"):
        half_graph(two_layers(weights, weights), "toy")
    weights[3, 4] = np.nan
    with pytest.raises(EngineError, match="reaches nan"):
        half_graph(two_layers(weights, weights), "toy")
    clipped = toy_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Clip", ["h", "low", "high"], ["y"]),
        ],
        {"x": [2, WIDTH]},
        {"y": [2, WIDTH]},
        {
            "w": np.eye(WIDTH, dtype=np.float32), "low": np.float32(0).reshape(()),
            "high": np.asarray(np.finfo(np.float32).max),
        },
    )  # fmt: skip
    x = np.linspace(-3, 3, 2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)
    np.testing.assert_allclose(run(rounded_graph(half_graph(clipped, "c"), "c"), x=x), np.maximum(x, 0), atol=2e-3)


def test_no_model_is_refused() -> None:
    with pytest.raises(BundleError, match=r"toy\.onnx cannot be read"):
        half_graph(b"\xff\xff no model", "toy")


def test_the_same_graph_gives_the_same_bytes() -> None:
    for name, graph in toy_graphs("lsfa").items():
        assert half_graph(graph, name) == half_graph(graph, name)


def steep_surface(given: Network) -> dict[str, np.ndarray]:
    """Groups and centres on a steep surface, in the encoder's units: heights above its planes are small differences."""
    rng = np.random.default_rng(2)
    groups = rng.uniform(-0.4, 0.4, (given.groups, given.group_size, 3)).astype(np.float32)
    groups[..., 2] = 2.0 * groups[..., 0] + 0.02 * groups[..., 1] ** 2
    centres = rng.uniform(-0.9, 0.9, (given.groups, 3)).astype(np.float32)
    centres[:, 2] = 2.0 * centres[:, 0] + 0.01 * centres[:, 1] ** 2
    return {"groups": groups, "centres": centres}


def test_geometry_before_the_first_product_is_worth_float32(
    lite: tuple[TorchNetworks, Network, list[Path]], lite_graphs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = lite_graphs["points"], steep_surface(lite[1])
    expected = run(model, **inputs)

    def rms_error() -> float:
        seen = run(rounded_graph(half_graph(model, "points"), "points"), **inputs)
        return float(np.sqrt(np.square(seen - expected).mean()) / expected.std())

    error = rms_error()
    assert error < 0.002

    def every_node(made: onnx.ModelProto, _softmax: str) -> set[int]:
        types = element_types(made)
        return {index for index, node in enumerate(made.graph.node) if types[node.output[0]] == FLOAT}

    # The control: everything in half, as a builder's fp16 switch would have it.
    monkeypatch.setattr("asperity.export.half._half_nodes", every_node)
    assert rms_error() > 1.4 * error


def test_names_shapes_and_types_of_inputs_and_outputs_stay(tmp_path: Path) -> None:
    for name, graph in toy_graphs("lsfa").items():
        before, after = onnx.load_from_string(graph), onnx.load_from_string(half_graph(graph, name))
        assert list(before.graph.input) == list(after.graph.input)
        assert list(before.graph.output) == list(after.graph.output)
