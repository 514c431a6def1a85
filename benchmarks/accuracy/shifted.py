"""A shifted set: good parts of a station whose lamp, fixture and sensor have changed since it was calibrated.

    python -m asperity.benchmarks.accuracy.shifted_rows make CACHE DATA   # of the ablation's set: train/good
    python -m asperity.benchmarks.accuracy.shifted_rows run CACHE OUT.json [ROW...]
    python -m asperity.benchmarks.accuracy.shifted_rows table CACHE OUT.json

Normal frames as recorded give banks and threshold; the shifted ones are rendered, good, and the same again with one
pseudo-defect each. A row is judged by the good ones it rejects at its calibrated threshold and by the spoiled ones it
finds. Nothing of ``test/`` is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from asperity.calibration.features.embedding import embed
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.features.views import VIEWS, make_views
from asperity.calibration.frames.prepare_normals import Normals, prepare_normals
from asperity.calibration.networks.torch_networks import build
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import network_for, profile
from asperity.calibration.tuning.pseudo_defects import KINDS, make_pseudo_defect
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.cameras.virtual.sensor import Light, Sensor
from asperity.runtime.cameras.virtual.view import Pose
from asperity.runtime.frame import FloatArray, ModalityName, Prepared
from asperity.runtime.vision.preprocess import prepare

FIRST = 100_000
"""Index of the first shifted frame: parts that no other set of this seed shows."""
FRAMES = 24
"""Good frames of a shift and product; as many again with a pseudo-defect."""
NORMALS, SELECT, POOL, FIT, TUNE = 100, 20, 24, 20, 10
"""Normal frames of a product; those that select; those to draw FIT fit frames from; those that standardise."""


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
    "half": Shift(30.0, 0.96, 1.3, 1.4),
    "all": Shift(60.0, 0.92, 1.6, 2.0),
}


class ShiftedCamera(VirtualCamera):
    """The virtual camera of a product after a shift."""

    def __init__(self, product: str, seed: int, shift: Shift) -> None:
        usual = Sensor()
        sensor = replace(usual, noise_mm=usual.noise_mm * shift.noise, colour_noise=usual.colour_noise * shift.noise)
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


def roles(seed: int, fit: int = FIT) -> Roles:
    """Frames to select by are the same for all seeds, those to fit on are drawn from a pool of few: views cost time."""
    order = [int(i) for i in np.random.default_rng(11).permutation(NORMALS)]
    select, pool, others = order[:SELECT], order[SELECT : SELECT + POOL], order[SELECT + POOL :]
    rng = np.random.default_rng(seed)
    pool, others = [int(i) for i in rng.permutation(pool)], [int(i) for i in rng.permutation(others)]
    return Roles(pool[:fit], others[:TUNE], others[TUNE:], select)


def make(data: Path, cache: Path, seed: int) -> None:
    """Embed everything once: CACHE/<product>/<set>.npz; what is there stays."""
    chosen = profile("lite")
    networks = build(chosen)
    for folder in sorted(path for path in data.iterdir() if (path / "train").is_dir()):
        normals = prepare_normals(folder, CalibrateOptions(), chosen, lambda *_: None)
        network = network_for(chosen, normals.geometry, "none")
        for name, frames in _sets(folder.name, seed, normals):
            path = cache / folder.name / f"{name}.npz"
            if path.exists():
                continue
            patches = embed(frames(), network, networks, lambda *_: None)
            path.parent.mkdir(parents=True, exist_ok=True)
            features: dict[str, Any] = {key: values.astype(np.float16) for key, values in patches.features.items()}
            np.savez(path.with_suffix(".part.npz"), nonempty=patches.nonempty, **features)
            path.with_suffix(".part.npz").rename(path)
            print(folder.name, name, flush=True)


def _sets(product: str, seed: int, normals: Normals) -> Iterator[tuple[str, Callable[[], Sequence[Prepared]]]]:
    network = network_for(profile("lite"), normals.geometry, "none")
    use = roles(0, POOL)
    fitted = sorted(use.fit)

    def views(i: int) -> Iterator[Prepared]:
        return make_views(normals.items[i].frame(seq=i), normals.geometry, network, normals.masks, 0)

    def shifted(shift: Shift) -> list[Prepared]:
        camera = ShiftedCamera(product, seed, shift)
        frames = [camera.frame(FIRST + i).frame for i in range(FRAMES)]
        return [prepare(frame, normals.geometry, network, normals.masks) for frame in frames]

    def spoiled(frames: Sequence[Prepared]) -> list[Prepared]:
        rng = np.random.default_rng(3)
        return [make_pseudo_defect(one, KINDS[i % 2], rng).prepared for i, one in enumerate(frames)]

    yield "normal", lambda: normals.prepared
    yield "select", lambda: [
        make_pseudo_defect(normals.prepared[i], kind, np.random.default_rng([i, 5])).prepared
        for i in use.select for kind in KINDS
    ]  # fmt: skip
    yield "views", lambda: [one for i in fitted for one in views(i)]
    for name, shift in SHIFTS.items():
        yield f"{name}-good", partial(shifted, shift)
        yield f"{name}-spoiled", partial(lambda shift: spoiled(shifted(shift)), shift)


@dataclass(frozen=True, slots=True)
class Cached:
    """A product's frozen patches."""

    sets: dict[str, PatchSet]
    fitted: list[int]
    """Frames that ``views`` was made from, VIEWS each."""

    def views(self, frames: Sequence[int]) -> list[int]:
        """Indices into ``views`` of these frames' views, in order."""
        return [self.fitted.index(i) * VIEWS + k for i in frames for k in range(VIEWS)]


def load(folder: Path) -> Cached:
    """One product's cache."""
    sets: dict[str, PatchSet] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            features = {name: arrays[name].astype(np.float32) for name in ("rgb", "points")}
            sets[path.stem] = PatchSet(cast(dict[ModalityName, FloatArray], features), arrays["nonempty"])
    return Cached(sets, sorted(roles(0, POOL).fit))
