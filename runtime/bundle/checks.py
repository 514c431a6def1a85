"""Checks of a bundle's files: a consistent manifest, graphs, banks and calibration inputs.

Pure: bytes and arrays in, BundleError out. A message names the field or file, what was found, and what was expected.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.bundle.banks import bank_shapes, projection_fault, usual_fault
from asperity.runtime.bundle.ceilings import check_ceilings
from asperity.runtime.bundle.onnx_graphs import MAX_GRAPH_VALUES, MAX_TENSOR_VALUES, read_graph, with_outputs
from asperity.runtime.bundle.sizes import geometry_fault
from asperity.runtime.bundle.surfaces import HEIGHTS_FILE, check_surface, height_fault, height_shapes, input_shapes
from asperity.runtime.errors import BundleError, first_line
from asperity.runtime.frame import MODALITIES
from asperity.runtime.manifest import (
    LATEST_US,
    LEVEL_FIGURE,
    SILHOUETTE_FIGURES,
    Decision,
    Geometry,
    Manifest,
    Modality,
    Network,
    weights_fault,
)
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.nearest import LARGEST, bounded
from asperity.runtime.vision.tiles import tiles_fault

BANKS_FILE = "banks.safetensors"
INPUTS_FILE = "calibration_inputs.safetensors"
FROZEN_GRAPHS = ("rgb", "points")
"""Of these the point encoder's only where its tokens are judged."""
ADAPTOR_GRAPHS = ("adaptor_rgb", "adaptor_points")
FULL_GRAPH = "adaptor_points_full"
"""The points adaptor with grid^2 slots, for frames of more non-empty patches than ``points_slots`` (lsfa 11)."""
MIN_GOLDEN = {"normal": 2, "near": 1, "spoiled_geometry": 1, "spoiled_colour": 1}
MIN_GOLDEN_TIMING = {"normal": 2, "near": 1}
"""In a bundle for timing only nothing was seen of a spoiled frame."""
GOLDEN_REASONS = {"ok": Reason.GOOD, "ng": Reason.SCORE_ABOVE_THRESHOLD, "unknown": Reason.TIMING_ONLY}
"""What a golden frame's verdict rests on: it is judged by its score, or not at all."""
LARGE_WEIGHT = 32
"""Weights of fewer elements may be constant (a scale of one, a bias of zero) and prove nothing."""
RECIPE_NAME = re.compile(r"[a-z0-9_-]{1,32}")
"""Recipe names travel in topics and in ``station.toml``."""
EXPORT_AGAIN = "export the bundle again"
MAX_GRAPH_NBYTES = 2**31 - 1
"""Protobuf holds no more; the largest network of a profile has 343 MB."""
HEADS_NBYTES = 2**20
"""Room in a file for what surrounds its pixels or tensors."""

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def graph_names(network: Network) -> tuple[str, ...]:
    """The ONNX graphs of a bundle, without ``.onnx``: the adaptors only where there are any."""
    frozen = tuple(name for name in FROZEN_GRAPHS if name in network.modalities)
    if network.adaptor == "none":
        return frozen
    return frozen + ADAPTOR_GRAPHS + ((FULL_GRAPH,) if network.points_slots < network.grid**2 else ())


def file_limits(manifest: Manifest) -> dict[str, int]:
    """Every path that the manifest must list and no other, with the most bytes that such a file can have."""
    geometry, network = manifest.geometry, manifest.network
    pixels = geometry.height_px * geometry.width_px
    limits = {f"{name}.onnx": MAX_GRAPH_NBYTES for name in graph_names(network)}
    limits[BANKS_FILE] = HEADS_NBYTES + 4 * sum(map(math.prod, bank_shapes(network, manifest.decision).values()))
    if shapes := height_shapes(network):
        limits[HEIGHTS_FILE] = HEADS_NBYTES + _nbytes(shapes)
    frame = _nbytes(input_shapes(network))
    limits[INPUTS_FILE] = HEADS_NBYTES + frame * len(manifest.decision.calibration_scores)
    for golden in manifest.golden:
        limits[f"golden/rgb/{golden.name}.png"] = HEADS_NBYTES + 4 * pixels
        limits[f"golden/xyz/{golden.name}.tiff"] = HEADS_NBYTES + 12 * pixels
    masks = (geometry.inspect_mask, geometry.ignore_mask)
    return limits | {name: HEADS_NBYTES + 2 * pixels for name in masks if name is not None}


def _nbytes(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    return sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in shapes.values())


