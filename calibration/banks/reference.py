"""The torch reference: banks of the fit frames, and scores of any normal frame against them.

Everything after the networks is the runtime's own code; here it is only fed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.calibration.banks.coreset import bank_rows, coreset, projected
from asperity.calibration.banks.row_statistics import Tally
from asperity.calibration.features.embedding import frame_of, one_frame
from asperity.calibration.features.patches import PatchSet, child_counts
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.options import Fusion
from asperity.calibration.profiles import Profile
from asperity.runtime.bundle.banks import Banks
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import BoolArray, FloatArray, ModalityName, ModalityScores, Prepared
from asperity.runtime.manifest import Decision, Modality, Network
from asperity.runtime.vision.distances import REWEIGHTING_ROWS, ModalityBank, RowStatistics, measure
from asperity.runtime.vision.features import Patches, adapted_patches, frozen_patches
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.tiles import of_window

Progress = Callable[[int, int], None]

RGB_PUBLISHED_SCALE = 0.1
"""The release feeds its one-class SVM with [s_xyz, 0.1 s_rgb] (lsfa 7.5)."""
LEAST_STD = 1e-6
"""Tuning frames whose distances differ less, relative to their mean, are copies of each other."""


@dataclass(frozen=True, slots=True)
class OwnedBank:
    """A modality's bank, and which part (by the index of its first frame) each row came from."""

    bank: ModalityBank
    owners: NDArray[np.int64]
    tally: Tally | None = None
    """With local distances: what each part's frames said of the rows."""
    origins: NDArray[np.int64] | None = None
    """Frame and cell that each row came from, N x 2, where that is known."""

    def without(self, part: int) -> ModalityBank:
        """The bank without one part's rows. Raises CalibrationError when too few are left."""
        kept = self.owners != part
        if kept.all():
            return self.bank
        if int(kept.sum()) < REWEIGHTING_ROWS:
            raise CalibrationError("without one part's rows the memory bank is empty; calibrate from more parts")
        bank, usual = self.bank, None
        if self.tally is not None:
            whole = self.tally.usual(leave_out=part)
            usual = RowStatistics(whole.mean[kept], whole.std[kept])
        return replace(bank, memory=MemoryBank(bank.memory.rows[kept]), usual=usual)


OwnedBanks = dict[ModalityName, OwnedBank]


@dataclass(frozen=True, slots=True)
class FrameDistances:
    """The banks' answer to one frame, before any fusion."""

    modalities: dict[ModalityName, ModalityScores]
    scored: BoolArray

    def image_distances(self) -> dict[ModalityName, float]:
        """The image's distance in each modality."""
        return {name: one.image_distance for name, one in self.modalities.items()}


def make_bank(
    name: str, patches: FloatArray, owners: NDArray[np.int64], wanted: int, chosen: Profile, *,
    projection_seed: int | None = None, device: str = "cpu", progress: Progress = lambda done, total: None,
    origins: NDArray[np.int64] | None = None,
) -> OwnedBank:  # fmt: skip
    """A memory bank of ``wanted`` rows out of patches (n, D) of the parts ``owners`` (n,).

    Patches are standardised by their own mean and std (lsfa 11 row 16) and whitened where the profile says so; rows are
    a greedy k-centre coreset (7.1). Raises CalibrationError when the patches are all equal.
    """
    mean, std = float(patches.mean(dtype=np.float64)), float(patches.std(dtype=np.float64))
    if not std > 0:
        raise CalibrationError(f"all {name} features are equal; check the weights and the frames")
    standard = (patches - np.float32(mean)) * np.float32(1.0 / std)
    projection = None if chosen.whitening is None else whitening(standard, chosen.whitening)
    if projection is not None:
        standard = standard @ projection
    compared = standard if projection_seed is None else projected(standard, projection_seed)
    index = coreset(compared, wanted, device=device, progress=progress)
    rows, own = standard[index], owners[index]
    tally = Tally(rows, own, standard, owners) if chosen.distances == "local" else None
    usual = tally.usual() if tally else None
    bank = ModalityBank(MemoryBank(rows), mean, std, usual, projection)
    return OwnedBank(bank, own, tally, None if origins is None else origins[index])


def whitening(patches: FloatArray, shrinkage: float) -> FloatArray:
    """C x C float32: patches (n, C) times it have equal variance in all directions but for the shrinkage.

    Variances along the principal axes are taken for (1 - shrinkage) of their own and ``shrinkage`` of their mean.
    """
    centred = patches.astype(np.float64) - patches.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(patches))
    shrunk = (1.0 - shrinkage) * np.maximum(variances, 0.0) + shrinkage * variances.mean()
    return np.ascontiguousarray(axes / np.sqrt(shrunk), dtype=np.float32)


Views = Callable[[int], Iterable[Prepared]]
"""Further pictures of the frame of that index."""


