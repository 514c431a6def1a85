"""Networks of the three profiles as ONNX graphs for the tests of this folder: whole, or of fewer layers and tokens."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from asperity.calibration.networks import TorchNetworks, build
from asperity.calibration.networks.point_mae import PointBn, PointEncoder
from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.networks.vit import VisionTransformer
from asperity.calibration.pretraining.stations import cell_network
from asperity.calibration.profiles import PROFILES, Profile
from asperity.export.onnx import export_graphs
from asperity.runtime.manifest import Network
from tests.kept import imported_by, kept

Arrays = dict[str, np.ndarray]


def network(profile: Profile, slots: int) -> Network:
    return msgspec.structs.replace(
        cell_network(), profile=profile.name, image_px=profile.image_px, grid=profile.grid, rgb_grid=profile.rgb_grid,
        rgb_channels=profile.rgb_channels, groups=profile.groups, group_size=profile.group_size,
        points_channels=profile.points_channels, adaptor="lsfa", rgb_slots=profile.rgb_grid**2, points_slots=slots,
    )  # fmt: skip


def calibrated(profile: Profile, *, seeded: bool) -> TorchNetworks:
    """Networks with adaptors; seeded ones with stirred statistics and biases, so that folding is seen to matter."""
    torch.set_num_threads(1)
    networks = build(profile, seeded=seeded)
    networks.set_adaptors(*networks.new_adaptors(seed=3))
    if seeded:
        generator = torch.Generator().manual_seed(5)
        for module in networks.modules.values():
            for name, tensor in module.state_dict().items():
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 2.0, generator=generator)
                elif tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return networks


def inputs_of(given: Network, seed: int = 0) -> dict[str, Arrays]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    points = {
        name: {"tokens": normal(slots, given.points_channels), "counts": rng.integers(1, 90, slots).astype(np.float32)}
        for name, slots in (("adaptor_points", given.points_slots), ("adaptor_points_full", given.grid**2))
    }
    return {
        "rgb": {"image": normal(1, 3, given.image_px, given.image_px)},
        "points": {"groups": normal(given.groups, given.group_size, 3), "centres": normal(given.groups, 3)},
        "adaptor_rgb": {"tokens": normal(given.rgb_slots, given.rgb_channels)},
        **points,
    }


def frozen(given: Network) -> Network:
    return msgspec.structs.replace(given, adaptor="none", rgb_slots=0, points_slots=0)


def reduced(name: str, vit: VisionTransformer, points: nn.Module, slots: int) -> tuple[TorchNetworks, Network]:
    """A profile's layers, but fewer of them and on fewer tokens."""
    profile = PROFILES[name]
    networks = TorchNetworks(profile, vit, points, (), "cpu")
    networks.set_adaptors(*networks.new_adaptors(seed=1))
    rng = np.random.default_rng(0)
    networks.fit_point_statistics([rng.normal(size=(24, 16, 3)).astype(np.float32) for _ in range(2)])
    given = msgspec.structs.replace(
        network(profile, slots), image_px=4 * vit.patch_embed.proj.kernel_size[0], rgb_grid=4, rgb_slots=16, groups=24,
        group_size=16, grid=9,
    )  # fmt: skip
    return networks, given


def reduced_paper(point_bn: PointBn = "station") -> tuple[TorchNetworks, Network]:
    """A ViT, the published mini-PointNet with either statistics, the 768- and 1152-wide adaptors."""
    torch.manual_seed(0)
    vit = VisionTransformer(image_px=32, patch=8, width=768, depth=1, heads=12, layer_scale=False)
    points = PointEncoder(first=(128, 256), second=(512, 384), depth=3, heads=6, taps=(0, 1, 2), point_bn=point_bn)
    return reduced("paper", vit, points, slots=81)


def reduced_edge() -> tuple[TorchNetworks, Network]:
    """`edge` differs from `paper` by DINOv2's LayerScale and 14-pixel patches; its other graphs are `lite`'s, wider."""
    torch.manual_seed(0)
    vit = VisionTransformer(image_px=56, patch=14, width=384, depth=2, heads=6, layer_scale=True)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.1, 2.0)
    small = PointsLite(depth=2, taps=(0, 2))
    return reduced("edge", vit, small, slots=81)


def whole(name: str) -> tuple[TorchNetworks, Network]:
    """A whole profile; `lite` as shipped, the others with seeded weights."""
    profile = PROFILES[name]
    given = network(profile, 448 if name == "lite" else profile.grid**2 // 2 // 64 * 64)
    return calibrated(profile, seeded=name != "lite"), given


def graph_files(name: str, networks: TorchNetworks, given: Network) -> list[Path]:
    """The graphs' files, in the order in which they are exported; made once in a tree (``name`` says of what)."""

    def make(folder: Path) -> None:
        paths = export_graphs(networks, given, folder)
        (folder / "order").write_text(" ".join(path.name for path in paths))

    folder = kept(f"graphs_{name}", make, of=imported_by("tests.export.exported", "tests.quick_exports"))
    return [folder / each for each in (folder / "order").read_text().split()]


def contents(paths: list[Path]) -> dict[str, bytes]:
    """Bytes by name."""
    return {path.stem: path.read_bytes() for path in paths}
