"""A bundle's networks as the modules that were exported, and the proof that they are the same ones."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from asperity.calibration.networks.efficientnet_lite0 import EfficientNetLite0
from asperity.calibration.networks.point_mae import PointEncoder
from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.runtime.bundle.checks import graph_names, graph_signature
from asperity.runtime.bundle.onnx_graphs import read_graph
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cuda.graph import Shape
from asperity.runtime.errors import DataError
from asperity.runtime.manifest import Network

ADAPTORS = {"adaptor_rgb": "adaptor_rgb", "adaptor_points": "adaptor_points", "adaptor_points_full": "adaptor_points"}
"""Graphs of adaptors, and the module that each is made of."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Shapes of a graph's inputs and outputs by name, as ``runtime.bundle.checks.graph_signature`` has them."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def signatures(network: Network) -> dict[str, Signature]:
    """Every graph that a bundle of this network holds."""
    return {name: Signature(*graph_signature(name, network)) for name in graph_names(network)}


def folded(networks: TorchNetworks) -> dict[str, nn.Module]:
    """Copies of the modules on the CPU in float32, BatchNorm folded as the exporter folds it, in eval mode."""
    modules = {name: copy.deepcopy(module).cpu().float() for name, module in networks.modules.items()}
    rgb, points = modules["rgb"], modules["points"]
    if isinstance(rgb, EfficientNetLite0):
        rgb.fold()
    if isinstance(points, PointEncoder) and points.encoder.point_bn != "batch":
        points.encoder.fold()
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}


def check_same_networks(modules: Mapping[str, nn.Module], bundle: Bundle) -> None:
    """Every matrix and filter of the modules is a weight of the bundle's graphs, bit for bit, as it is or transposed.

    Raises DataError naming the first one that is not: these are other networks than the bundle's.
    """
    for graph in bundle.graph_names():
        name = ADAPTORS.get(graph, graph)
        if name not in modules:
            raise DataError(f"the networks given hold no {name}, of which the bundle has {graph}.onnx")
        held = {_digest(weight.values) for weight in read_graph(bundle.graph(graph)).weights}
        for parameter, value in _weights(modules[name]):
            forms = [value] if value.ndim != 2 else [value, value.T]
            if not any(_digest(form.contiguous().numpy().reshape(-1)) in held for form in forms):
                raise DataError(
                    f"the networks given are not those of the bundle: {graph}.onnx has no {parameter}; name the "
                    "calibration folder that the bundle was exported from"
                )


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What tells networks apart; vectors may be merged or turned into constants by the exporter."""
    for name, value in module.named_parameters():
        if value.ndim >= 2 and not name.endswith(("cls_token", "pos_embed")):
            yield name, value.detach()


def _digest(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes()).digest()


class Graph(nn.Module):
    """One network as a graph sees it: float32 tensors without a batch axis in and out, ``dtype`` inside."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype


class RgbGraph(Graph):
    """image (1, 3, I, I) -> tokens."""

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.module(image.to(self.dtype))
        return tokens[0]


class PointsGraph(Graph):
    """groups (G, K, 3), centres (G, 3) -> tokens.

    Heights above a group's plane are differences of nearly equal lengths, which half precision loses, so what comes
    before the first linear layers stays float32, as it does in half engines made from the bundle's ONNX.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(module, dtype)
        if isinstance(module, PointsLite):
            return  # takes its measures in the inputs' precision
        if not isinstance(module, PointEncoder):
            raise DataError(f"the points network is a {type(module).__name__}, neither PointsLite nor PointEncoder")
        for layer in (module.encoder.linear1, module.pos_embed):
            layer.register_forward_pre_hook(self._cast)

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        tokens: Tensor = self.module(groups[None], centres[None])
        return tokens[0]

    def _cast(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(value.to(self.dtype) for value in inputs)


class AdaptorGraph(Graph):
    """tokens (S, C), and for points counts (S,) -> adapted tokens."""

    def forward(self, tokens: Tensor, counts: Tensor | None = None) -> Tensor:
        more = () if counts is None else (counts.to(self.dtype)[None],)
        adapted: Tensor = self.module(tokens.to(self.dtype)[None], *more)
        return adapted[0]


def graph_of(name: str, modules: Mapping[str, nn.Module], dtype: torch.dtype) -> Graph:
    """A graph's own copy of its module."""
    module = copy.deepcopy(modules[ADAPTORS.get(name, name)])
    if name == "rgb":
        return RgbGraph(module, dtype)
    return PointsGraph(module, dtype) if name == "points" else AdaptorGraph(module, dtype)