def no_views(index: int) -> Iterable[Prepared]:
    """None."""
    return ()


class Reference:
    """Networks, banks and the frames' cached frozen patches, of one calibration."""

    def __init__(
        self, network: Network, networks: TorchNetworks, frozen: PatchSet, prepared: Sequence[Prepared],
        parts: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """``parts``: which part each frame shows; None: every frame another one."""
        self.network = network
        self.networks = networks
        self.frozen = frozen
        self.prepared = prepared
        first = {part: index for index, part in reversed(list(enumerate(parts or ())))}
        self.part_of = np.array([first[part] for part in parts] if parts else range(len(prepared)), dtype=np.int64)
        """Of each frame, the first frame of its part: the owner of the frame's rows."""
        self.banks: OwnedBanks

    def fit_banks(
        self, fit: Sequence[int], chosen: Profile, *, seed: int, projection: bool, device: str,
        progress: Callable[[str, int, int], None], views: Views = no_views,
    ) -> None:  # fmt: skip
        """Adapt the fit frames, standardise each modality by its own mean and std, choose the banks' rows.

        Only patches that are scored are banked: non-empty and left by the masks. ``views``: further pictures of a fit
        frame, whose rows are that frame's own. Raises CalibrationError.
        """
        rows, origins, shots = self._scored_rows(fit, views, progress)
        window = of_window(self.network)
        wanted = bank_rows(replace(chosen, grid=window.grid, rgb_grid=window.rgb_grid), shots)
        self.banks = {
            name: make_bank(
                name, rows.pop(name), self.part_of[origins[name][:, 0]], wanted[name], chosen, device=device,
                projection_seed=seed if projection else None,
                progress=partial(progress, f"{name} bank"), origins=origins[name],
            )
            for name in self.network.modalities
        }  # fmt: skip

    def _scored_rows(
        self, fit: Sequence[int], views: Views, progress: Callable[[str, int, int], None]
    ) -> tuple[dict[ModalityName, FloatArray], dict[ModalityName, NDArray[np.int64]], int]:
        """Each modality's scored tokens of the fit frames and their views; frame and cell of each, n x 2; how many
        frames."""
        found: dict[ModalityName, list[FloatArray]] = {name: [] for name in self.frozen.features}
        origins: dict[ModalityName, list[NDArray[np.int64]]] = {name: [] for name in found}
        shots = 0
        for position, index in enumerate(fit):
            for patches, inspect in self._shots(index, views):
                adapted = adapted_patches(patches, self.network, self.networks)
                tokens = scored_tokens(one_frame(adapted), (adapted.nonempty & inspect)[None])
                for name, values in adapted.features.items():
                    cells = np.flatnonzero(tokens[name][0])
                    found[name].append(values[cells])
                    origins[name].append(np.stack([np.full(len(cells), index), cells], axis=1))
                shots += 1
            progress("features", position + 1, len(fit))
        if not any(len(own) for parts in found.values() for own in parts):
            raise CalibrationError("the masks and the foreground leave no patch to learn from; check the masks")
        rows = {name: np.concatenate(found.pop(name)) for name in list(found)}
        return rows, {name: np.concatenate(places) for name, places in origins.items()}, shots

    def _shots(self, index: int, views: Views) -> Iterator[tuple[Patches, BoolArray]]:
        """Frozen patches of a frame and of its views, and which of them the masks leave."""
        yield frame_of(self.frozen, index), self.prepared[index].inspect
        for view in views(index):
            yield frozen_patches(view, self.network, self.networks), view.inspect

    def distances(self, index: int, *, leave_out: bool) -> FrameDistances:
        """One frame against the banks; ``leave_out``: without the rows that came from frames of its part."""
        part = int(self.part_of[index])
        banks = {name: one.without(part) if leave_out else one.bank for name, one in self.banks.items()}
        return self.measured(frame_of(self.frozen, index), self.prepared[index].inspect, banks)

    def measured(self, frozen: Patches, inspect: BoolArray, banks: Banks) -> FrameDistances:
        """A frame's frozen patches against any banks."""
        return FrameDistances(*measure(adapted_patches(frozen, self.network, self.networks), inspect, banks))

    def measured_anew(self, prepared: Prepared) -> FrameDistances:
        """A frame that took no part in anything, against the banks."""
        banks = {name: one.bank for name, one in self.banks.items()}
        return self.measured(frozen_patches(prepared, self.network, self.networks), prepared.inspect, banks)

    def nearest_normal(self, index: int, name: ModalityName, cell: int) -> tuple[int, int] | None:
        """Where normal frames of other parts look most like a patch of a frame: (frame, cell of the grid).

        ``cell``: of the grid, row by row. None where the bank does not know where its rows came from.
        """
        bank, grid = self.banks[name], of_window(self.network).grid
        features = adapted_patches(frame_of(self.frozen, index), self.network, self.networks).features[name]
        factor = grid // math.isqrt(len(features))
        token = cell // grid // factor * (grid // factor) + cell % grid // factor
        others = np.flatnonzero(bank.owners != self.part_of[index])
        if bank.origins is None or not len(others):
            return None
        query = bank.bank.standardised(features[token : token + 1])
        _, nearest = MemoryBank(bank.bank.memory.rows[others]).nearest(query)
        frame, place = bank.origins[others[int(nearest[0])]]
        row, column = divmod(int(place), grid // factor)
        return int(frame), row * factor * grid + column * factor


def scored_tokens(patches: PatchSet, scored: BoolArray) -> dict[ModalityName, BoolArray]:
    """By modality, n x cells: tokens that lie under a scored patch (``scored``: n x grid x grid)."""
    return {name: child_counts(scored, math.isqrt(values.shape[1])) > 0 for name, values in patches.features.items()}


def fit_decision(tune: Sequence[FrameDistances], banks: OwnedBanks, fusion: Fusion) -> Decision:
    """Standardisation and fusion from the tuning frames; threshold and scores are still open.

    ``average``: each modality by its own mean and std of the tuning frames' distances, equal weights that add up to 1
    (lsfa 11 row 14). ``squares``: likewise, each with a weight of 1 (docs/decisions/fusion.md); ``tune`` then holds
    the fit frames too, judged by ``folds``. ``ocsvm``: weights of a linear one-class SVM on the raw distances,
    published settings. Raises CalibrationError.
    """
    weight = 1.0 if fusion == "squares" else 1.0 / len(banks)
    modalities: dict[ModalityName, Modality] = {}
    for name, bank in banks.items():
        image = np.array([one.modalities[name].image_distance for one in tune])
        patch = np.concatenate([one.modalities[name].distance_map[one.scored] for one in tune])
        modalities[name] = _standardised(name, image, patch, bank, weight)
    if fusion == "ocsvm":
        if modalities.keys() != {"rgb", "points"}:
            raise CalibrationError("the one-class SVM fuses rgb and points alone; calibrate with --fusion average")
        weights = one_class_weights(
            np.array([one.modalities["points"].image_distance for one in tune]),
            np.array([one.modalities["rgb"].image_distance for one in tune]),
        )
        modalities = {
            name: _raw(modality, weight) for (name, modality), weight in zip(modalities.items(), weights, strict=True)
        }
    decision = Decision(
        engine="torch", precision="fp32", fusion=fusion, threshold=0.0, alpha=0.0, alpha_total=0.0,
        calibration_scores=(),
    )  # fmt: skip
    return msgspec.structs.replace(decision, **modalities)


def one_class_weights(points: NDArray[np.float64], rgb: NDArray[np.float64]) -> tuple[float, float]:
    """(rgb, points) weights of the release's linear one-class SVM (lsfa 7.5) on raw image distances (n,) each.

    Larger must mean stranger in both, so a weight <= 0 raises CalibrationError instead of falling back.
    """
    from sklearn.linear_model import SGDOneClassSVM

    features = np.stack([points, RGB_PUBLISHED_SCALE * rgb], axis=1)
    svm = SGDOneClassSVM(random_state=42, nu=0.5, max_iter=1000).fit(features)
    for_points, for_rgb = float(svm.coef_[0]), RGB_PUBLISHED_SCALE * float(svm.coef_[1])
    for name, weight in (("rgb", for_rgb), ("points", for_points)):
        if not weight > 0:
            raise CalibrationError(
                f"the one-class SVM gave {name} a weight of {weight:.3g}; it must be above 0. Calibrate with "
                "--fusion average, or from more frames"
            )
    return for_rgb, for_points


def _standardised(
    name: str, image: NDArray[np.float64], patch: NDArray[np.floating], bank: OwnedBank, weight: float
) -> Modality:
    std, patch_std = float(image.std(ddof=1)), float(patch.std(dtype=np.float64))
    if not std > LEAST_STD * abs(float(image.mean())) or not patch_std > 0:
        raise CalibrationError(
            f"the {len(image)} tuning frames all have the same {name} distance; are they copies of one frame?"
        )
    return Modality(
        feature_mean=bank.bank.feature_mean, feature_std=bank.bank.feature_std, image_mean=float(image.mean()),
        image_std=std, patch_mean=float(patch.mean(dtype=np.float64)), patch_std=patch_std, weight=weight,
        bank_rows=len(bank.bank.memory), projected=0 if bank.bank.projection is None else bank.bank.projection.shape[1],
    )  # fmt: skip


def _raw(modality: Modality, weight: float) -> Modality:
    return msgspec.structs.replace(
        modality, image_mean=0.0, image_std=1.0, patch_mean=0.0, patch_std=1.0, weight=weight
    )