def check_manifest(manifest: Manifest) -> None:
    """Values that types cannot rule out. Raises BundleError naming the field."""
    if not RECIPE_NAME.fullmatch(manifest.recipe):
        raise BundleError(f"field recipe is {manifest.recipe!r}, not 1 to 32 characters from a-z 0-9 _ -")
    if not 0 < manifest.created_us < LATEST_US:
        raise BundleError(
            f"field created_us is {manifest.created_us}, which is not a valid time (microseconds since 1970)"
        )
    _check_network(manifest.network)
    _check_geometry(manifest.geometry, manifest.network)
    check_surface(manifest.network, manifest.geometry)
    _check_decision(manifest.decision)
    _check_modalities(manifest)
    _check_golden(manifest)
    _positive("golden_tolerance", manifest.golden_tolerance)
    _positive("frame_p99_ms", manifest.frame_p99_ms)
    for figure in manifest.silhouette:
        if figure.figure not in (*SILHOUETTE_FIGURES, LEVEL_FIGURE):
            raise BundleError(f"names an unknown silhouette figure {figure.figure!r}")
        if not (math.isfinite(figure.low) and math.isfinite(figure.high) and figure.low <= figure.high):
            raise BundleError(f"has an empty range for silhouette figure {figure.figure}: {figure.low}..{figure.high}")
    check_ceilings(manifest)


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise BundleError(f"field {name} is {value}, not a finite number above 0")


def _check_network(network: Network) -> None:
    names: tuple[str, ...] = (
        "image_px", "grid", "rgb_grid", "rgb_channels", "cloud_px", "groups", "group_size", "points_channels"
    )  # fmt: skip
    if network.adaptor == "lsfa":
        names += ("rgb_slots", "points_slots")
    for name in (*names, "group_scale_mm", "position_scale_mm"):
        _positive(f"network.{name}", getattr(network, name))
    for name in ("rgb_mean", "rgb_std"):
        for value in getattr(network, name):
            _positive(f"network.{name}", value)
    if fault := tiles_fault(network):
        raise BundleError(f"has {fault}")


def _check_geometry(geometry: Geometry, network: Network) -> None:
    for name in ("height_px", "width_px", "side_px", "mm_per_px", "min_points"):
        _positive(f"geometry.{name}", getattr(geometry, name))
    if fault := geometry_fault(geometry, network):
        raise BundleError(f"has {fault}")
    for point in geometry.invalid or ():
        if all(number is None for number in point) or not all(math.isfinite(number or 0.0) for number in point):
            raise BundleError(f"field geometry.invalid holds {point}, by which no point of a frame can be recognised")
    if (geometry.method == "plane") != (geometry.plane is not None):
        raise BundleError(f"has geometry.method {geometry.method!r} and a plane of {geometry.plane}")
    if geometry.plane is not None:
        length = math.hypot(*geometry.plane.normal)
        if not abs(length - 1.0) < 1e-3 or not math.isfinite(geometry.plane.offset_mm):
            raise BundleError(f"field geometry.plane has a normal of length {length}, not 1, or no finite offset")


def _check_modality(name: str, modality: Modality) -> None:
    for field in ("feature_std", "image_std", "patch_std", "bank_rows"):
        _positive(f"decision.{name}.{field}", getattr(modality, field))
    if modality.projected < 0:
        raise BundleError(f"field decision.{name}.projected is {modality.projected}, below 0")
    for field in ("feature_mean", "image_mean", "patch_mean"):
        value = getattr(modality, field)
        if not math.isfinite(value):
            raise BundleError(f"field decision.{name}.{field} is {value}, not a finite number")


def _check_decision(decision: Decision) -> None:
    for name, modality in decision.modalities().items():
        _check_modality(name, modality)
    if fault := weights_fault(decision):
        raise BundleError(f"field {fault}")
    scores = decision.calibration_scores
    if not scores or any(later < earlier for earlier, later in pairwise(scores)):
        raise BundleError("field decision.calibration_scores is empty or not ascending")
    if not math.isfinite(decision.threshold) or not scores[0] <= decision.threshold <= scores[-1]:
        raise BundleError(
            f"field decision.threshold is {decision.threshold}, outside the calibration frames' scores "
            f"{scores[0]}..{scores[-1]}"
        )
    for field, value in (("alpha", decision.alpha), ("alpha_total", decision.alpha_total)):
        if not 0 < value < 1 and (field, value) != ("alpha_total", 1):  # of which nothing is known
            raise BundleError(f"field decision.{field} is {value}, not a rate between 0 and 1")


def _check_modalities(manifest: Manifest) -> None:
    """Colour and at least one modality of shape, in their order, and as many decisions."""
    names = manifest.network.modalities
    if names != tuple(name for name in MODALITIES if name in names) or "rgb" not in names or len(names) < 2:
        raise BundleError(
            f"field network.modalities is {', '.join(names) or 'empty'}; it names rgb and one or more of "
            f"{', '.join(MODALITIES[1:])}, in this order"
        )
    if manifest.network.adaptor != "none" and "points" not in names:
        raise BundleError("field network.modalities is without points, whose adaptor is trained with that of rgb")
    if (decided := tuple(manifest.decision.modalities())) != names:
        raise BundleError(
            f"field decision has constants of {', '.join(decided) or 'no modality'}, and network.modalities is "
            f"{', '.join(names)}"
        )


