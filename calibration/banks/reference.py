"""The torch reference: banks of the fit frames, and scores of any normal frame against them.

Everything after the networks is the runtime's own code; here it is only fed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.calibration.banks.coreset import bank_rows, coreset, projected
from asperity.calibration.banks.row_statistics import Tally
from asperity.calibration.features.embedding import frame_of
from asperity.calibration.features.patches import PatchSet, child_counts
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.profiles import Profile
from asperity.calibration.record import Fusion
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
    """A modality's bank, and which frame (its index in the patch set) each row came from."""

    bank: ModalityBank
    owners: NDArray[np.int64]
    tally: Tally | None = None
    """With local distances: what each frame said of the rows."""

    def without(self, frame: int) -> ModalityBank:
        """The bank without one frame's rows. Raises CalibrationError when too few are left."""
        kept = self.owners != frame
        if kept.all():
            return self.bank
        if int(kept.sum()) < REWEIGHTING_ROWS:
            raise CalibrationError("without one frame's rows the memory bank is empty; calibrate from more frames")
        bank, usual = self.bank, None
        if self.tally is not None:
            whole = self.tally.usual(leave_out=frame)
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
) -> OwnedBank:  # fmt: skip
    """A memory bank of ``wanted`` rows out of patches (n, D) of the frames ``owners`` (n,).

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
    return OwnedBank(ModalityBank(MemoryBank(rows), mean, std, usual, projection), own, tally)


def whitening(patches: FloatArray, shrinkage: float) -> FloatArray:
    """C x C float32: patches (n, C) times it have equal variance in all directions but for the shrinkage.

    Variances along the principal axes are taken for (1 - shrinkage) of their own and ``shrinkage`` of their mean.
    """
    centred = patches.astype(np.float64) - patches.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(patches))
    shrunk = (1.0 - shrinkage) * np.maximum(variances, 0.0) + shrinkage * variances.mean()
    return np.ascontiguousarray(axes / np.sqrt(shrunk), dtype=np.float32)


class Reference:
    """Networks, banks and the frames' cached frozen patches, of one calibration."""

    def __init__(
        self, network: Network, networks: TorchNetworks, frozen: PatchSet, prepared: Sequence[Prepared]
    ) -> None:
        self.network = network
        self.networks = networks
        self.frozen = frozen
        self.prepared = prepared
        self.banks: OwnedBanks

    def fit_banks(
        self, fit: Sequence[int], chosen: Profile, *, seed: int, projection: bool, device: str,
        progress: Callable[[str, int, int], None],
    ) -> None:  # fmt: skip
        """Adapt the fit frames, standardise each modality by its own mean and std, choose the banks' rows.

        Only patches that are scored are banked: non-empty and left by the masks. Raises CalibrationError.
        """
        rows, owners = self._scored_rows(fit, progress)
        window = of_window(self.network)
        wanted = bank_rows(replace(chosen, grid=window.grid, rgb_grid=window.rgb_grid), len(fit))
        self.banks = {
            name: make_bank(
                name, rows.pop(name), owners[name], wanted[name], chosen, device=device,
                projection_seed=seed if projection else None,
                progress=partial(progress, f"{name} bank"),
            )
            for name in self.network.modalities
        }  # fmt: skip

    def _scored_rows(
        self, fit: Sequence[int], progress: Callable[[str, int, int], None]
    ) -> tuple[dict[ModalityName, FloatArray], dict[ModalityName, NDArray[np.int64]]]:
        """Every modality's scored tokens of the fit frames, and the frame of each."""
        inspect = np.stack([self.prepared[i].inspect for i in fit])
        scored = self.frozen.nonempty[list(fit)] & inspect
        if not scored.any():
            raise CalibrationError("the masks and the foreground leave no patch to learn from; check the masks")
        tokens = scored_tokens(self.frozen, scored)
        rows = {
            name: np.empty((int(tokens[name].sum()), values.shape[2]), np.float32)
            for name, values in self.frozen.features.items()
        }
        filled = dict.fromkeys(rows, 0)
        for position, index in enumerate(fit):
            adapted = adapted_patches(frame_of(self.frozen, index), self.network, self.networks)
            for name, values in adapted.features.items():
                own = values[tokens[name][position]]
                rows[name][filled[name] : filled[name] + len(own)] = own
                filled[name] += len(own)
            progress("features", position + 1, len(fit))
        frames = np.asarray(fit, dtype=np.int64)
        return rows, {name: np.repeat(frames, mask.sum(axis=1)) for name, mask in tokens.items()}

    def distances(self, index: int, *, leave_out: bool) -> FrameDistances:
        """One frame against the banks; ``leave_out``: without the rows that came from it."""
        banks = {name: one.without(index) if leave_out else one.bank for name, one in self.banks.items()}
        return self.measured(frame_of(self.frozen, index), self.prepared[index].inspect, banks)

    def measured(self, frozen: Patches, inspect: BoolArray, banks: Banks) -> FrameDistances:
        """A frame's frozen patches against any banks."""
        return FrameDistances(*measure(adapted_patches(frozen, self.network, self.networks), inspect, banks))

    def measured_anew(self, prepared: Prepared) -> FrameDistances:
        """A frame that took no part in anything, against the banks."""
        banks = {name: one.bank for name, one in self.banks.items()}
        return self.measured(frozen_patches(prepared, self.network, self.networks), prepared.inspect, banks)


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
