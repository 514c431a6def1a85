"""A product of a data set, ready for any method: every frame prepared and embedded once, kept on disk.

Adaptation, banks and scores change from trial to trial; frozen patches, truths and foreground do not.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.calibration.features.embedding import embed, fit_station_statistics
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.datasets import Item, open_dataset
from asperity.calibration.frames.parts import shown_before
from asperity.calibration.frames.prepare_normals import Normals, prepare_normals, with_available, with_modalities
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.options import AUTO, CalibrateOptions
from asperity.calibration.profiles import Profile
from asperity.calibration.tuning.spoiled_normals import spoiler
from asperity.runtime.cameras.files.folders import GOOD
from asperity.runtime.errors import CalibrationError, DataError, FrameRefused
from asperity.runtime.files import replacing
from asperity.runtime.frame import BoolArray, Prepared, Window
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.preprocess import prepare

LOG = logging.getLogger(__name__)

FORMAT = 5
"""Version of the cache; a cache of another version is rebuilt."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True, slots=True)
class Shots:
    """n frames as a method sees them, and their ground truth."""

    patches: PatchSet
    inspect: BoolArray  # n x grid x grid
    windows: NDArray[np.int64]  # n x 3: x, y, side of the window in source pixels
    foreground: BoolArray  # n x H x W: pixels of the part, as preprocessing found them
    truth: BoolArray  # n x H x W: the data set's masks
    names: tuple[str, ...]
    defects: tuple[str, ...]
    """``good`` or the defect's name."""
    parts: tuple[str, ...]
    """Physical part of each frame; empty where unknown."""

    def __len__(self) -> int:
        return len(self.names)

    def window(self, index: int) -> Window:
        """The window of one frame."""
        x_px, y_px, side_px = (int(v) for v in self.windows[index])
        return Window(x_px, y_px, side_px)


@dataclass(frozen=True, slots=True)
class Pseudo:
    """Normal frames with pseudo-defects: what says whether a modality counts (``calibration.banks.left_out``)."""

    patches: PatchSet
    inspect: BoolArray  # n x grid x grid
    frames: NDArray[np.int64]  # (n,) index of the normal frame
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """One product."""

    name: str
    normal: Shots
    test: Shots
    pseudo: Pseudo
    refused: tuple[str, ...]
    """Test frames that preprocessing refused (the runtime would answer unknown). No figure includes them."""
    leaked: tuple[str, ...] = ()
    """Test frames that show a part of the training frames: their figures say nothing about new parts."""
    key: str = ""
    """Digest of the frames, weights and options that this was made from."""


def products_of(source: Path) -> list[Path]:
    """The product folders of a data set: ``source`` itself when it holds normal and test frames, else its children.

    Raises DataError when there is none.
    """
    if _is_product(source):
        return [source]
    found = [child for child in sorted(source.glob("*")) if _is_product(child)]
    if not found:
        raise DataError(
            f"{source} holds no product: expected train/good and test/<defect> in it (MVTec 3D-AD), train/data and "
            "test_public/data (Eyecandies), or folders with them"
        )
    return found


def _is_product(folder: Path) -> bool:
    return (folder / "train").is_dir() and any((folder / test).is_dir() for test in ("test", "test_public"))


def load_material(
    source: Path, chosen: Profile, networks: TorchNetworks, options: CalibrateOptions, cache: Path, progress: Progress
) -> Material:
    """Read a product's folder, or take it from ``cache`` if that was made from these frames, weights and options.

    Raises DataError and CalibrationError as ``calibrate`` does, and DataError when there are no test frames.
    """
    key = _key(source, chosen, networks, options)
    path = cache / f"{source.resolve().name}-{chosen.name}-{key}.npz"
    if not path.exists():
        made = _make(source, chosen, networks, options, progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=0o644) as file:
            np.savez(file, **_arrays(made))
        return replace(made, key=key)
    with np.load(path, allow_pickle=False) as arrays:
        refused, leaked = (tuple(json.loads(str(arrays[what]))) for what in ("refused", "leaked"))
        normal, test = _shots(arrays, "normal"), _shots(arrays, "test")
        return Material(source.resolve().name, normal, test, _pseudo(arrays), refused, leaked, key)


