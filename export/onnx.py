"""The networks of a calibrated product as ONNX graphs: networks only, in reduced form (architecture; lsfa 10.2).

Opset 18, float32, static shapes, weights inside the file, BatchNorm folded. Held to the operators that TensorRT 10.3's
parser takes, so that a graph the CPU runs is one that a device can compile.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from asperity.calibration.networks import TorchNetworks
from asperity.calibration.networks.efficientnet_lite0 import EfficientNetLite0
from asperity.calibration.networks.point_mae import PointEncoder
from asperity.runtime.bundle.checks import FULL_GRAPH, graph_signature
from asperity.runtime.bundle.onnx_graphs import OPERATORS
from asperity.runtime.errors import DataError, EngineError, UsageError
from asperity.runtime.manifest import Network

OPSET = 18
log = logging.getLogger(__name__)


class _Rgb(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.backbone(image).squeeze(0)
        return tokens


class _Points(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(groups.unsqueeze(0), centres.unsqueeze(0)).squeeze(0)
        return tokens


class _Adaptor(nn.Module):
    def __init__(self, adaptor: nn.Module) -> None:
        super().__init__()
        self.adaptor = adaptor

    def forward(self, tokens: Tensor) -> Tensor:
        adapted: Tensor = self.adaptor(tokens.unsqueeze(0)).squeeze(0)
        return adapted


class _CountedAdaptor(_Adaptor):
    def forward(self, tokens: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        adapted: Tensor = self.adaptor(tokens.unsqueeze(0), counts.unsqueeze(0)).squeeze(0)
        return adapted


def graph_modules(networks: TorchNetworks, network: Network) -> dict[str, nn.Module]:
    """One module per graph, by its name: copies on the CPU, BatchNorm folded, inputs shaped as the graph's.

    Raises UsageError when the networks lack the adaptors that ``network`` names.
    """
    rgb = copy.deepcopy(networks.modules["rgb"]).cpu()
    if isinstance(rgb, EfficientNetLite0):
        rgb.fold()
    modules: dict[str, nn.Module] = {"rgb": _Rgb(rgb)}
    if "points" in network.modalities:
        points = copy.deepcopy(networks.modules["points"]).cpu()
        if isinstance(points, PointEncoder) and points.encoder.point_bn != "batch":
            points.encoder.fold()
        modules["points"] = _Points(points)
    if network.adaptor == "none":
        return modules
    if "adaptor_rgb" not in networks.modules:
        raise UsageError(f"network.adaptor is {network.adaptor!r}, but the calibrated networks hold no adaptors")
    adaptor_rgb, adaptor_points = (
        copy.deepcopy(networks.modules[name]).cpu() for name in ("adaptor_rgb", "adaptor_points")
    )
    modules |= {"adaptor_rgb": _Adaptor(adaptor_rgb), "adaptor_points": _CountedAdaptor(adaptor_points)}
    if network.points_slots < network.grid**2:
        modules[FULL_GRAPH] = _CountedAdaptor(adaptor_points)
    return modules


def export_graphs(networks: TorchNetworks, network: Network, out_dir: Path) -> list[Path]:
    """Write ``rgb.onnx``, ``points.onnx`` and, with LSFA, the adaptors' graphs into ``out_dir``; returns their paths.

    rgb: ``image`` (1, 3, I, I) -> ``tokens`` (rgb_grid^2, C). points: ``groups`` (G, K, 3), ``centres`` (G, 3) ->
    ``tokens`` (G, C). adaptor_rgb: ``tokens`` (rgb_slots, C) -> ``adapted``. adaptor_points: ``tokens`` (S, C),
    ``counts`` (S,) -> ``adapted``, S = points_slots; and adaptor_points_full with S = grid^2 where that is more.
    Raises UsageError when the networks lack the adaptors that ``network`` names, EngineError for an operator outside
    ``OPERATORS``, DataError when a file cannot be written.
    """
    paths = []
    for name, module in graph_modules(networks, network).items():
        shapes, outputs = graph_signature(name, network)
        inputs = {tensor: torch.ones(shape) for tensor, shape in shapes.items()}
        paths.append(_write(module, inputs, next(iter(outputs)), out_dir / f"{name}.onnx"))
    return paths


def check_operators(model: onnx.ModelProto, name: str) -> None:
    """Raises EngineError naming operators outside ``OPERATORS`` or outside ONNX's own domain."""
    foreign = sorted(
        {
            node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"
            for node in model.graph.node
            if node.domain not in {"", "ai.onnx"} or node.op_type not in OPERATORS
        }
    )
    if foreign:
        raise EngineError(
            f"{name} uses {', '.join(foreign)}, which TensorRT 10.3's parser is not known to support; this version of "
            "torch exports differently, use a version that this project lists"
        )


def _write(module: nn.Module, inputs: dict[str, Tensor], output: str, path: Path) -> Path:
    """Export one module. Traces of the exporter (file names, stack traces of this machine) are taken out."""
    module.eval().requires_grad_(False)
    with _quiet():
        program = torch.onnx.export(
            module, tuple(inputs.values()), input_names=list(inputs), output_names=[output],
            opset_version=OPSET, external_data=False, dynamo=True, optimize=True, verbose=False,
        )  # fmt: skip
    if program is None:
        raise EngineError(f"torch gave no ONNX program for {path.name}")
    model = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.ClearField("metadata_props")
    check_operators(model, path.name)
    onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    try:
        path.write_bytes(data)
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose a folder that can be written"
        raise DataError(f"{path} cannot be written ({error.strerror}); {remedy}") from error
    log.info("wrote %s, %.1f MB", path.name, len(data) / 1e6)
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about torchvision and its own internals; none of it is the user's business."""
    names = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