def _check_golden(manifest: Manifest) -> None:
    """The kinds that a gate needs, each with the verdict that its kind implies (architecture, "Bundle")."""
    kinds = [golden.kind for golden in manifest.golden]
    timing_only = manifest.decision.timing_only
    for kind, least in (MIN_GOLDEN_TIMING if timing_only else MIN_GOLDEN).items():
        if kinds.count(kind) < least:  # type: ignore[arg-type]
            raise BundleError(f"has {kinds.count(kind)} golden frames of kind {kind}; {least} are needed")  # type: ignore[arg-type]
    if len({golden.name for golden in manifest.golden}) != len(kinds):
        raise BundleError("names a golden frame twice")
    threshold = manifest.decision.threshold
    for golden in manifest.golden:
        told = f"golden frame {golden.name} ({golden.kind}) with verdict {golden.verdict}, score {golden.score}"
        distances = golden.distances()
        if not all(math.isfinite(value) for value in (golden.score, *distances.values())):
            raise BundleError(f"has {told}: not finite")
        if distances.keys() != manifest.decision.modalities().keys():
            raise BundleError(f"has {told} and distances of {', '.join(distances) or 'no modality'}")
        if (golden.verdict == "unknown") != timing_only:
            raise BundleError(f"has {told}: unknown is for bundles for timing only, which may contain nothing else")
        if not timing_only and (golden.verdict == "ng") != (golden.score > threshold):
            raise BundleError(f"has {told}, which its threshold {threshold} contradicts")
        if golden.reason != GOLDEN_REASONS[golden.verdict]:
            raise BundleError(f"has {told} and reason {golden.reason}: a golden frame is judged by its score")
        if golden.kind == "normal" and golden.verdict == "ng":
            raise BundleError(f"has {told}: a normal one must be ok")
        if golden.kind.startswith("spoiled") and golden.verdict != "ng":
            raise BundleError(f"has {told}: a spoiled one must be ng")


def load_tensors(data: bytes, name: str) -> dict[str, Array]:
    """Arrays of a safetensors file. Raises BundleError when it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"bundle file {name} is not a safetensors file ({error}); {EXPORT_AGAIN}") from None


def _require(tensors: Tensors, file: str, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Exactly these tensors, each of this dtype and shape."""
    if tensors.keys() != shapes.keys():
        raise BundleError(f"bundle file {file} holds {sorted(tensors)}, not {sorted(shapes)}; {EXPORT_AGAIN}")
    for name, (dtype, shape) in shapes.items():
        found = tensors[name]
        if found.dtype != np.dtype(dtype) or found.shape != shape:
            raise BundleError(
                f"bundle file {file}: tensor {name} is {found.dtype} {found.shape}, not {dtype} {shape}; {EXPORT_AGAIN}"
            )


def check_banks(tensors: Tensors, manifest: Manifest) -> None:
    """Banks of the manifest's rows and channels, finite and not constant. Raises BundleError."""
    shapes = bank_shapes(manifest.network, manifest.decision)
    _require(tensors, BANKS_FILE, {name: ("float32", shape) for name, shape in shapes.items()})
    for name, bank in tensors.items():
        check = _rows_fault if name in MODALITIES else projection_fault if name.endswith("_projection") else usual_fault
        if fault := check(bank):
            raise BundleError(f"bundle file {BANKS_FILE}: bank {name} {fault}; {EXPORT_AGAIN}")


def check_heights(tensors: Tensors, manifest: Manifest) -> None:
    """The mean part on the window's grid, finite, with a spread everywhere. Raises BundleError."""
    _require(tensors, HEIGHTS_FILE, height_shapes(manifest.network))
    if fault := height_fault(tensors):
        raise BundleError(f"bundle file {HEIGHTS_FILE} {fault}; {EXPORT_AGAIN}")


def check_inputs(tensors: Tensors, manifest: Manifest) -> None:
    """Model inputs of as many frames as set the threshold. Raises BundleError."""
    network, n = manifest.network, len(manifest.decision.calibration_scores)
    shapes = {name: (dtype, (n, *shape)) for name, (dtype, shape) in input_shapes(network).items()}
    _require(tensors, INPUTS_FILE, shapes)
    for name in tensors:
        if not np.isfinite(tensors[name]).all():
            raise BundleError(f"bundle file {INPUTS_FILE}: tensor {name} is not finite; {EXPORT_AGAIN}")


