"""A small recipe, and both engines over it: the CPU's, and the CUDA engine on the CPU stand-in with ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
from onnx import helper

from asperity.runtime.bundle.banks import Banks, read_banks
from asperity.runtime.cuda.checks.surface import cpu_heights
from asperity.runtime.cuda.shim.graphs import OnnxGraphs
from asperity.runtime.cuda.shim.streams import ShimFrameDevice
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.cuda import CudaEngine, Settings
from asperity.runtime.frame import MODALITIES, FloatArray, Scores
from asperity.runtime.manifest import (
    Decision,
    Geometry,
    GridDescriptor,
    HeightResidual,
    Modality,
    Network,
    SurfacePicture,
)  # fmt: skip
from asperity.runtime.vision.features import feature_shapes
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.preprocess import Masks
from tests.bundle_factory import model
from tests.synthetic_station import plane_geometry, shoot, small_network

ROWS = 60
SHOT = shoot(radius_mm=26.0)
SHOTS = (SHOT.frame, shoot(3, radius_mm=20.0, centre_mm=(5.0, -3.0)).frame, shoot(4, radius_mm=24.0).frame)


def silent(_stage: str) -> None:
    """Nobody follows the progress."""


def _weights(seed: int, *shape: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _adaptor(rows: int, width: int, seed: int, *, counted: bool) -> bytes:
    """tokens + softmax(tokens W tokens^T [+ log counts]) tokens."""
    nodes = [
        helper.make_node("MatMul", ["tokens", "w"], ["query"]),
        helper.make_node("Transpose", ["tokens"], ["keys"], perm=[1, 0]),
        helper.make_node("MatMul", ["query", "keys"], ["plain"]),
        *([helper.make_node("Log", ["counts"], ["bias"])] if counted else []),
        *([helper.make_node("Add", ["plain", "bias"], ["logits"])] if counted else []),
        helper.make_node("Softmax", ["logits" if counted else "plain"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "tokens"], ["mixed"]),
        helper.make_node("Add", ["tokens", "mixed"], ["adapted"]),
    ]
    inputs = {"tokens": [rows, width], **({"counts": [rows]} if counted else {})}
    return model(nodes, inputs, {"adapted": [rows, width]}, {"w": _weights(seed, width, width) / 8})


def graphs_of(network: Network, spoil: dict[str, float] | None = None) -> dict[str, bytes]:
    """Networks of a few weights; ``spoil`` is added to a network's first output value."""
    cell, tokens = network.image_px // network.rgb_grid, network.rgb_grid**2
    c, d = network.rgb_channels, network.points_channels
    wrong = {name: np.zeros((1, 1), np.float32) for name in ("rgb", "points")}
    for name, value in (spoil or {}).items():
        wrong[name][:] = value
    graphs = {
        "rgb": model(
            [
                helper.make_node("Conv", ["image", "w"], ["cells"], strides=[cell, cell]),
                helper.make_node("Reshape", ["cells", "shape"], ["rows"]),
                helper.make_node("Transpose", ["rows"], ["clean"], perm=[1, 0]),
                helper.make_node("Add", ["clean", "spoil"], ["tokens"]),
            ],
            {"image": [1, 3, network.image_px, network.image_px]},
            {"tokens": [tokens, c]},
            # Each token's own place counts too, as in a real network: tiles that are mixed up show.
            {
                "w": _weights(0, c, 3, cell, cell) / 20,
                "shape": np.array([c, tokens]),
                "spoil": wrong["rgb"] + _weights(4, tokens, c) / 4,
            },
        ),
        "points": model(
            [
                helper.make_node("ReduceMax", ["groups", "axis"], ["widest"], keepdims=0),
                helper.make_node("Concat", ["widest", "centres"], ["both"], axis=1),
                helper.make_node("MatMul", ["both", "w"], ["clean"]),
                helper.make_node("Add", ["clean", "spoil"], ["tokens"]),
            ],
            {"groups": [network.groups, network.group_size, 3], "centres": [network.groups, 3]},
            {"tokens": [network.groups, d]},
            {"w": _weights(1, 6, d), "axis": np.array([1]), "spoil": wrong["points"]},
        ),
    }  # fmt: skip
    if "points" not in network.modalities:
        del graphs["points"]
    if network.adaptor == "lsfa":
        graphs["adaptor_rgb"] = _adaptor(tokens, c, 2, counted=False)
        graphs["adaptor_points"] = _adaptor(network.points_slots, d, 3, counted=True)
        graphs["adaptor_points_full"] = _adaptor(network.grid**2, d, 3, counted=True)
    return graphs


