"""torch-reference on the CPU stand-in's memory: the bundle's networks, and no others, in float32 and in half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from asperity.benchmarks.gpu.torch_reference.graphs import HostPlace, TorchGraphs, open_graphs, stored
from asperity.benchmarks.gpu.torch_reference.modules import check_same_networks, folded, signatures
from asperity.calibration.networks import TorchNetworks
from asperity.calibration.networks.point_mae import PointEncoder
from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.networks.vit import VisionTransformer
from asperity.calibration.profiles import PROFILES
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.cuda.graph import DeviceGraph, DeviceGraphs
from asperity.runtime.cuda.shim import ShimBuffer
from asperity.runtime.errors import DataError, EngineError
from tests.benchmarks.small_network import network_of
from tests.conftest import LiteBundle

Arrays = dict[str, NDArray[np.float32]]
FP32 = 3e-5
"""Largest difference from ONNX Runtime, relative to the largest value: float32 in another order."""
FP16 = 1e-2
"""Likewise for half: 2^-11 a step, over some 20 layers."""


@pytest.fixture(scope="module")
def bundle(lite_bundle: LiteBundle) -> Bundle:
    return open_bundle(lite_bundle.path, lite_bundle.trust)


@pytest.fixture(scope="module")
def networks(lite_bundle: LiteBundle) -> TorchNetworks:
    torch.set_num_threads(1)
    return stored(lite_bundle.calibration)


def inputs_of(graph: DeviceGraph, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in graph.inputs.items()}
    if "counts" in made:
        made["counts"] = rng.integers(1, 90, graph.inputs["counts"]).astype(np.float32)
    if "centres" in made:  # groups a few cells wide, spread over the cloud
        made["groups"] *= 0.25
    return made


def run(graph: DeviceGraph, inputs: Arrays) -> NDArray[np.float32]:
    """On memory with guards around it, twice: buffers are used again from frame to frame."""
    buffers = {name: ShimBuffer(4 * int(np.prod(shape))) for name, shape in {**graph.inputs, **graph.outputs}.items()}
    for name, array in inputs.items():
        buffers[name].data[:] = array.reshape(-1).view(np.uint8)
    graph.bind({name: buffer.address for name, buffer in buffers.items()})
    (output,) = graph.outputs
    results = []
    for _ in range(2):
        buffers[output].data[:] = 0xFF
        graph.enqueue(1)
        results.append(buffers[output].data.view(np.float32).reshape(graph.outputs[output]).copy())
    assert all(buffer.damage() is None for buffer in buffers.values())
    assert np.array_equal(*results)
    for name, array in inputs.items():
        assert np.array_equal(buffers[name].data.view(np.float32), array.reshape(-1)), "inputs are left alone"
    return results[0]


def by_onnx(bundle: Bundle, name: str, inputs: Arrays) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(bundle.graph(name), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, inputs)[0]
    return result


def gap(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("precision", "bound"), [("fp32", FP32), ("fp16", FP16)])
def test_every_graph_of_the_bundle_says_what_onnx_runtime_says(
    bundle: Bundle, networks: TorchNetworks, precision: str, bound: float
) -> None:
    graphs: DeviceGraphs = open_graphs(bundle, networks, HostPlace(), precision)
    assert graphs.names() == frozenset(bundle.graph_names()) and graphs.precision == precision
    for name in sorted(graphs.names()):
        graph = graphs.graph(name)
        inputs = inputs_of(graph)
        expected = by_onnx(bundle, name, inputs)
        got = run(graph, inputs)
        assert gap(got, expected) <= bound, name
        # The control: another input's answer is far outside of the bound.
        assert gap(got, by_onnx(bundle, name, inputs_of(graph, seed=1))) > 10 * bound, name


def test_shapes_and_names_are_the_bundles(bundle: Bundle) -> None:
    for name, signature in signatures(bundle.manifest.network).items():
        session = onnxruntime.InferenceSession(bundle.graph(name), providers=["CPUExecutionProvider"])
        assert dict(signature.inputs) == {value.name: tuple(value.shape) for value in session.get_inputs()}
        assert dict(signature.outputs) == {value.name: tuple(value.shape) for value in session.get_outputs()}


def test_half_really_is_half(bundle: Bundle, networks: TorchNetworks) -> None:
    """Were it float32 under another name, it would be as near as float32 is."""
    graph = open_graphs(bundle, networks, HostPlace(), "fp16").graph("rgb")
    inputs = inputs_of(graph)
    assert gap(run(graph, inputs), by_onnx(bundle, "rgb", inputs)) > 10 * FP32


def test_networks_of_another_calibration_are_refused(bundle: Bundle, networks: TorchNetworks) -> None:
    modules = folded(networks)
    check_same_networks(modules, bundle)
    for name, parameter in (
        ("rgb", "blocks.3.project.conv.weight"),
        ("points", "groups.linear3.weight"),
        ("adaptor_points", "block.attn.qkv.weight"),
    ):
        changed = folded(networks)
        with torch.no_grad():
            changed[name].get_parameter(parameter).view(-1)[7] += 1e-3
        with pytest.raises(DataError, match=parameter):
            check_same_networks(changed, bundle)
    with pytest.raises(DataError, match="adaptor_rgb"):
        check_same_networks({key: module for key, module in modules.items() if key != "adaptor_rgb"}, bundle)


def test_a_calibration_of_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        stored(tmp_path)


@pytest.fixture
def graphs(bundle: Bundle, networks: TorchNetworks) -> TorchGraphs:
    return open_graphs(bundle, networks, HostPlace(), "fp32")


def test_work_is_given_to_the_device_and_done_when_its_turn_comes(bundle: Bundle, networks: TorchNetworks) -> None:
    kept: list[Callable[[], None]] = []
    graph = open_graphs(bundle, networks, HostPlace(kept.append), "fp32").graph("adaptor_rgb")
    tokens, adapted = (np.full(graph.inputs["tokens"], value, np.float32) for value in (np.nan, -1.0))
    graph.bind({"tokens": tokens.ctypes.data, "adapted": adapted.ctypes.data})
    graph.enqueue(1)
    assert (adapted == -1.0).all()
    tokens[...] = inputs_of(graph)["tokens"]  # it reads memory only now
    kept.pop()()
    assert np.isfinite(adapted).all() and not (adapted == -1.0).any()


def test_what_is_wrong_is_said(graphs: TorchGraphs, bundle: Bundle, networks: TorchNetworks) -> None:
    with pytest.raises(EngineError, match="no such network: depth"):
        graphs.graph("depth")
    graph = graphs.graph("rgb")
    with pytest.raises(EngineError, match="not bound"):
        graph.enqueue(1)
    with pytest.raises(EngineError, match="bound to"):
        graph.bind({"image": 4096})
    graph.close()
    graph.close()
    with pytest.raises(EngineError, match="no precision 'int4'"):
        open_graphs(bundle, networks, HostPlace(), "int4")
    graphs.close()
    with pytest.raises(EngineError, match="none"):
        graphs.graph("rgb")


def test_a_nan_comes_out_as_one(graphs: TorchGraphs) -> None:
    graph = graphs.graph("adaptor_rgb")
    inputs = inputs_of(graph)
    inputs["tokens"][3, 5] = np.nan
    assert np.isnan(run_once(graph, inputs)).any()


def run_once(graph: DeviceGraph, inputs: Arrays) -> NDArray[np.float32]:
    (output,) = graph.outputs
    result = np.zeros(graph.outputs[output], np.float32)
    graph.bind({**{name: array.ctypes.data for name, array in inputs.items()}, output: result.ctypes.data})
    graph.enqueue(1)
    return result


@pytest.mark.parametrize("name", ["edge", "paper"])
def test_the_larger_profiles_networks_have_their_shapes_in_half(name: str) -> None:
    """At two blocks and few tokens: every layer of them once."""
    profile = PROFILES[name]
    vit = VisionTransformer(image_px=56, patch=14, width=96, depth=2, heads=3, layer_scale=name == "edge")
    encoder: nn.Module = PointsLite(width=48, hidden=48, depth=2, taps=(1, 2))
    if profile.points_encoder == "point_mae":
        encoder = PointEncoder(
            first=(16, 32), second=(48, 48), depth=2, heads=3, taps=(0, 1), point_bn=profile.point_bn
        )  # fmt: skip
    made = TorchNetworks(profile, vit, encoder, (), "cpu")
    small = {"image_px": 56, "rgb_grid": 4, "rgb_channels": 96, "groups": 16, "points_channels": 96, "adaptor": "none"}
    given = msgspec.structs.replace(network_of(profile, 64), **small)
    half = TorchGraphs(given, folded(made), HostPlace(), "fp16")
    whole = TorchGraphs(given, folded(made), HostPlace(), "fp32")
    for graph in ("rgb", "points"):
        inputs = inputs_of(half.graph(graph))
        assert 0 < gap(run(half.graph(graph), inputs), run(whole.graph(graph), inputs)) < FP16