def _rows_fault(rows: Array) -> str:
    """Why a bank's rows cannot be searched for what is anomalous; empty when they can."""
    return _fault(rows) if bounded(rows) else f"holds numbers that are not finite or beyond {LARGEST:g}"


def _fault(values: Array) -> str:
    """What makes these weights useless; empty when nothing does."""
    if not np.isfinite(values).all():
        return "holds numbers that are not finite"
    if values.size and values.min() == values.max():
        return f"holds nothing but {values.flat[0]}"
    return ""


def graph_signature(name: str, network: Network) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names and shapes of a graph's inputs and outputs (all float32)."""
    rgb_tokens = (network.rgb_slots, network.rgb_channels)
    points_tokens = (network.grid**2 if name == FULL_GRAPH else network.points_slots, network.points_channels)
    signatures: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]] = {
        "rgb": (
            {"image": (1, 3, network.image_px, network.image_px)},
            {"tokens": (network.rgb_grid**2, network.rgb_channels)},
        ),
        "points": (
            {"groups": (network.groups, network.group_size, 3), "centres": (network.groups, 3)},
            {"tokens": (network.groups, network.points_channels)},
        ),
        "adaptor_rgb": ({"tokens": rgb_tokens}, {"adapted": rgb_tokens}),
        "adaptor_points": ({"tokens": points_tokens, "counts": points_tokens[:1]}, {"adapted": points_tokens}),
    }
    return signatures["adaptor_points" if name == FULL_GRAPH else name]


def check_same_weights(adaptor: bytes, full: bytes) -> None:
    """The two sizes of the points adaptor hold the same numbers. Raises BundleError.

    Golden frames rarely fill the larger one, so the gate does not try it.
    """
    both = [sorted(hashlib.sha256(w.values.data).digest() for w in read_graph(g).weights) for g in (adaptor, full)]
    if both[0] != both[1]:
        raise BundleError(
            f"bundle file {FULL_GRAPH}.onnx holds other weights than adaptor_points.onnx; they must be one adaptor in "
            f"two sizes: {EXPORT_AGAIN}"
        )


def check_graph(data: bytes, name: str, network: Network) -> None:
    """An ONNX graph as ``export`` writes one, of exactly the manifest's inputs and outputs. Raises BundleError.

    Its weights are finite and not all constant, and what it computes has sizes within bounds.
    """
    file = f"bundle file {name}.onnx"
    try:
        graph = read_graph(data)
    except BundleError as error:
        raise BundleError(f"{file} {error}; {EXPORT_AGAIN}") from None
    weights = [(weight.name, weight.values.size, _fault(weight.values)) for weight in graph.weights]
    for weight, _, fault in weights:
        if "finite" in fault:
            raise BundleError(f"{file}: weight {weight!r} {fault}; {EXPORT_AGAIN}")
    large = [fault for _, size, fault in weights if size >= LARGE_WEIGHT]
    if not large or all(large):
        raise BundleError(
            f"{file} holds only zeros or constants as weights, so it cannot detect anything; {EXPORT_AGAIN}"
        )

    inputs, outputs = graph_signature(name, network)
    inner = [tensor for tensor in graph.tensors if tensor and tensor not in outputs]
    session = _session(with_outputs(data, inner), file)
    found = session.get_outputs()
    for kind, wanted, nodes in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, [node for node in found if node.name not in inner]),
    ):
        seen = {node.name: (node.type, tuple(node.shape)) for node in nodes}
        if seen != {key: ("tensor(float)", shape) for key, shape in wanted.items()}:
            told = ", ".join(f"{key} {kind} {shape}" for key, (kind, shape) in seen.items())
            raise BundleError(
                f"{file} has {kind}s {told}; the manifest's network needs "
                f"{', '.join(f'{key} {shape}' for key, shape in wanted.items())}; {EXPORT_AGAIN}"
            )
    total: float = 0
    for node in found:
        size = math.prod(node.shape) if all(isinstance(side, int) for side in node.shape) else math.inf
        total += size
        if size > MAX_TENSOR_VALUES or total > MAX_GRAPH_VALUES:
            raise BundleError(
                f"{file} computes tensor {node.name!r} of shape {node.shape}; a bundle's graph computes at most "
                f"{MAX_TENSOR_VALUES} values in one tensor and {MAX_GRAPH_VALUES} in total; {EXPORT_AGAIN}"
            )


def _session(model: bytes, file: str) -> Any:
    """An ONNX Runtime session that is only asked for names and shapes: nothing is optimised, so nothing is computed."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (ort.Fail, ort.InvalidProtobuf, ort.InvalidGraph, ort.InvalidArgument, ort.NotImplemented, ort.NoSuchFile,
            ort.RuntimeException, RuntimeError, ValueError) as error:  # fmt: skip
        raise BundleError(f"{file} does not load ({first_line(error)}); {EXPORT_AGAIN}") from None