def _make(
    source: Path, chosen: Profile, networks: TorchNetworks, options: CalibrateOptions, progress: Progress
) -> Material:
    tests = open_dataset(source, unit=options.unit, invalid=options.invalid or ()).test()
    normals = prepare_normals(source, options, chosen, progress)
    # The surface's constants are of all normal frames, as the geometry: seeds share them, whatever they fit on.
    if options.modalities == AUTO:
        normals, _ = with_available(normals, chosen.modalities, len(normals.items), progress)
    else:
        normals = with_modalities(normals, chosen.modalities, len(normals.items), progress)
    network = normals.network
    fit_station_statistics(normals.prepared, network, networks, chosen)
    prepared: list[Prepared] = []
    kept: list[Item] = []
    refused: dict[str, FrameRefused] = {}
    for index, item in enumerate(tests):
        try:
            prepared.append(prepare(item.frame(seq=index), normals.geometry, network, normals.masks, normals.heights))
            kept.append(item)
        except FrameRefused as error:
            refused[item.name] = error
        progress("prepare test frames", index + 1, len(tests))
    _check_refused(refused, kept, tests, normals.geometry)
    shape_px = (normals.geometry.height_px, normals.geometry.width_px)

    def shots(frames: Sequence[Prepared], items: Sequence[Item], what: str) -> Shots:
        patches = embed(frames, network, networks, lambda a, b: progress(f"embed {what}", a, b))
        return Shots(
            patches=patches,
            inspect=np.stack([frame.inspect for frame in frames]),
            windows=np.array([[f.window.x_px, f.window.y_px, f.window.side_px] for f in frames], dtype=np.int64),
            foreground=np.stack([foreground_of(frame, shape_px) for frame in frames]),
            truth=np.stack([truth_of(item, shape_px) for item in items]),
            names=tuple(item.name for item in items),
            defects=tuple(item.defect for item in items),
            parts=tuple(item.part_id for item in items),
        )

    return Material(
        source.resolve().name,
        shots(normals.prepared, normals.items, "normal frames"),
        shots(prepared, kept, "test frames"),
        _spoiled(normals, network, networks, progress),
        tuple(refused),
        tuple(kept[i].name for i in shown_before(prepared, normals.prepared, normals.geometry)),
    )


def _spoiled(normals: Normals, network: Network, networks: TorchNetworks, progress: Progress) -> Pseudo:
    spoil = spoiler(normals, network, seed=0)
    made = [(index, one) for index in range(len(normals.items)) for one in spoil(index)]
    prepared = [one.prepared for _, one in made]
    return Pseudo(
        embed(prepared, network, networks, lambda a, b: progress("embed pseudo-defects", a, b)),
        np.stack([one.inspect for one in prepared]), np.array([index for index, _ in made], dtype=np.int64),
        tuple(one.kind for _, one in made),
    )  # fmt: skip


def _check_refused(
    refused: dict[str, FrameRefused], kept: Sequence[Item], tests: Sequence[Item], geometry: Geometry
) -> None:
    """One line of what was refused. Raises CalibrationError where no good or no defective frame is left."""
    if not refused:
        return
    counts = Counter(error.reason.name for error in refused.values())
    reason, most = counts.most_common(1)[0]
    first = next(error for error in refused.values() if error.reason.name == reason)
    told = f"{len(refused)} of {len(tests)} test frames were refused, {most} of them {reason}: {first}"
    if all(any((item.defect == GOOD) == good for item in kept) for good in (True, False)):
        LOG.warning("%s; no figure includes them", told)
        return
    raise CalibrationError(
        f"{told}; too few are left to evaluate (background: {geometry.method}, {geometry.why}); use --geometry none if "
        "the part fills the view, or --unit and --z if the points are not what they were taken for"
    )


