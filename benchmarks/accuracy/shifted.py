"""A shifted set: good parts of a station whose lamp, fixture and sensor have changed since it was calibrated.

    python -m asperity.benchmarks.accuracy.shifted make DATA CACHE        # DATA: the ablation's set (train/good is read)
    python -m asperity.benchmarks.accuracy.shifted run CACHE OUT.json [ROW...]
    python -m asperity.benchmarks.accuracy.shifted table OUT.json

Normal frames as recorded give banks and threshold; the shifted ones are rendered, good, and the same again with one
pseudo-defect each. A row is judged by the good ones it rejects at its calibrated threshold and by the spoiled ones it
finds. Nothing of ``test/`` is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asperity.calibration.features.embedding import embed
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.features.views import VIEWS, make_views
from asperity.calibration.frames.prepare_normals import Normals, prepare_normals
from asperity.calibration.frames.split import split_frames
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.profiles import network_for, profile
from asperity.calibration.record import CalibrateOptions
from asperity.calibration.tuning.pseudo_defects import KINDS, make_pseudo_defect
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.cameras.virtual.sensor import Light, Sensor
from asperity.runtime.cameras.virtual.view import Pose
from asperity.runtime.frame import BoolArray, FloatArray, Prepared
from asperity.runtime.vision.preprocess import prepare

FIRST = 100_000
"""Index of the first shifted frame: parts that no other set of this seed shows."""
FRAMES = 36
"""Good frames of a shift and product; as many again with a pseudo-defect."""
FIT = 20
SELECT = 20
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Shift:
    """What changed at the station."""

    lamp_deg: float = 0.0
    """The lamp stands elsewhere, about the vertical."""
    brightness: float = 1.0
    pose: float = 1.0
    """Turns and shifts of the parts are so many times as large."""
    noise: float = 1.0
    """Likewise the noise of depth and colour."""


SHIFTS = {
    "none": Shift(),
    "light": Shift(lamp_deg=60.0, brightness=0.92),
    "pose": Shift(pose=1.6),
    "noise": Shift(noise=2.0),
    "all": Shift(60.0, 0.92, 1.6, 2.0),
}


class ShiftedCamera(VirtualCamera):
    """The virtual camera of a product after a shift."""

    def __init__(self, product: str, seed: int, shift: Shift) -> None:
        usual = Sensor()
        sensor = replace(
            usual, noise_mm=usual.noise_mm * shift.noise, colour_noise=usual.colour_noise * shift.noise
        )
        super().__init__(product, seed, sensor=sensor)
        self.shift = shift

    def _scene(self, rng: np.random.Generator) -> tuple[Pose, Light]:
        pose, light = super()._scene(rng)
        more = (self.shift.pose - 1) * math.atan2(pose.turn[1, 0], pose.turn[0, 0])
        turned = Pose((_about_z(more) @ pose.turn).astype(np.float32), pose.shift_mm * np.float32(self.shift.pose))
        direction = _about_z(math.radians(self.shift.lamp_deg)) @ light.direction
        return turned, replace(
            light, direction=direction.astype(np.float32), tint=light.tint * np.float32(self.shift.brightness)
        )


def _about_z(angle: float) -> NDArray[np.float64]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Roles:
    """Which normal frame serves what, of one seed. ``select`` chooses settings and judges nothing."""

    fit: list[int]
    tune: list[int]
    calibrate: list[int]
    select: list[int]


def roles(parts: Sequence[str], seed: int, fit: int = FIT) -> Roles:
    """As a calibration splits, but few frames to fit on; what that leaves over selects and calibrates."""
    split = split_frames(parts, seed=seed)
    order = [int(i) for i in np.random.default_rng(seed).permutation(split.fit)]
    left = order[FIT + SELECT :]
    return Roles(sorted(order[:fit]), list(split.tune), sorted([*split.calibrate, *left]), sorted(order[FIT : FIT + SELECT]))


LATTICE_MM, LATTICE_LEVELS, LATTICE_SHARE = 0.4, 24.0, 0.12


def lattice(prepared: Prepared, kind: str, rng: np.random.Generator) -> tuple[Prepared, BoolArray]:
    """A spot of checkers (colour) or of a lattice of ridges (geometry): a family that nothing is selected or tested by.

    The spoiled frame, and its spoiled patches (grid x grid).
    """
    picture = prepared.image if kind == "colour" else prepared.cloud
    side, grid = picture.shape[0], prepared.inspect.shape[0]
    rows, columns = np.nonzero(picture.any(axis=2))
    at = int(rng.integers(len(rows)))
    row, column = np.mgrid[:side, :side]
    inside = np.hypot(row - rows[at], column - columns[at]) < LATTICE_SHARE * side * rng.uniform(0.5, 1.0)
    period = max(2, round(rng.uniform(0.01, 0.04) * side))
    sign = np.where(((row // period) + (column // period)) % 2 == 0, 1.0, -1.0) * inside
    part = picture.any(axis=2)
    share = (inside & part).reshape(grid, side // grid, grid, side // grid).mean(axis=(1, 3))
    strength = rng.uniform(0.5, 1.5)
    if kind == "colour":
        image = np.where(part[:, :, None], picture + LATTICE_LEVELS * strength * sign[:, :, None], 0)
        return replace(prepared, image=np.clip(np.round(image), 0, 255).astype(np.uint8)), share >= 0.5
    depth = np.where(part, picture[:, :, 2], 1.0)
    cloud = picture * (1 + np.where(part, LATTICE_MM * strength * sign / depth, 0.0))[:, :, None]
    return replace(prepared, cloud=cloud.astype(np.float32)), share >= 0.5


def make(data: Path, cache: Path, seed: int) -> None:
    """Embed everything once: CACHE/<product>.npz."""
    chosen = profile("lite")
    networks = build(chosen)
    for folder in sorted(path for path in data.iterdir() if (path / "train").is_dir()):
        path = cache / f"{folder.name}.npz"
        if path.exists():
            continue
        normals = prepare_normals(folder, CalibrateOptions(), chosen, lambda *_: None)
        arrays = dict(_arrays(folder.name, seed, normals, networks))
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
        print(folder.name, flush=True)


def _arrays(product: str, seed: int, normals: Normals, networks: TorchNetworks) -> Iterator[tuple[str, NDArray[np.generic]]]:
    network = network_for(profile("lite"), normals.geometry, "none")
    parts = [item.part_id for item in normals.items]
    yield "parts", np.array(parts)

    def kept(name: str, frames: Sequence[Prepared]) -> Iterator[tuple[str, NDArray[np.generic]]]:
        patches = embed(frames, network, networks, lambda *_: None)
        yield f"{name}.rgb", patches.rgb.astype(np.float16)
        yield f"{name}.points", patches.points.astype(np.float16)
        yield f"{name}.nonempty", patches.nonempty

    def spoiled(frames: Sequence[Prepared], rng: np.random.Generator) -> list[Prepared]:
        return [make_pseudo_defect(one, KINDS[i % 2], rng).prepared for i, one in enumerate(frames)]

    yield from kept("normal", normals.prepared)
    fitted = sorted({i for one in SEEDS for i in roles(parts, one).fit})
    selected = sorted({i for one in SEEDS for i in roles(parts, one).select})
    views = [
        view for i in fitted
        for view in make_views(normals.items[i].frame(seq=i), normals.geometry, network, normals.masks, 0)
    ]  # fmt: skip
    yield "fitted", np.array(fitted)
    yield from kept("views", [view.prepared for view in views])
    yield "views.cells", np.stack([view.cells for view in views])
    lattices = [lattice(normals.prepared[i], kind, np.random.default_rng([i, 9])) for i in fitted for kind in KINDS]
    yield from kept("lattice", [one for one, _ in lattices])
    yield "lattice.defective", np.stack([defective for _, defective in lattices])
    yield "selected", np.array(selected)
    both = [make_pseudo_defect(normals.prepared[i], kind, np.random.default_rng([i, 5])).prepared
            for i in selected for kind in KINDS]  # fmt: skip
    yield from kept("select", both)
    for name, shift in SHIFTS.items():
        camera = ShiftedCamera(product, seed, shift)
        frames = [camera.frame(FIRST + i).frame for i in range(FRAMES)]
        ready = [prepare(frame, normals.geometry, network, normals.masks) for frame in frames]
        yield from kept(f"{name}.good", ready)
        yield from kept(f"{name}.spoiled", spoiled(ready, np.random.default_rng(3)))


def load(path: Path) -> Cached:
    """One product's cache."""
    with np.load(path) as arrays:
        sets = {
            key.removesuffix(".rgb"): PatchSet(
                arrays[key].astype(np.float32), arrays[key[:-3] + "points"].astype(np.float32),
                arrays[key[:-3] + "nonempty"],
            )
            for key in arrays.files if key.endswith(".rgb")
        }  # fmt: skip
        return Cached(
            path.stem, sets, [str(part) for part in arrays["parts"]], arrays["fitted"].tolist(), arrays["views.cells"],
            arrays["lattice.defective"], arrays["selected"].tolist(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cached:
    """A product's frozen patches."""

    name: str
    sets: dict[str, PatchSet]
    parts: list[str]
    fitted: list[int]
    """Frames that ``views`` (VIEWS each) and ``lattice`` (one of each kind) were made from."""
    cells: FloatArray
    defective: BoolArray
    selected: list[int]

    def views(self, frames: Sequence[int]) -> list[int]:
        """Indices into ``views`` of these frames' views, in order."""
        return [self.fitted.index(i) * VIEWS + k for i in frames for k in range(VIEWS)]
