"""Every graph of every profile and precision keeps to what TensorRT 10's parser takes (``tensorrt_operators.json``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from asperity.calibration.networks import TorchNetworks
from asperity.export.graphs import element_types
from asperity.export.onnx import OPERATORS, export_graphs
from asperity.export.precision import derived_graph
from asperity.export.quantize import activation_ranges
from asperity.runtime.engines.tensorrt.plan_cache import Precision, Softmax
from asperity.runtime.manifest import Network
from tests.export.exported import contents, inputs_of, whole

KNOWN: dict[str, Any] = msgspec.json.decode((Path(__file__).parent / "tensorrt_operators.json").read_bytes())
TYPES = {
    TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.INT8: "INT8", TensorProto.INT64: "INT64",
    TensorProto.INT32: "INT32", TensorProto.BOOL: "BOOL",
}  # fmt: skip
CONSTANT_INPUT = {"ReduceMax": 1, "ReduceMean": 1, "ReduceSum": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1}
"""Inputs that the list says must be initialisers: axes."""
FORMS: list[tuple[Precision, Softmax]] = [("fp32", "fp32"), ("fp16", "half"), ("fp16", "fp32"), ("int8", "half")]


def faults(model: bytes) -> list[str]:
    """What in the graph is not on the list."""
    made = onnx.load_from_string(model)
    types = element_types(made)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    found = [
        f"opset {one.domain} {one.version}" for one in made.opset_import if one.domain or not 9 <= one.version <= 20
    ]
    for node in made.graph.node:
        allowed = KNOWN["operators"].get(node.op_type, "").split()
        told = f"{node.op_type} {node.output[0]}"
        if node.domain or not allowed:
            found.append(f"{told}: not on the list")
            continue
        # The first input's type is the operator's; shapes, axes and indices are integers everywhere.
        kind = TYPES.get(types[node.input[0]], "another type")
        if kind not in allowed:
            found.append(f"{told}: takes {kind}, the list has {allowed}")
        place = CONSTANT_INPUT.get(node.op_type)
        if place is not None and len(node.input) > place and node.input[place] not in constants:
            found.append(f"{told}: its axes are no initialiser")
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and constants[node.input[2]].any():
            found.append(f"{told}: its zero point is not 0")
        if node.op_type == "Resize":
            modes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if modes.get("antialias", 0) or modes["mode"] not in {b"nearest", b"linear"}:
                found.append(f"{told}: {modes}")
    return found


def check_forms(graphs: dict[str, bytes], given: Network) -> None:
    inputs = inputs_of(given)
    for name, model in graphs.items():
        ranges = activation_ranges(model, name, [inputs[name]])
        for precision, softmax in FORMS:
            form = derived_graph(model, name, precision, softmax, ranges)
            assert faults(form) == [], (name, precision, softmax)
            kinds = {types for types in element_types(onnx.load_from_string(form)).values()}
            assert (TensorProto.FLOAT16 in kinds, TensorProto.INT8 in kinds) == {
                "fp32": (False, False), "fp16": (True, False), "int8": (True, True)
            }[precision], (name, precision)  # fmt: skip


def test_lite(lite: tuple[TorchNetworks, Network, list[Path]], lite_graphs: dict[str, bytes]) -> None:
    check_forms(lite_graphs, lite[1])


def test_edge_and_paper_with_fewer_layers(
    edge_small: tuple[dict[str, bytes], Network], paper_small: tuple[dict[str, bytes], Network]
) -> None:
    check_forms(*edge_small)
    check_forms(*paper_small)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["edge", "paper"])
def test_whole_profile(name: str, tmp_path: Path) -> None:
    networks, given = whole(name)
    check_forms(contents(export_graphs(networks, given, tmp_path)), given)


def test_the_exporters_own_list_is_part_of_it() -> None:
    assert KNOWN["operators"].keys() >= OPERATORS
    assert len(KNOWN["operators"]) < 200 and "NonMaxSuppression" in KNOWN["operators"]


def test_what_is_not_on_the_list_is_found() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    for nodes, told in (
        ([helper.make_node("Det", ["x"], ["y"])], "Det y: not on the list"),
        ([helper.make_node("ReduceSum", ["x", "axes"], ["y"])], "ReduceSum y: its axes are no initialiser"),
        ([helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), helper.make_node("Erf", ["d"], ["y"])],
         "Erf y: takes another type, the list has ['FP32', 'FP16', 'BF16']"),
    ):  # fmt: skip
        graph = helper.make_graph(
            nodes, "g", [value, helper.make_tensor_value_info("axes", TensorProto.INT64, [1])],
            [helper.make_empty_tensor_value_info("y")],
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        assert faults(made.SerializeToString()) == [told]
