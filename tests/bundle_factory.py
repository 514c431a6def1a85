"""Small bundles for tests: real ONNX graphs of a few hundred weights, real hashes, a real signature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.manifest import (
    FORMAT,
    Decision,
    File,
    Geometry,
    GoldenFrame,
    Manifest,
    Modality,
    Network,
    Plane,
    SilhouetteRange,
    WeightsOrigin,
)
from asperity.runtime.reasons import Reason
from asperity.runtime.security.signing_keys import SigningKey, TrustStore

HEIGHT_PX, WIDTH_PX = 24, 30
IMAGE_PX, GRID, RGB_CHANNELS = 32, 4, 8
CLOUD_PX, GROUPS, GROUP_SIZE, POINTS_CHANNELS, SLOTS = 16, 8, 4, 12, 8
SCORES = tuple(float(v) for v in np.linspace(-1.0, 1.0, 9))
THRESHOLD = 0.75


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
    weights: dict[str, NDArray[Any]],
) -> bytes:
    """An ONNX model of opset 18 whose float weights are those given."""
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def toy_graphs(adaptor: Literal["none", "lsfa"], seed: int = 0) -> dict[str, bytes]:
    """Graphs of the toy network by name: a strided convolution, a max over points, one linear map for each adaptor."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    cell = IMAGE_PX // GRID
    graphs = {
        "rgb": model(
            [
                helper.make_node("Conv", ["image", "kernel"], ["map"], strides=[cell, cell]),
                helper.make_node("Transpose", ["map"], ["last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", ["last", "shape"], ["tokens"]),
            ],
            {"image": [1, 3, IMAGE_PX, IMAGE_PX]},
            {"tokens": [GRID * GRID, RGB_CHANNELS]},
            {"kernel": weight(RGB_CHANNELS, 3, cell, cell), "shape": np.array([GRID * GRID, RGB_CHANNELS])},
        ),
        "points": model(
            [
                helper.make_node("MatMul", ["groups", "w_groups"], ["local"]),
                helper.make_node("ReduceMax", ["local", "axis"], ["pooled"], keepdims=0),
                helper.make_node("MatMul", ["centres", "w_centres"], ["place"]),
                helper.make_node("Add", ["pooled", "place"], ["tokens"]),
            ],
            {"groups": [GROUPS, GROUP_SIZE, 3], "centres": [GROUPS, 3]},
            {"tokens": [GROUPS, POINTS_CHANNELS]},
            {"w_groups": weight(3, POINTS_CHANNELS), "w_centres": weight(3, POINTS_CHANNELS), "axis": np.array([1])},
        ),
    }
    if adaptor == "lsfa":
        rgb = [GRID * GRID, RGB_CHANNELS]
        graphs["adaptor_rgb"] = model(
            [helper.make_node("MatMul", ["tokens", "w"], ["adapted"])],
            {"tokens": rgb},
            {"adapted": rgb},
            {"w": weight(RGB_CHANNELS, RGB_CHANNELS)},
        )
        mixing = weight(POINTS_CHANNELS, POINTS_CHANNELS)
        for name, slots in (("adaptor_points", SLOTS), ("adaptor_points_full", GRID * GRID)):
            graphs[name] = model(
                [
                    helper.make_node("MatMul", ["tokens", "w"], ["mapped"]),
                    helper.make_node("Unsqueeze", ["counts", "axis"], ["column"]),
                    helper.make_node("Add", ["mapped", "column"], ["adapted"]),
                ],
                {"tokens": [slots, POINTS_CHANNELS], "counts": [slots]},
                {"adapted": [slots, POINTS_CHANNELS]},
                {"w": mixing, "axis": np.array([1])},
            )
    return graphs


def zeroed(graph: bytes) -> bytes:
    """The same graph with every float weight zero."""
    made = onnx.load_from_string(graph)
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))
    return bytes(made.SerializeToString())


