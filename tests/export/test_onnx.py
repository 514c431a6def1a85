"""ONNX Runtime on every exported graph gives torch's tokens, and no graph uses what TensorRT 10.3 cannot parse."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from asperity.calibration.networks import TorchNetworks
from asperity.calibration.networks.point_mae import PointBn, PointEncoder
from asperity.calibration.networks.vit import VisionTransformer
from asperity.calibration.profiles import PROFILES
from asperity.export.onnx import OPERATORS, OPSET, check_operators, export_graphs
from asperity.runtime.errors import DataError, EngineError, UsageError
from asperity.runtime.manifest import Network
from tests.export.exported import (
    Arrays,
    calibrated,
    frozen,
    graph_files,
    inputs_of,
    network,
    reduced,
    reduced_edge,
    reduced_paper,
    whole,
)
from tests.places import ROOT

TOLERANCE = 2e-5
"""Largest difference between ONNX Runtime and torch, relative to the largest value: float32 in another order."""

POINTS_TOLERANCE = 1e-4
"""The small encoder's measures are differences of nearly equal numbers, and random groups are nearly no surfaces."""


def by_torch(networks: TorchNetworks, name: str, given: Arrays) -> np.ndarray:
    if name == "rgb":
        return networks.rgb(given["image"])
    if name == "points":
        return networks.points(given["groups"], given["centres"])
    if name == "adaptor_rgb":
        return networks.adapt_rgb(given["tokens"])
    return networks.adapt_points(given["tokens"], given["counts"])


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def check_graphs(paths: list[Path], networks: TorchNetworks, given: Network) -> None:
    inputs = inputs_of(given)
    for path in paths:
        arrays = inputs[path.stem]
        got = session(path).run(None, arrays)[0]
        expected = by_torch(networks, path.stem, arrays)
        scale = np.abs(expected).max()
        tolerance = POINTS_TOLERANCE if path.stem == "points" else TOLERANCE
        assert np.abs(got - expected).max() <= tolerance * scale, path.stem
        # The control: an input whose first token, group or image moved gives another answer, so a constant graph cannot
        # pass. A single number would not do: among 128 points of a group it drowns in the max.
        key = next(iter(arrays))
        moved = {**arrays, key: arrays[key].copy()}
        moved[key][0] += 3.0
        assert np.abs(session(path).run(None, moved)[0] - expected).max() > 10 * TOLERANCE * scale, path.stem


def check_form(path: Path) -> None:
    model = onnx.load(path)
    check_operators(model, path.name)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert not {n.op_type for n in model.graph.node} & {"BatchNormalization", "Shape", "Pad", "Loop", "If", "Cast"}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    assert all(i.data_location == onnx.TensorProto.DEFAULT for i in model.graph.initializer)
    assert str(ROOT).encode() not in path.read_bytes()


def test_lite_in_onnx_runtime_is_lite_in_torch(lite: tuple[TorchNetworks, Network, list[Path]]) -> None:
    networks, given, paths = lite
    names = ["rgb", "points", "adaptor_rgb", "adaptor_points", "adaptor_points_full"]
    assert [path.stem for path in paths] == names
    check_graphs(paths, networks, given)


def test_graphs_keep_to_tensorrt_and_to_static_float32(lite: tuple[TorchNetworks, Network, list[Path]]) -> None:
    for path in lite[2]:
        check_form(path)
    # Not among them: anything that TensorRT 10's parser refuses.
    assert not OPERATORS & {"Attention", "Mod", "NonZero", "Unique", "Multinomial", "Det", "SequenceAt"}


def test_inputs_and_outputs_have_the_bundles_names(lite: tuple[TorchNetworks, Network, list[Path]]) -> None:
    from asperity.runtime.bundle.checks import check_graph

    _, given, paths = lite
    for path in paths:
        check_graph(path.read_bytes(), path.stem, given)


def test_a_bundle_takes_the_graphs_of_the_other_profiles(
    edge_small: tuple[dict[str, bytes], Network], paper_small: tuple[dict[str, bytes], Network]
) -> None:
    """What ``runtime.bundle.onnx_graphs`` lets in is what is written here: field by field, operator by operator."""
    from asperity.runtime.bundle.checks import check_graph

    for graphs, given in (edge_small, paper_small):
        for name, graph in graphs.items():
            check_graph(graph, name, given)


def test_slots_of_the_whole_grid_need_no_second_graph_and_no_adaptor_no_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(module: nn.Module, inputs: dict[str, torch.Tensor], output: str, path: Path) -> Path:
        shapes.append((path.stem, *(tuple(value.shape) for value in inputs.values())))
        return path

    shapes: list[tuple[object, ...]] = []
    monkeypatch.setattr("asperity.export.onnx._write", record)
    networks = calibrated(PROFILES["lite"], seeded=True)
    given = network(PROFILES["lite"], 448)
    export_graphs(networks, given, tmp_path)
    assert shapes[3:] == [("adaptor_points", (448, 384), (448,)), ("adaptor_points_full", (784, 384), (784,))]
    shapes.clear()
    export_graphs(networks, msgspec.structs.replace(given, points_slots=784), tmp_path)
    assert [shape[0] for shape in shapes] == ["rgb", "points", "adaptor_rgb", "adaptor_points"]
    shapes.clear()
    export_graphs(networks, frozen(given), tmp_path)
    assert [shape[0] for shape in shapes] == ["rgb", "points"]
    del networks.modules["adaptor_rgb"]
    with pytest.raises(UsageError, match="no adaptors"):
        export_graphs(networks, given, tmp_path)


def test_operators_outside_the_list_are_refused() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    for domain, kind in (("", "NonZero"), ("com.microsoft", "MatMul")):
        node = onnx.helper.make_node(kind, ["x"], ["y"], domain=domain)
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [value]))
        with pytest.raises(EngineError, match=kind):
            check_operators(model, "toy.onnx")


@pytest.mark.parametrize("point_bn", ["batch", "station"])
def test_paper_at_reduced_depth(point_bn: PointBn) -> None:
    networks, given = reduced_paper(point_bn)
    batch = point_bn == "batch"
    paths = graph_files(f"paper_{'batch' if batch else 'small'}", networks, frozen(given) if batch else given)
    check_graphs(paths, networks, given)
    for path in paths:
        check_form(path)


def test_edge_backbone_with_layer_scale() -> None:
    networks, given = reduced_edge()
    paths = graph_files("edge_small", networks, given)
    check_graphs(paths, networks, given)
    for path in paths:
        check_form(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    vit = VisionTransformer(image_px=32, patch=8, width=8, depth=1, heads=1, layer_scale=False)
    networks, given = reduced("edge", vit, PointEncoder(first=(4, 4), second=(4, 6), depth=0, heads=6, taps=()), 81)
    with pytest.raises(DataError, match=r"rgb\.onnx cannot be written"):
        export_graphs(networks, frozen(given), tmp_path / "absent")


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["edge", "paper"])
def test_whole_profile(name: str, tmp_path: Path) -> None:
    """Full size, seeded: minutes and gigabytes."""
    networks, given = whole(name)
    paths = export_graphs(networks, given, tmp_path)
    check_graphs(paths, networks, given)
    for path in paths:
        check_form(path)