@dataclass
class Station:
    """What both engines are given."""

    network: Network = field(default_factory=lambda: small_network(adaptor="lsfa", points_slots=40, rgb_slots=49))
    geometry: Geometry = field(default_factory=lambda: plane_geometry(SHOT))
    masks: Masks = field(default_factory=Masks)
    spoil: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    projected: dict[str, int] = field(default_factory=dict)
    """Columns of each modality's projection; given, the fusion is by squares."""

    @property
    def decision(self) -> Decision:
        """Constants of no meaning."""
        one = Modality(
            feature_mean=0.1, feature_std=0.7, image_mean=0.0, image_std=1.0, patch_mean=0.2, patch_std=1.1, weight=0.5,
            bank_rows=ROWS,
        )  # fmt: skip
        known = {
            "rgb": one, "points": other_modality(one),
            "geometry": msgspec.structs.replace(one, feature_mean=0.3, patch_mean=0.7),
            "height": msgspec.structs.replace(one, feature_mean=-0.4, feature_std=2.0, patch_mean=0.5),
            "descriptor": msgspec.structs.replace(one, feature_std=0.4, patch_mean=0.3),
        }  # fmt: skip
        both = {name: known[name] for name in self.network.modalities}
        if self.projected:
            both = {n: msgspec.structs.replace(m, weight=1.0, projected=self.projected[n]) for n, m in both.items()}
        return Decision(
            engine="cpu", precision="fp32", **both, fusion="squares" if self.projected else "average", threshold=1.0,
            alpha=0.1, alpha_total=0.1, calibration_scores=(0.0,),
        )  # fmt: skip

    @property
    def banks(self) -> Banks:
        """Random rows, and with local distances what is usual at each."""
        rng = np.random.default_rng(9 + self.seed)
        widths = {name: width for name, (_, width) in feature_shapes(self.network).items()}
        tensors: dict[str, FloatArray] = {
            n: rng.normal(size=(ROWS, self.projected.get(n, w))).astype(np.float32) for n, w in widths.items()
        }
        for name, columns in self.projected.items():
            tensors[f"{name}_projection"] = rng.normal(size=(widths[name], columns)).astype(np.float32)
        if self.network.distances == "local":
            for name in widths:
                usual = [rng.gamma(4, 0.3, ROWS), rng.gamma(4, 0.1, ROWS)]
                tensors[f"{name}_usual"] = np.stack(usual).astype(np.float32)
        return read_banks(tensors, self.decision)

    @property
    def heights(self) -> HeightModel | None:
        """The part as another exposure shows it, a little turned."""
        if self.network.height is None:
            return None
        shot = shoot(7, radius_mm=25.0, centre_mm=(1.0, -0.5))
        heights, present = cpu_heights(shot.frame, self.geometry, self.network.height.width)
        spread = np.random.default_rng(5).uniform(0.05, 0.1, (3, *heights.shape)).astype(np.float32)
        return HeightModel(heights, present, spread)

    @property
    def graphs(self) -> dict[str, bytes]:
        """ONNX by name."""
        return graphs_of(self.network, self.spoil)

    def cpu(self) -> CpuEngine:
        """The reference."""
        return CpuEngine(
            self.geometry, self.network, self.graphs, self.banks, self.masks, threads=1, heights=self.heights
        )

    def cuda(
        self,
        device: ShimFrameDevice,
        settings: Settings | None = None,
        without: str = "",
        graphs: dict[str, bytes] | None = None,
    ) -> CudaEngine:
        """The engine under test. ``without``: leave this network out; ``graphs``: instead of its own."""
        graphs = {name: graph for name, graph in (graphs or self.graphs).items() if name != without}
        return CudaEngine(
            device, OnnxGraphs(graphs, device), self.geometry, self.network, self.decision, self.banks, self.masks,
            settings or Settings(keep_warm_ms=0), self.heights,
        )  # fmt: skip


def other_modality(modality: Modality) -> Modality:
    """Other constants, so that a mix-up shows."""
    values = {name: getattr(modality, name) for name in modality.__struct_fields__}
    return Modality(**{**values, "feature_mean": -0.2, "feature_std": 1.3, "patch_mean": 0.4, "weight": 0.7})


Kind = Literal["published", "local", "plain", "squares", "surface", "fast", "tiles"]


def station(kind: Kind = "published") -> Station:
    """Kinds of recipes: with adaptors and published distances, local ones on two grids, no adaptor; squares and
    projected features, one to fewer columns than channels; with all modalities of the surface, of two widths; published
    distances without points, otherwise as profile ``fast``; pictures seen tile by tile."""
    relief = SurfacePicture("relief", 3, (0.0, 0.0, 0.0), (0.4, 0.4, 0.3))
    histograms = GridDescriptor(3, ((0.05, 0.05, 0.03), (0.05, 0.06, 0.03), (0.05, 0.08, 0.04)))
    two_grids = {"grid": 14, "rgb_grid": 7, "cloud_px": 42, "groups": 24, "distances": "local"}
    changes: dict[Kind, dict[str, object]] = {
        "published": {"adaptor": "lsfa", "points_slots": 40, "rgb_slots": 49},
        "local": {
            **two_grids, "adaptor": "lsfa", "points_slots": 128, "rgb_slots": 49, "pooling": "valid_mean",
        },
        "plain": {"pooling": "published", "cloud_resize": "nearest", "centre_positions": False},
        "squares": {"distances": "local"},
        "surface": {
            **two_grids, "picture": relief, "descriptor": histograms, "height": HeightResidual(5, 64),
            "modalities": MODALITIES,
        },
        "fast": {"picture": relief, "descriptor": histograms, "modalities": ("rgb", "geometry", "descriptor")},
        "tiles": {"tiles": 2, "distances": "local", "picture": relief, "modalities": ("rgb", "points", "geometry")},
    }  # fmt: skip
    projected = {
        "squares": {"rgb": 4, "points": 6},
        "surface": {"rgb": 4, "points": 6, "geometry": 3, "height": 6, "descriptor": 20},
    }
    side_px = 96 if kind in ("published", "local", "plain", "squares") else 64
    return Station(
        small_network(**changes[kind]), plane_geometry(SHOT, side_px=side_px), projected=projected.get(kind, {})
    )


def same(one: Scores, other: Scores) -> bool:
    """Bit for bit."""
    pairs = [(one.modalities[name], other.modalities[name]) for name in one.modalities]
    return np.array_equal(one.scored, other.scored) and all(
        np.array_equal(a.distance_map, b.distance_map) and a.image_distance == b.image_distance for a, b in pairs
    )