def toy_manifest(adaptor: Literal["none", "lsfa"]) -> Manifest:
    """A manifest that is right in itself; ``files`` is filled in by ``seal``."""

    def modality(rows: int) -> Modality:
        return Modality(
            feature_mean=0.1, feature_std=0.9, image_mean=2.0, image_std=0.5, patch_mean=1.0, patch_std=0.4,
            weight=0.5, bank_rows=rows,
        )  # fmt: skip

    def golden(name: str, kind: Any, score: float) -> GoldenFrame:
        ng = score > THRESHOLD
        return GoldenFrame(
            name=name, kind=kind, verdict="ng" if ng else "ok",
            reason=int(Reason.SCORE_ABOVE_THRESHOLD if ng else Reason.GOOD), score=score,
            image_distances={"rgb": 2.0, "points": 2.0},
        )  # fmt: skip

    return Manifest(
        format=FORMAT, asperity="0.0.test", recipe="toy", created_us=1_700_000_000_000_000,
        geometry=Geometry(
            method="plane", why="toy", unit="mm", height_px=HEIGHT_PX, width_px=WIDTH_PX,
            plane=Plane(normal=(0.0, 0.0, -1.0), offset_mm=100.0), plane_cut_mm=1.0, point_spacing_mm=1.0,
            plane_noise_mm=0.1, cluster_gap_px=2, side_px=20, mm_per_px=1.0, min_points=64, moved_share=0.5,
            moved_mm=2.0,
        ),
        network=Network(
            profile="toy", image_px=IMAGE_PX, grid=GRID, rgb_grid=GRID, rgb_channels=RGB_CHANNELS,
            rgb_mean=(0.5, 0.5, 0.5), rgb_std=(0.2, 0.2, 0.2), cloud_px=CLOUD_PX, cloud_resize="mean", groups=GROUPS,
            group_size=GROUP_SIZE, points_channels=POINTS_CHANNELS, group_scale_mm=4.0, position_scale_mm=10.0,
            centre_positions=True, pooling="valid_mean", adaptor=adaptor,
            rgb_slots=GRID * GRID if adaptor == "lsfa" else 0, points_slots=SLOTS if adaptor == "lsfa" else 0,
        ),
        weights=(WeightsOrigin(network="rgb", source="toy", sha256="0" * 64, licence="none", seeded=True),),
        decision=Decision(
            engine="cpu", precision="fp32", rgb=modality(20), points=modality(15), fusion="average",
            threshold=THRESHOLD, alpha=0.1, alpha_total=0.2, calibration_scores=SCORES,
        ),
        silhouette=(
            SilhouetteRange("area_mm2", 60.0, 600.0), SilhouetteRange("length_mm", 4.0, 40.0),
            SilhouetteRange("width_mm", 4.0, 40.0), SilhouetteRange("height_mm", 0.0, 20.0),
            SilhouetteRange("missing_share", 0.0, 0.5),
        ),
        golden=(
            golden("normal_0", "normal", -0.4), golden("normal_1", "normal", 0.1), golden("near", "near", 0.6),
            golden("geometry", "spoiled_geometry", 1.5), golden("colour", "spoiled_colour", 1.6),
        ),
        golden_tolerance=0.05, normal_frames={"fit": 20, "tune": 4, "calibrate": len(SCORES)}, frame_p99_ms=12.0,
        files=(),
    )  # fmt: skip


@dataclass(frozen=True)
class ToyBundle:
    """A toy bundle on disk with the key that signs it and a store that trusts that key."""

    path: Path
    key: SigningKey
    trust: TrustStore

    def manifest(self) -> dict[str, Any]:
        """``manifest.json`` as plain JSON values."""
        return dict(msgspec.json.decode((self.path / "manifest.json").read_bytes()))

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the manifest's values, hash the files again and sign."""
        values = self.manifest()
        change(values)
        seal(self.path, values, self.key)

    def reseal(self) -> None:
        """Hash the files as they are now and sign: what somebody with the key could do."""
        self.edit(lambda _: None)


def seal(path: Path, manifest: dict[str, Any], key: SigningKey) -> None:
    """List and hash the folder's files into the manifest, write it and sign it."""
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name not in ("manifest.json", "signature")]
    manifest["files"] = [
        msgspec.to_builtins(
            File(
                path=p.relative_to(path).as_posix(),
                nbytes=p.stat().st_size,
                sha256=hashlib.sha256(p.read_bytes()).hexdigest(),
            )
        )
        for p in files
    ]
    data = msgspec.json.encode(manifest)
    (path / "manifest.json").write_bytes(data)
    (path / "signature").write_bytes(key.sign(data))


def toy_frame(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A block 10 mm high on a plane at 100 mm, with some texture."""
    rows, columns = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    part = (abs(rows - HEIGHT_PX / 2) < 7) & (abs(columns - WIDTH_PX / 2) < 8)
    z = np.where(part, 90.0, 100.0) + rng.normal(0, 0.05, part.shape)
    xyz = np.stack([columns - WIDTH_PX / 2, rows - HEIGHT_PX / 2, z], axis=-1).astype(np.float32)
    rgb = np.where(part[..., None], 160, 60) + rng.integers(-20, 20, (*part.shape, 3))
    return rgb.astype(np.uint8), xyz


def write_toy_bundle(path: Path, trust: TrustStore, adaptor: Literal["none", "lsfa"] = "none") -> ToyBundle:
    """A toy bundle that passes everything ``open_bundle`` checks. Its golden scores are invented: no gate passes it."""
    key = trust.key_for_signing()
    manifest = toy_manifest(adaptor)
    rng = np.random.default_rng(1)
    path.mkdir(parents=True)
    for name, graph in toy_graphs(adaptor).items():
        (path / f"{name}.onnx").write_bytes(graph)
    save_file(
        {
            "rgb": rng.normal(size=(20, RGB_CHANNELS)).astype(np.float32),
            "points": rng.normal(size=(15, POINTS_CHANNELS)).astype(np.float32),
        },
        path / "banks.safetensors",
    )
    n = len(SCORES)
    save_file(
        {
            "image": rng.integers(0, 255, (n, IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8),
            "cloud": rng.normal(50, 5, (n, CLOUD_PX, CLOUD_PX, 3)).astype(np.float32),
            "inspect": np.ones((n, GRID, GRID), bool),
            "scores": rng.permutation(np.array(SCORES, np.float32)),
        },
        path / "calibration_inputs.safetensors",
    )
    for golden in manifest.golden:
        write_frame(path / "golden", golden.name, *toy_frame(rng))
    seal(path, dict(msgspec.to_builtins(manifest)), key)
    return ToyBundle(path=path, key=key, trust=trust)