def foreground_of(frame: Prepared, shape_px: tuple[int, int]) -> BoolArray:
    """The prepared cloud's foreground on the source frame, nearest cell."""
    cells = (frame.cloud != 0).any(axis=-1)
    axes = []
    for start, size in zip((frame.window.y_px, frame.window.x_px), shape_px, strict=True):
        position = (np.arange(size) - start + 0.5) * len(cells) / frame.window.side_px
        axes.append(np.floor(position).astype(np.int64))
    inside = [(axis >= 0) & (axis < len(cells)) for axis in axes]
    rows, columns = (np.clip(axis, 0, len(cells) - 1) for axis in axes)
    return np.asarray(cells[rows[:, None], columns[None, :]] & inside[0][:, None] & inside[1][None, :])


def truth_of(item: Item, shape_px: tuple[int, int]) -> BoolArray:
    """The mask. Raises DataError for a defective frame without one."""
    mask = item.mask(shape_px)
    if mask is None:
        if item.defect != GOOD:
            raise DataError(
                f"{item.name} is defective and has no mask gt/{item.name.rpartition('/')[2]}.png, which is needed to "
                "evaluate"
            )
        return np.zeros(shape_px, dtype=bool)
    return mask


def _key(source: Path, chosen: Profile, networks: TorchNetworks, options: CalibrateOptions) -> str:
    """Digest of the frames (paths, sizes, times), the profile's choices, the weights and the options."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    listing = [(str(path.relative_to(source)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    weights = [(origin.network, origin.sha256) for origin in networks.origins]
    chosen_data = [options.limit, options.unit, options.invalid, options.geometry, options.exclude]
    said = [FORMAT, listing, asdict(chosen), weights, chosen_data]
    if options.z != "auto":
        said.append(options.z)
    if options.modalities == AUTO:
        said.append(AUTO)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _arrays(made: Material) -> dict[str, Any]:
    arrays: dict[str, Any] = {"refused": json.dumps(made.refused), "leaked": json.dumps(made.leaked)}
    for name, own in (("normal", made.normal), ("test", made.test), ("pseudo", made.pseudo)):
        arrays |= {
            **{f"{name}.{modality}": values for modality, values in own.patches.features.items()},
            f"{name}.modalities": json.dumps(list(own.patches.features)),
            f"{name}.nonempty": own.patches.nonempty,
            f"{name}.inspect": own.inspect,
        }
    arrays |= {"pseudo.frames": made.pseudo.frames, "pseudo.kinds": json.dumps(made.pseudo.kinds)}
    for name, shots in (("normal", made.normal), ("test", made.test)):
        arrays |= {
            f"{name}.windows": shots.windows,
            f"{name}.foreground": np.packbits(shots.foreground, axis=-1),
            f"{name}.truth": np.packbits(shots.truth, axis=-1),
            f"{name}.width": shots.truth.shape[-1],
            f"{name}.said": json.dumps([shots.names, shots.defects, shots.parts]),
        }
    return arrays


def _shots(arrays: Any, name: str) -> Shots:
    width = int(arrays[f"{name}.width"])

    def bits(key: str) -> BoolArray:
        return np.unpackbits(arrays[f"{name}.{key}"], axis=-1, count=width).astype(bool)

    names, defects, parts = (tuple(column) for column in json.loads(str(arrays[f"{name}.said"])))
    return Shots(
        patches=_patches(arrays, name),
        inspect=arrays[f"{name}.inspect"], windows=arrays[f"{name}.windows"], foreground=bits("foreground"),
        truth=bits("truth"), names=names, defects=defects, parts=parts,
    )  # fmt: skip


def _pseudo(arrays: Any) -> Pseudo:
    return Pseudo(
        _patches(arrays, "pseudo"), arrays["pseudo.inspect"], arrays["pseudo.frames"],
        tuple(json.loads(str(arrays["pseudo.kinds"]))),
    )  # fmt: skip


def _patches(arrays: Any, name: str) -> PatchSet:
    features = {modality: arrays[f"{name}.{modality}"] for modality in json.loads(str(arrays[f"{name}.modalities"]))}
    return PatchSet(features, arrays[f"{name}.nonempty"])
