"""A station for quick tests: domed parts on a plane, 64 x 64 pixels, and networks of a few hundred weights."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asperity.calibration import calibrate as calibrate_module
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.profiles import PROFILES, Profile
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.manifest import WeightsOrigin

SIZE_PX, DEPTH_MM = 64, 400.0

TINY = replace(
    PROFILES["lite"], name="tiny", image_px=32, grid=8, rgb_grid=8, rgb_channels=8, rgb_heads=2, rgb_inner=8,
    cloud_px=32, groups=64, group_size=8, points_channels=12, points_heads=2, points_inner=12, rgb_bank_cap=300,
    points_bank_cap=200,
)  # fmt: skip


class TinyRgb(nn.Module):
    """Mean and spread of each cell's colours, mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, TINY.rgb_channels)

    def forward(self, image: Tensor) -> Tensor:
        cell = TINY.image_px // TINY.rgb_grid
        cells = nn.functional.unfold(image, cell, stride=cell).reshape(len(image), 3, cell * cell, -1)
        return torch.tanh(self.mix(torch.cat([cells.mean(2), cells.std(2)], 1).transpose(1, 2)))


class TinyPoints(nn.Module):
    """Mean and extent of each group, mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(9, TINY.points_channels)

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        return torch.tanh(self.mix(torch.cat([groups.mean(2), groups.std(2), 0.1 * centres], 2)))


def build_tiny(chosen: Profile, *, seed: int = 0, device: str = "cpu", **_: object) -> TorchNetworks:
    """In place of ``calibration.networks.torch_networks.build``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        origins = (
            WeightsOrigin("tiny_rgb", f"random, seed {seed}", "", "", True),
            WeightsOrigin("tiny_points", "handmade", "00", "CC0"),
        )
        return TorchNetworks(chosen, TinyRgb(), TinyPoints(), origins, device)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny_profile() -> Iterator[Profile]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", TINY)
        patch.setattr(calibrate_module, "build", build_tiny)
        yield TINY


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the rest of a tiny calibration."""
    monkeypatch.setattr(calibrate_module, "write_report", lambda outcome, record, folder: None)


def part(seed: int, *, bump_mm: float = 0.0, height_mm: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """(rgb, xyz in metres) of one part: a dome of 36 x 28 mm at a random place, 1 mm a pixel."""
    rng = np.random.default_rng([7, seed])
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float64)
    row0, column0 = SIZE_PX / 2 + rng.uniform(-4, 4, 2)
    a, b = (columns - column0) / 18, (rows - row0) / 14
    inside = np.maximum(np.abs(a), np.abs(b)) < 1
    rise = np.where(inside, height_mm + 1.5 * (1 - a**2 - b**2), 0.0)
    rise += bump_mm * np.exp(-((columns - column0 - 5) ** 2 + (rows - row0) ** 2) / 8) * inside
    z = DEPTH_MM - rise + rng.normal(scale=0.03, size=rise.shape)
    xyz = np.stack([columns - SIZE_PX / 2, rows - SIZE_PX / 2, z], axis=2) / 1000
    grain = 12 * np.sin(columns / 2.5) + rng.normal(scale=5, size=rise.shape)
    rgb = np.where(inside[..., None], 130 + grain[..., None] + rng.uniform(-8, 8, 3), 40)
    return np.clip(rgb, 0, 255).astype(np.uint8), xyz.astype(np.float32)


def write_source(
    folder: Path, count: int = 40, *, spoil: dict[int, Callable[[], tuple[np.ndarray, np.ndarray]]] | None = None,
    parts: bool = False,
) -> Path:  # fmt: skip
    """``folder/train/good`` with ``count`` frames; ``spoil`` puts others in their places; ``parts``: ``parts.csv``."""
    for index in range(count):
        rgb, xyz = (spoil or {}).get(index, lambda index=index: part(index))()
        write_frame(folder / "train" / "good", f"{index:03d}", rgb, xyz)
    if parts:
        with (folder / "parts.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["name", "part_id"])
            rows.writerows([f"train/good/{index:03d}", f"p{index}"] for index in range(count))
    return folder
